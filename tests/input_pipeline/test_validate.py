"""The validator finds what is wrong with a data set, each thing once, and shows the rest."""

import json
import os
import re

import cv2
import numpy as np
import pytest

from input_pipeline import validate
from step_jax.errors import InputError
from step_jax.video import VideoWriter

FRAMES, WIDTH, HEIGHT = 6, 64, 48


def write_video(path, frames=FRAMES, width=WIDTH):
    with VideoWriter(path, fps=25, width=width, height=HEIGHT) as writer:
        for _ in range(frames):
            writer.write(np.full((HEIGHT, width, 3), 90, np.uint8))


def tube(start=0, boxes=3, box=(8, 8, 40, 40), classes=("walk",)):
    return {"classes": list(classes), "start": start, "boxes": [list(box)] * boxes}


@pytest.fixture
def validated(tmp_path, capfd):
    """Writes two videos and their annotations, lets `change` spoil them, returns status, lines."""

    def run(change=lambda file, a, b: None, *options):
        for name in "ab":
            write_video(tmp_path / f"{name}.avi")
        facts = {"fps": 25, "num_frames": FRAMES, "width": WIDTH, "height": HEIGHT}
        a = {"id": "a", "path": "a.avi", "split": "train", **facts, "tubes": [tube(), tube(3)]}
        b = {"id": "b", "path": "b.avi", "split": "train", **facts, "tubes": []}
        b["tubes"] = [tube(classes=["run", "walk"])]
        file = {"format": "step_jax.annotations", "version": 1, "name": "small"}
        file |= {"frame_index_base": 0, "classes": ["walk", "run"], "videos": [a, b]}
        change(file, a, b)
        (tmp_path / "a.json").write_text(json.dumps(file))
        status = validate.main([str(tmp_path / "a.json"), *options])
        output = capfd.readouterr()
        assert output.err == ""  # neither a progress bar off the terminal, nor FFmpeg
        return status, output.out.splitlines()

    return run


def problems(lines):
    return [line for line in lines if line.startswith(("error: ", "warning: "))]


def test_a_sound_data_set_has_no_problem_and_is_counted(validated):
    status, lines = validated()
    assert status == 0
    assert problems(lines) == []
    table = [line.split() for line in lines]
    assert ["train", "2", "12", "3", "9"] in table  # videos, frames, tubes, boxes
    assert ["walk", "2", "12", "3", "9"] in table
    assert ["run", "1", "6", "1", "3"] in table
    assert lines[-1].endswith("errors: 0, warnings: 0")


def set_path(name):
    return lambda file, a, b: a.update(path=name)


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (set_path("none.avi"), "error: video 'a': .*none.avi: no such file"),
        (set_path("/none.avi"), "error: video 'a': path '/none.avi' is absolute"),
        (set_path("a.json"), "error: video 'a': .*a.json: is a text file"),
        (lambda f, a, b: a.update(num_frames=9), "error: video 'a': .* has 6 frames when decoded"),
        (lambda f, a, b: a.update(width=48), "warning: video 'a': .* is 64x48, .* 48x48"),
        (lambda f, a, b: a.update(path="b.avi"), r"warning: .*b.avi .*'a' \(train\), 'b' \(train"),
        (
            lambda f, a, b: a["tubes"].append(tube(box=(9, 9, 65, 48))),
            r"warning: video 'a': tube 2: 3 of 3 boxes .* by up to 1 px; do they count .* from 1",
        ),
        (
            lambda f, a, b: a["tubes"].append(tube(1, box=(-9, 9, 30, 48))),
            r"warning: video 'a': tube 2: 3 of 3 boxes \(first: frame 1\) reach out .* 9 px$",
        ),
        (
            lambda f, a, b: a["tubes"].append(tube(box=(64, 9, 70, 48))),
            "error: video 'a': tube 2: 3 of 3 boxes .* lie outside the 64x48 image altogether",
        ),
        (lambda f, a, b: f["classes"].append("fly"), "warning: split 'train': 1 of 3 .*: fly"),
        (lambda f, a, b: a["tubes"].append(tube(4)), "error: .*video 'a': tube 2: start 4 .*base"),
        (lambda f, a, b: a["tubes"].append(tube(classes="x")), "error: .*unknown class 'x'"),
        (
            lambda f, a, b: [v["tubes"].__setitem__(slice(0, 9), [tube(1)] * 3) for v in (a, b)],
            "warning: no tube starts at a video's first frame and 6 start at the second",
        ),
    ],
)
def test_each_fault_is_one_line(validated, change, expected):
    status, lines = validated(change)
    found = [line for line in problems(lines) if "have no tube: run" not in line]
    assert len(found) == 1
    assert re.search(expected, found[0])
    assert status == expected.startswith("error")


