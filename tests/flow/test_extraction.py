import json
import shutil

import cv2
import numpy as np
import pytest
from PIL import Image

from step_jax.errors import InputError
from step_jax.flow import extraction, flow_images
from step_jax.flow.extraction import FlowOptions, extract
from step_jax.flow.frame_estimate import FrameEstimate
from step_jax.flow.image_folder import ImageFormat
from step_jax.flow.sources import find_sources
from step_jax.folder_lock import locked_folder
from step_jax.video import VideoWriter

PNG = FlowOptions(method="dis", image_format=ImageFormat(png=True))


def run(folder, output, options=PNG, **how):
    return extract(find_sources(folder, output=output), output, options, **how)


def images(folder, suffix="png"):
    files = sorted(folder.iterdir())
    assert [file.name for file in files] == [f"{n:05d}.{suffix}" for n in range(1, len(files) + 1)]
    return [np.asarray(Image.open(file)) for file in files]


@pytest.fixture
def videos(tmp_path, frame_folder, moving):
    """A folder of frames with 4, another with 1, and a file with 6."""
    root = tmp_path / "videos"
    frame_folder(root / "Biking" / "v_a", 4)
    frame_folder(root / "Biking" / "v_single", 1)
    with VideoWriter(root / "clip.avi", fps=25, width=64, height=48) as writer:
        for frame in moving(6):
            writer.write(frame)
    return root


def test_every_frame_has_an_image(videos, tmp_path, moving):
    summary = run(videos, tmp_path / "flow")
    assert (summary.videos, summary.frames, summary.failed) == (3, 11, [])
    expected = list(flow_images(moving(4), method="dis"))
    np.testing.assert_array_equal(images(tmp_path / "flow/Biking/v_a"), expected)
    assert (images(tmp_path / "flow/Biking/v_single")[0] == 128).all()
    assert len(images(tmp_path / "flow/clip")) == 6


def test_jpeg_files_are_close_and_in_rgb_order(videos, tmp_path, moving):
    run(videos / "Biking", tmp_path / "flow", FlowOptions(method="dis"))
    found = np.stack(images(tmp_path / "flow/v_a", "jpg"))
    expected = np.stack(list(flow_images(moving(4), method="dis")))
    assert np.abs(found.astype(int) - expected).mean() < 3
    assert np.median(found[..., 0]) == pytest.approx(128 + 2 * 16, abs=2)
    assert np.median(found[..., 1]) == pytest.approx(128, abs=2)


def test_several_processes_write_the_same(videos, tmp_path):
    run(videos, tmp_path / "one")
    assert run(videos, tmp_path / "two", workers=2).frames == 11
    for name in ("Biking/v_a", "Biking/v_single", "clip"):
        np.testing.assert_array_equal(
            images(tmp_path / "one" / name), images(tmp_path / "two" / name)
        )


def test_a_second_run_goes_on_where_the_first_stopped(videos, tmp_path):
    output = tmp_path / "flow"
    run(videos, output)
    kept = (output / "clip/00001.png").stat().st_mtime_ns
    shutil.rmtree(output / "Biking/v_a")
    (output / "Biking/.v_a.incomplete").mkdir()
    (output / "Biking/.v_a.incomplete/00009.png").touch()
    summary = run(videos, output)
    assert (summary.videos, summary.kept) == (1, 2)
    assert (output / "clip/00001.png").stat().st_mtime_ns == kept
    assert len(images(output / "Biking/v_a")) == 4
    assert not list(output.rglob(".*"))


def test_what_is_interrupted_never_looks_complete(videos, tmp_path, monkeypatch):
    def interrupted(frames, estimator):
        yield np.zeros((4, 4, 3), np.uint8)
        raise KeyboardInterrupt

    monkeypatch.setattr(extraction, "encoded_flows", interrupted)
    with pytest.raises(KeyboardInterrupt):
        run(videos, tmp_path / "flow")
    assert [path.name for path in (tmp_path / "flow").rglob("*")] == ["flow.json", "Biking"]


