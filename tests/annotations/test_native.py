"""The native format: what is written is read back to the bit, and nothing odd is read at all."""

import copy
import json
import os
import pathlib

import numpy as np
import pytest

from step_jax.annotations import Annotations, Tube, Video, read_native, write_native
from step_jax.annotations.native import find_problems
from step_jax.errors import InputError

TUBE = {"classes": ["walk"], "start": 3, "boxes": [[1, 2, 3, 4], None, [1.5, 2, 3, 4]]}
VIDEO = {
    "id": "v0",
    "path": "videos/v0.webm",
    "split": "train",
    "fps": 25.0,
    "num_frames": 8,
    "width": 64,
    "height": 48,
    "tubes": [TUBE],
}
FILE = {
    "format": "step_jax.annotations",
    "version": 1,
    "name": "small",
    "frame_index_base": 0,
    "classes": ["walk", "run fast"],
    "videos": [VIDEO],
}


@pytest.fixture
def read(tmp_path):
    """Reads a file that is FILE after `change` has been applied to a copy of it."""

    def read_changed(change=lambda file, video, tube: None, **arguments):
        file = copy.deepcopy(FILE)
        change(file, file["videos"][0], file["videos"][0]["tubes"][0])
        (tmp_path / "a.json").write_text(json.dumps(file))
        return read_native(tmp_path / "a.json", **arguments)

    return read_changed


def test_reads_the_example(read, tmp_path):
    data = read()
    assert (data.name, data.classes, data.root) == ("small", ("walk", "run fast"), tmp_path)
    [video] = data.videos
    assert (video.id, video.split, video.fps) == ("v0", "train", 25.0)
    assert (video.num_frames, video.width, video.height) == (8, 64, 48)
    [tube] = video.tubes
    assert tube == Tube((0,), np.array([3, 5]), [[1, 2, 3, 4], [1.5, 2, 3, 4]])
    assert data.video_path(video) == tmp_path / "videos/v0.webm"


def test_frame_index_base_says_what_start_counts_from(read):
    data = read(lambda file, video, tube: file.update(frame_index_base=1))
    np.testing.assert_array_equal(data.videos[0].tubes[0].frames, [2, 4])


def set_box(box):
    return lambda file, video, tube: tube["boxes"].__setitem__(2, box)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda f, v, t: f.update(format="coco"), "not a native annotation file: its 'format'"),
        (lambda f, v, t: f.update(version=2), "version 2 of the format; this reader knows 1"),
        (lambda f, v, t: f.update(frame_index_base=2), "frame_index_base is 2; expected 0 or 1"),
        (lambda f, v, t: f.pop("classes"), "the key 'classes' is missing"),
        (lambda f, v, t: f.update(clases=[]), "unknown key 'clases'; did you mean 'classes'"),
        (lambda f, v, t: f.update(classes=["walk", 3]), "class 1 is 3; expected a text"),
        (lambda f, v, t: f.update(classes=["walk"] * 2), "class 'walk' occurs twice"),
        (lambda f, v, t: f["videos"].append(5), r"videos\[1\]: found 5; expected an object"),
        (lambda f, v, t: f["videos"].append(v), r"videos\[1\]: video id 'v0' occurs twice"),
        (lambda f, v, t: v.update(num_frame=3), "video 'v0': unknown key 'num_frame'; did you"),
        (lambda f, v, t: v.update(width=64.0), "'width' is 64.0; expected a whole number"),
        (lambda f, v, t: v.update(width=True), "'width' is true; expected a whole number"),
        (lambda f, v, t: v.update(fps="25"), "'fps' is \"25\"; expected a number"),
        (lambda f, v, t: v.update(fps=float("nan")), "video 'v0': fps is nan"),
        (lambda f, v, t: v.update(path="../v0.webm"), "video 'v0': path '../v0.webm' leaves"),
        (lambda f, v, t: v.update(path="a/../../b"), "leaves the annotation file's folder"),
        (lambda f, v, t: t.update(classes=["wlak"]), "tube 0: unknown class 'wlak'; did you mean"),
        (lambda f, v, t: t.update(classes=[]), "one or more different classes"),
        (lambda f, v, t: t.update(start=-1), "tube 0: start is -1, before"),
        (lambda f, v, t: t.update(start=6), "start 6 and 3 boxes reach beyond the video's 8"),
        (lambda f, v, t: t.update(boxes=[None, None]), "tube 0: the tube has no box at all"),
        (lambda f, v, t: t.update(scores=[1]), "tube 0: unknown key 'scores'"),
        (set_box([1, 2, 3]), r"frame 5 has the box \[1, 2, 3\]; expected four numbers"),
        (set_box([1, 2, 3, "4"]), "frame 5 has the box"),
        (set_box([1, 2, 3, True]), "frame 5 has the box"),
        (set_box([1, 2, float("nan"), 4]), "frame 5 has a box that is not finite"),
        (set_box([1, 2, 1e39, 4]), "frame 5 has a box that is not finite"),
        (set_box([1, 2, 10**400, 4]), "too large for floating point"),
        (set_box([3, 2, 1, 4]), "frame 5 has an empty or inverted box"),
    ],
)
def test_refuses_and_says_where(read, change, message):
    with pytest.raises(InputError, match=message) as error:
        read(change)
    assert "a.json" in str(error.value)
    assert "\n" not in str(error.value)


def test_one_based_error_names_the_frame_as_the_file_counts(read):
    def change(file, video, tube):
        file["frame_index_base"] = 1
        tube["boxes"][2] = [1, 2]

    with pytest.raises(InputError, match="frame 5 has the box"):
        read(change)


