"""Where a video's flow images are looked for, and what is wrong with them."""

import dataclasses
import json
import os

import cv2
import numpy as np
import pytest

from input_pipeline import flow_folders, frame_store
from step_jax.annotations import Annotations, Video
from step_jax.errors import InputError


def video(id="Diving/v_1", path="videos/v_1.avi", frames=3):
    return Video(id, path, "train", 25.0, frames, 40, 30, ())


def dataset(*videos):
    return Annotations("tiny", ("a",), videos or (video(),), "/nowhere")


def write_images(folder, count=3, *, suffix=".jpg", size=(30, 40), seed=0):
    folder.mkdir(parents=True, exist_ok=True)
    random = np.random.default_rng(seed)
    for number in range(1, count + 1):
        image = random.integers(0, 256, (*size, 3), np.uint8)
        cv2.imwrite(str(folder / f"{number:05d}{suffix}"), image)
    return folder


@pytest.mark.parametrize("place", ["Diving/v_1", "videos/v_1", "v_1"])
def test_places(tmp_path, place):
    write_images(tmp_path / place)
    assert flow_folders.find_flow(tmp_path, dataset()) == {"Diving/v_1": tmp_path / place}


def test_a_folder_of_frames_keeps_the_dots_of_its_name(tmp_path):
    write_images(tmp_path / "frames" / "v.2")
    found = flow_folders.find_flow(tmp_path, dataset(video(id="two", path="frames/v.2")))
    assert found == {"two": tmp_path / "frames" / "v.2"}


@pytest.mark.parametrize("id", ["../secret", "a/../../secret", "{outside}"])
def test_no_path_leads_out_of_the_folder(tmp_path, id):
    outside = write_images(tmp_path / "secret")
    (tmp_path / "flow").mkdir()
    id = id.format(outside=outside)
    with pytest.raises(InputError, match="has no folder of flow images"):
        flow_folders.find_flow(tmp_path / "flow", dataset(video(id=id, path=f"{id}.avi")))


def test_missing_folders_and_other_counts_are_named(tmp_path):
    with pytest.raises(InputError, match=r"'Diving/v_1': has no folder of flow.*Diving/v_1, .*v_1"):
        flow_folders.find_flow(tmp_path, dataset())
    folder = write_images(tmp_path / "v_1", 4)
    with pytest.raises(InputError, match=rf"'Diving/v_1': 4 flow images in {folder}, 3 frames"):
        flow_folders.find_flow(tmp_path, dataset())
    (folder / "00002.jpg").unlink()
    with pytest.raises(InputError, match=r"'Diving/v_1': flow: .*between 00001.jpg and 00003.jpg"):
        flow_folders.find_flow(tmp_path, dataset())


def test_different_videos_have_folders_of_their_own(tmp_path):
    write_images(tmp_path / "0001")
    first, same = video("cam1/0001", "a/0001.avi"), video("again/0001", "a/0001.avi")
    assert len(flow_folders.find_flow(tmp_path, dataset(first, same))) == 2
    with pytest.raises(InputError, match=r"0001: is the flow of 'cam1/0001' and of 'cam2/0001'"):
        flow_folders.find_flow(tmp_path, dataset(first, video("cam2/0001", "b/0001.avi")))


def test_names(tmp_path):
    folder = tmp_path / "brox-images"
    with pytest.raises(InputError, match=r"--flow .*brox-images: no such folder"):
        flow_folders.describe_flow(folder)
    folder.mkdir()
    assert flow_folders.describe_flow(f"{folder}{os.sep}") == {
        "method": "brox-images",
        "short_side": 0,
    }
    (folder / "flow.json").write_text(
        json.dumps({"method": "dis", "short_side": 9, "versions": {}})
    )
    assert flow_folders.describe_flow(folder) == {"method": "dis", "short_side": 9}
    for text in (
        "{",
        "[]",
        "{}",
        '{"method": 3}',
        '{"method": ""}',
        '{"method": "dis", "short_side": "1"}',
    ):
        (folder / "flow.json").write_text(text)
        with pytest.raises(
            InputError, match=r"flow\.json: (tells no method|method is|short_side is)"
        ):
            flow_folders.describe_flow(folder)


# --- stores ---------------------------------------------------------------------------------------


def store(path, folder, *, frames=3, short_side=0):
    options = {"name": "v", "num_frames": frames, "short_side": short_side, "jpeg_quality": 95}
    assert frame_store.write_flow_store(path, folder, **options) == frames
    return frame_store.FrameStore(path).frames(0, frames)


def test_jpegs_are_stored_byte_for_byte(tmp_path):
    folder = write_images(tmp_path / "v")
    stored = store(tmp_path / "store", folder)
    assert stored == [path.read_bytes() for path in sorted(folder.iterdir())]
    assert store(tmp_path / "again", folder, short_side=30) == stored


@pytest.mark.parametrize(("suffix", "short_side"), [(".png", 0), (".png", 15), (".jpg", 15)])
def test_others_are_encoded_without_loss_of_colour(tmp_path, suffix, short_side):
    """Neighbouring pixels of other colours but the same luma: subsampling would mix them."""
    folder = tmp_path / "v"
    folder.mkdir()
    scale = 30 // (short_side or 30)
    image = np.zeros((15, 20, 3), np.uint8)
    image[:, ::2], image[:, 1::2] = (128, 60, 200), (128, 131, 60)  # blue, green, red
    image = image.repeat(scale, axis=0).repeat(scale, axis=1) if scale > 1 else image
    quality = [cv2.IMWRITE_JPEG_QUALITY, 100, cv2.IMWRITE_JPEG_SAMPLING_FACTOR]
    quality.append(cv2.IMWRITE_JPEG_SAMPLING_FACTOR_444)
    cv2.imwrite(str(folder / f"1{suffix}"), image, quality)
    (stored,) = store(tmp_path / "store", folder, frames=1, short_side=short_side)
    found = cv2.imdecode(np.frombuffer(stored, np.uint8), cv2.IMREAD_COLOR)
    expected = image[::scale, ::scale]
    assert found.shape == expected.shape
    assert np.abs(found.astype(int) - expected).max() < 12


def grey(folder):
    for path in folder.iterdir():
        cv2.imwrite(str(path), np.zeros((30, 40), np.uint8))


def cut_off(folder):
    path = folder / "00002.jpg"
    path.write_bytes(path.read_bytes()[:300])


def another_size(folder):
    write_images(folder.parent / "other", size=(24, 32))
    (folder.parent / "other" / "00003.jpg").rename(folder / "00003.jpg")


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (grey, r"00001\.jpg: is not an 8-bit colour image"),
        (cut_off, r"00002\.jpg: cannot be decoded"),
        (another_size, r"00003\.jpg: is 32x24 pixels, the frames before it are 40x30"),
        (lambda folder: (folder / "00003.jpg").unlink(), "2 images in .*, 3 frames"),
    ],
)
def test_damaged_images_are_named_and_leave_no_store(tmp_path, damage, message):
    folder = write_images(tmp_path / "v")
    damage(folder)
    with pytest.raises(InputError, match=f"video 'v': flow: .*{message}"):
        store(tmp_path / "store", folder)
    assert not frame_store.is_complete(tmp_path / "store")


def test_the_whole_data_set_is_looked_through(tmp_path):
    write_images(tmp_path / "v_1")
    second = dataclasses.replace(video(), id="other/v_2", path="v_2.avi")
    with pytest.raises(InputError, match="'other/v_2'"):
        flow_folders.find_flow(tmp_path, dataset(video(), second))