@pytest.mark.parametrize(
    ("other", "message"),
    [
        (FlowOptions(method="dis"), "image format png, now it is jpg"),
        (FlowOptions(method="dis", parameters={"preset": "fast"}), "preset medium, now it is fast"),
        (FlowOptions(method="dis", image_format=PNG.image_format, short_side=30), "short_side 0"),
    ],
)
def test_other_parameters_into_the_same_folder(videos, tmp_path, other, message):
    run(videos, tmp_path / "flow")
    with pytest.raises(InputError, match=message):
        run(videos, tmp_path / "flow", other)


def test_the_record(videos, tmp_path):
    run(videos, tmp_path / "flow")
    record = json.loads((tmp_path / "flow/flow.json").read_text())
    assert record["method"] == "dis"
    assert record["bound_px"] == 8
    assert record["image"] == {"format": "png"}
    assert record["versions"]["opencv"] == cv2.__version__


@pytest.mark.parametrize("content", ["{", "[]", '{"method": "dis"}'])
def test_a_damaged_record(videos, tmp_path, content):
    (tmp_path / "flow").mkdir()
    (tmp_path / "flow/flow.json").write_text(content)
    with pytest.raises(InputError, match=r"flow\.json: is damaged"):
        run(videos, tmp_path / "flow")


def test_a_folder_of_something_else(videos, tmp_path):
    (tmp_path / "flow").mkdir()
    (tmp_path / "flow/thesis.tex").touch()
    with pytest.raises(InputError, match=r"holds thesis\.tex and no flow\.json"):
        run(videos, tmp_path / "flow")


def test_two_runs_at_once(videos, tmp_path):
    with locked_folder(tmp_path / "flow"), pytest.raises(InputError, match="another run"):
        run(videos, tmp_path / "flow")


@pytest.mark.parametrize("workers", [1, 2])
def test_a_bad_video_is_named_and_the_rest_done(videos, tmp_path, moving, capsys, workers):
    small = moving(1, height=30)[0]
    cv2.imwrite(str(videos / "Biking/v_a/00003.png"), small)
    (videos / "broken.avi").write_bytes((videos / "clip.avi").read_bytes()[:3000])
    summary = run(videos, tmp_path / "flow", workers=workers)
    assert summary.videos == 2
    mixed, broken = sorted(summary.failed)
    assert "v_a/00003.png" in mixed
    assert "30 pixels" in mixed
    assert "broken.avi" in broken
    assert not (tmp_path / "flow/Biking/v_a").exists()
    assert len(images(tmp_path / "flow/clip")) == 6


def test_a_damaged_frame(videos, tmp_path):
    file = videos / "Biking/v_a/00002.png"
    file.write_bytes(file.read_bytes()[:200])
    (message,) = run(videos, tmp_path / "flow").failed
    assert "v_a/00002.png: cannot be decoded" in message


def test_smaller_frames(videos, tmp_path):
    options = FlowOptions(method="dis", image_format=ImageFormat(png=True), short_side=24)
    run(videos, tmp_path / "flow", options)
    assert images(tmp_path / "flow/Biking/v_a")[0].shape == (24, 32, 3)


def test_estimate_of_the_frames(videos):
    folder, file = videos / "Biking/v_a", videos / "clip.avi"
    other = videos / "other.avi"
    other.write_bytes(2 * file.read_bytes())
    assert FrameEstimate([folder]).total() == 4
    estimate = FrameEstimate([folder, file, other])
    assert estimate.total() == 4 + 6 + 12
    estimate.finished(file, frames=6)
    estimate.finished(other, frames=8)
    assert estimate.total() == 18
    assert FrameEstimate([videos / "missing.avi"][:0]).total() == 0
    assert FrameEstimate([file, videos / "missing.avi"]).total() == 6