def test_a_tube_may_end_with_the_video_but_not_one_frame_later(read):
    data = read(lambda file, video, tube: tube.update(start=5))
    assert data.videos[0].tubes[0].frames[-1] == 7
    with pytest.raises(InputError, match="frame_index_base"):  # the usual reason
        read(lambda file, video, tube: tube.update(start=6))


def test_absolute_paths_only_if_allowed(read):
    def change(file, video, tube):
        video["path"] = "/data/v0.webm"

    data = read(change)
    with pytest.raises(InputError, match=r"video 'v0': path '/data/v0\.webm' is absolute"):
        data.video_path(data.videos[0])
    data = read(change, allow_absolute=True)
    assert str(data.video_path(data.videos[0])) == "/data/v0.webm"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"{", "not valid JSON"),
        (b"[]", "not a native annotation file"),
        (b"\xff\xfe\x00", "not a text file in UTF-8"),
        (b"[" * 100_000, "not valid JSON"),
        (b'{"format": "step_jax.annotations", "format": 1}', "key 'format' occurs twice"),
    ],
)
def test_refuses_what_is_not_such_a_file(tmp_path, content, message):
    (tmp_path / "a.json").write_bytes(content)
    with pytest.raises(InputError, match=message):
        read_native(tmp_path / "a.json")


def test_a_missing_file_is_an_input_error(tmp_path):
    with pytest.raises(InputError, match=r"none\.json: cannot be read: No such file"):
        read_native(tmp_path / "none.json")


def test_find_problems_lists_all_of_them_and_keeps_the_rest(tmp_path):
    file = copy.deepcopy(FILE)
    bad_tube, bad_class = TUBE | {"start": 99}, TUBE | {"classes": ["fly"]}
    file["videos"] = [
        VIDEO | {"tubes": [bad_tube, TUBE, bad_class]},
        VIDEO | {"id": "v1", "fps": -1},
        VIDEO | {"id": "v2"},
    ]
    (tmp_path / "a.json").write_text(json.dumps(file))
    data, problems = find_problems(tmp_path / "a.json")
    assert [(video.id, len(video.tubes)) for video in data.videos] == [("v0", 1), ("v2", 1)]
    assert len(problems) == 3
    for problem, part in zip(problems, ["tube 0: start", "class 'fly'", "fps is -1"], strict=True):
        assert part in problem


def test_find_problems_of_a_hopeless_file(tmp_path):
    (tmp_path / "a.json").write_text("{}")
    data, [problem] = find_problems(tmp_path / "a.json")
    assert data is None
    assert "not a native annotation file" in problem


def random_annotations(root):
    rng = np.random.default_rng(0)
    tubes = []
    for scale in (1e-30, 1e-3, 1.0, 1e3, 1e30):
        frames = np.sort(rng.choice(200, 50, replace=False))
        corners = rng.normal(size=(50, 2)) * scale
        boxes = np.concatenate([corners, corners + scale * rng.uniform(0.1, 3, (50, 2))], axis=1)
        tubes.append(Tube((1, 0), frames, boxes))
    facts = {"path": "p.avi", "fps": 29.97, "num_frames": 200, "width": 320, "height": 240}
    videos = [
        Video(id='Zürich "1"', split="train", tubes=tubes, **facts),
        Video(id="b", split="test", tubes=(), **facts),
    ]
    return Annotations("réel", ("laufen", "走る"), videos, root)


def test_written_annotations_are_read_back_to_the_bit(tmp_path):
    data = random_annotations(tmp_path)
    write_native(tmp_path / "a.json", data)
    assert read_native(tmp_path / "a.json") == data
    assert os.listdir(tmp_path) == ["a.json"]


def test_any_float32_survives_the_text(tmp_path):
    bits = np.random.default_rng(0).integers(0, 2**32, 40_000, dtype=np.uint32)
    numbers = bits.view(np.float32)
    low, high = np.sort(numbers[np.isfinite(numbers)][:30_000].reshape(2, -1), axis=0)
    boxes = np.stack([low, low, high, high], axis=1)[low < high]
    tube = Tube((0,), np.arange(len(boxes)), boxes)
    video = Video("v", "p", "train", 25.0, len(boxes), 320, 240, [tube])
    write_native(tmp_path / "a.json", Annotations("set", ["walk"], [video], tmp_path))
    [again] = read_native(tmp_path / "a.json").videos[0].tubes
    assert again.boxes.tobytes() == boxes.tobytes()


def test_a_failed_write_leaves_the_old_file(tmp_path, monkeypatch):
    data = random_annotations(tmp_path)
    write_native(tmp_path / "a.json", data)
    before = (tmp_path / "a.json").read_bytes()
    monkeypatch.setattr(json, "dumps", lambda *a, **k: (_ for _ in ()).throw(OSError("disk full")))
    with pytest.raises(OSError, match="disk full"):
        write_native(tmp_path / "a.json", data)
    assert (tmp_path / "a.json").read_bytes() == before
    assert os.listdir(tmp_path) == ["a.json"]


def test_writing_into_a_missing_folder_is_an_input_error(tmp_path):
    with pytest.raises(InputError, match="cannot be written"):
        write_native(tmp_path / "none" / "a.json", random_annotations(tmp_path))


def test_the_documented_example_is_a_valid_file(tmp_path):
    text = (pathlib.Path(__file__).parents[2] / "docs" / "annotations.md").read_text()
    (tmp_path / "a.json").write_text(text.split("```json\n")[1].split("```")[0])
    data = read_native(tmp_path / "a.json")
    assert data.splits == ("train", "test")
    np.testing.assert_array_equal(data.video("park_01").tubes[0].frames, [10, 12])
