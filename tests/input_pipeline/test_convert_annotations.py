"""The converter writes a native file whose paths lead to the videos."""

import pickle

import numpy as np
import pytest

from input_pipeline import convert_annotations
from step_jax.annotations import read_native
from step_jax.errors import InputError

NAME = "Basketball/v_Basketball_g01_c01"


@pytest.fixture
def convert(tmp_path):
    """Converts one video's pickle; `output` is a path from the temporary folder."""
    tube = {"label": 0, "sf": 2, "ef": 3, "boxes": np.array([[101, 52, 200, 140]], np.uint8)}
    record = {"label": 0, "numf": 9, "annotations": [tube]}
    (tmp_path / "pyannot.pkl").write_bytes(pickle.dumps({NAME: record}))
    (tmp_path / "testlist01.txt").write_text(NAME)
    (tmp_path / "data" / "videos" / NAME).mkdir(parents=True)
    (tmp_path / "else").mkdir()

    def run(output, *options):
        paths = {"input": "pyannot.pkl", "split_file": "testlist01.txt", "videos": "data/videos"}
        arguments = [f"--{key}={tmp_path / value}" for key, value in paths.items()]
        output = tmp_path / output
        convert_annotations.main(["pyannot", *arguments, f"--output={output}", *options])
        return output

    return run


def test_paths_inside_the_files_folder_are_relative(convert, tmp_path, capsys):
    annotations = read_native(convert("data/ucf.json"))
    [video] = annotations.videos
    assert video.path == f"videos/{NAME}"
    assert annotations.video_path(video) == tmp_path / "data/videos" / NAME
    np.testing.assert_array_equal(video.tubes[0].boxes, [[100, 51, 300, 191]])
    assert "test: 1 videos, 1 tubes, 1 boxes" in capsys.readouterr().out


def test_paths_outside_are_absolute_and_the_user_is_told(convert, tmp_path, capsys):
    output = convert("else/ucf.json")
    assert "--allow_absolute_paths" in capsys.readouterr().out
    annotations = read_native(output)
    with pytest.raises(InputError, match="is absolute"):
        annotations.video_path(annotations.videos[0])
    annotations = read_native(output, allow_absolute=True)
    assert annotations.video_path(annotations.videos[0]) == tmp_path / "data/videos" / NAME


def test_options_reach_the_reader(convert):
    with pytest.raises(InputError, match="no video of split 'train'"):
        convert("data/ucf.json", "--split", "train", "--present_only")