def test_a_cut_video_is_an_error(validated, tmp_path):
    def cut(file, a, b):
        os.truncate(tmp_path / "a.avi", os.path.getsize(tmp_path / "a.avi") // 2)

    status, lines = validated(cut)
    assert status == 1
    assert any("a.avi: is truncated" in line for line in problems(lines))


def test_all_faults_are_listed_together(validated):
    def spoil(file, a, b):
        a["tubes"] += [tube(99), tube(classes=["fly"])]
        b["path"] = "none.avi"

    status, lines = validated(spoil)
    assert status == 1
    assert len(problems(lines)) == 3
    assert lines[-1].endswith("errors: 3, warnings: 0")


def test_videos_can_be_left_alone(validated):
    status, lines = validated(set_path("none.avi"), "--no_videos")
    assert (status, problems(lines)) == (0, [])


def test_a_file_that_cannot_be_understood_is_one_error(validated):
    status, lines = validated(lambda file, a, b: file.update(version=7))
    assert status == 1
    assert len(lines) == 2


def test_the_contact_sheet_shows_the_boxes(validated, tmp_path):
    sheet = tmp_path / "sheet.png"
    status, lines = validated(lambda f, a, b: None, "--contact_sheet", str(sheet))
    assert status == 0
    assert any("sheet.png: 4 tubes of 2 classes" in line for line in lines)
    image = cv2.cvtColor(cv2.imread(str(sheet)), cv2.COLOR_BGR2RGB).astype(int)
    is_red = (image[..., 0] > 200) & (image[..., 1] < 90) & (image[..., 2] < 90)
    thumbnails = image[44:176, 8:536]  # the first strip, below its caption: three of 176 x 132
    assert thumbnails.shape == (132, 528, 3)
    # Box 8 8 40 40 of a 64x48 frame at 176x132, three times.
    for left in (0, 176, 352):
        rows, columns = np.nonzero(is_red[44:176, 8 + left : 184 + left])
        edges = [columns.min(), rows.min(), columns.max(), rows.max()]
        np.testing.assert_allclose(edges, [22, 22, 110, 110], atol=2)


def test_the_contact_sheet_is_one_page_however_many_classes(validated, tmp_path):
    def many(file, a, b):
        file["classes"] = [f"class {number}" for number in range(60)]
        a["tubes"] = [tube(boxes=1, classes=[name]) for name in file["classes"]]
        b["tubes"] = a["tubes"]

    _, lines = validated(many, "--contact_sheet", str(tmp_path / "sheet.png"))
    assert any("48 tubes of 48 classes (of 60)" in line for line in lines)
    height, width = cv2.imread(str(tmp_path / "sheet.png")).shape[:2]
    assert max(height, width) < 3000


def test_the_contact_sheet_needs_videos(validated, tmp_path):
    def lose(file, a, b):
        a["path"] = b["path"] = "none.avi"

    options = ["--contact_sheet", str(tmp_path / "sheet.png")]
    with pytest.raises(InputError, match="leave out --no_videos"):
        validated(lose, *options, "--no_videos")
    with pytest.raises(InputError, match="no tube's video can be read"):
        validated(lose, *options)
    assert not (tmp_path / "sheet.png").exists()


def test_corners_that_all_count_from_1_are_a_warning(validated):
    def shift(file, a, b):
        a["tubes"] = [tube(box=(1, 1, WIDTH, HEIGHT))]
        b["tubes"] = [tube(box=(5, 5, 9, 9), classes=["run"])]

    status, lines = validated(shift, "--no_videos")
    assert status == 0
    [problem] = problems(lines)
    assert "the corners seem to count from 1" in problem
