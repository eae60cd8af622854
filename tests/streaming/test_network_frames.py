"""Frames with the flow after them: against whole videos, and against the records' windows."""

import itertools
import types

import cv2
import numpy as np
import pytest

from step_jax.annotations import Annotations, Video
from step_jax.flow.encoding import encode_flow
from step_jax.flow.methods import Estimator
from step_jax.modality import RGB, Modality
from step_jax.streaming.clip_windows import stream_windows
from step_jax.streaming.network_frames import network_frames
from step_jax.video import read_frames, resize

SIDE = 16


def brightness(first, second):
    """A stand-in for flow: how bright both frames are, which tells which frame it is."""
    means = np.stack([first.mean((1, 2)), second.mean((1, 2))], axis=-1)
    return np.broadcast_to(means[:, None, None] / 16 - 8, (*first.shape, 2)).astype(np.float32)


def estimator(batch=1):
    return Estimator("brightness", {}, brightness, batch=batch)


def video(count, *, height=24, width=32):
    random = np.random.default_rng(count)
    base = random.integers(0, 40, (height, width, 1)).repeat(3, axis=2)
    return [(base + 9 * number).astype(np.uint8) for number in range(count)]


def whole_video_flow(frames):
    grey = [cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY)[None] for frame in frames]
    pairs = list(itertools.pairwise(grey))
    images = [encode_flow(brightness(*pair)[0]) for pair in pairs]
    return [*images, images[-1]] if images else [encode_flow(np.zeros((24, 32, 2)))]


@pytest.mark.parametrize("name", ["rgb", "flow", "early"])
@pytest.mark.parametrize(("count", "batch"), [(1, 1), (2, 3), (4, 1), (5, 2), (6, 8), (13, 4)])
def test_against_the_whole_video(name, count, batch):
    frames, modality = video(count), Modality(name)
    found = list(
        network_frames(iter(frames), modality=modality, side=SIDE, estimator=estimator(batch))
    )
    small = {"width": SIDE, "height": SIDE}
    flow = [resize(image, **small) for image in whole_video_flow(frames)]
    assert len(found) == count
    for number, picture in enumerate(found):
        images = [resize(frames[number], **small)] if modality.has_rgb else []
        if modality.has_flow:
            images += [flow[min(number + later, count - 1)] for later in range(5)]
        np.testing.assert_array_equal(picture, np.concatenate(images, axis=-1))


@pytest.mark.parametrize(("flow_side", "expected"), [(0, (24, 32)), (12, (12, 16)), (30, (24, 32))])
def test_flow_is_computed_at_the_size_of_training(flow_side, expected):
    seen = []

    def compute(first, second):
        seen.append(first.shape[1:])
        return brightness(first, second)

    found = network_frames(
        video(3),
        modality=Modality("early"),
        side=SIDE,
        estimator=Estimator("seen", {}, compute),
        flow_side=flow_side,
    )
    assert {picture.shape for picture in found} == {(SIDE, SIDE, 18)}
    assert set(seen) == {expected}


@pytest.mark.parametrize("name", ["rgb", "early"])
def test_no_frames(name):
    assert list(network_frames([], modality=Modality(name), side=4, estimator=estimator())) == []


@pytest.mark.parametrize("modality", [RGB, Modality("early"), Modality("flow", flow_frames=2)])
def test_windows_are_those_of_the_records(tmp_path, modality):
    """Of the same video, up to the records' compression; in the network's size from the start."""
    from input_pipeline.accelerators import hide_accelerators
    from input_pipeline.pipeline import eval_batches
    from input_pipeline.prepare import RecordOptions, prepare

    hide_accelerators()
    shape = types.SimpleNamespace(clip_frames=3, input_frames=7, stride=2)
    frames = [cv2.blur(frame, (9, 9)) for frame in video(11, height=SIDE, width=SIDE)]
    for folder, images in {"v": frames, "flow/v": whole_video_flow(frames)}.items():
        (tmp_path / folder).mkdir(parents=True)
        for number, image in enumerate(images, start=1):
            cv2.imwrite(str(tmp_path / folder / f"{number:05d}.png"), image[..., ::-1])
    one = Video("v", "v", "test", 25.0, len(frames), SIDE, SIDE, ())
    options = RecordOptions(core_frames=5, halo_before=2, halo_after=4, jpeg_quality=100)
    annotations = Annotations("one", ("a",), (one,), tmp_path)
    records_dir = tmp_path / "records"
    prepare(annotations, records_dir, options=options, workers=1, flow=tmp_path / "flow")
    batches = eval_batches(
        records_dir,
        split="test",
        **vars(shape),
        image_size=SIDE,
        max_tubes=1,
        batch_size=4,
        modality=modality.name,
        flow_frames=modality.flow_frames,
    )
    expected = {
        int(start): clip
        for batch in batches
        for start, clip, real in zip(
            batch["start"], batch["clips"], batch["example_mask"], strict=True
        )
        if real
    }
    read = (frame for _, frame in read_frames(tmp_path / "v"))
    stream = network_frames(read, modality=modality, side=SIDE, estimator=estimator())
    found = {
        window.start: np.stack(window.frames) for window in stream_windows(stream, **vars(shape))
    }
    assert found.keys() == expected.keys()
    for start, clip in found.items():
        assert clip.shape == expected[start].shape
        assert np.abs(clip.astype(int) - expected[start]).max() <= 4
