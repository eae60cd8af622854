"""The converter writes a native file whose paths lead to the videos, and other formats from it."""

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
    folder = tmp_path / "data" / "videos" / NAME
    folder.mkdir(parents=True)
    for number in range(1, 10):
        (folder / f"{number:05d}.jpg").touch()
    (tmp_path / "else").mkdir()

    def run(output, *options, kind="pyannot", source="pyannot.pkl", split_file=True):
        paths = {"input": source, "videos": "data/videos", "output": output}
        if split_file:
            paths["split_file"] = "testlist01.txt"
        arguments = [f"--{key}={tmp_path / value}" for key, value in paths.items()]
        convert_annotations.main([kind, *arguments, *options])
        return tmp_path / output

    return run


def export(native, kind, output, *options):
    command = ["export", f"--input={native}", f"--format={kind}", f"--output={output}"]
    convert_annotations.main([*command, *options])


def test_paths_inside_the_files_folder_are_relative(convert, tmp_path, capsys):
    annotations = read_native(convert("data/ucf.json"))
    [video] = annotations.videos
    assert video.path == f"videos/{NAME}"
    assert annotations.video_path(video) == tmp_path / "data/videos" / NAME
    np.testing.assert_array_equal(video.tubes[0].boxes, [[100, 51, 300, 191]])
    expected = "test: 1 videos, 9 frames, 1 annotated frames, 1 tubes, 1 boxes"
    assert expected in capsys.readouterr().out


def test_paths_outside_are_absolute_and_the_user_is_told(convert, tmp_path, capsys):
    output = convert("else/ucf.json")
    assert "--allow_absolute_paths" in capsys.readouterr().out
    annotations = read_native(output)
    with pytest.raises(InputError, match="is absolute"):
        annotations.video_path(annotations.videos[0])
    annotations = read_native(output, allow_absolute=True)
    assert annotations.video_path(annotations.videos[0]) == tmp_path / "data/videos" / NAME


def test_options_reach_the_reader(convert):
    with pytest.raises(InputError, match="no split 'train'"):
        convert("data/ucf.json", "--split", "train", "--present_only")
    with pytest.raises(InputError, match="nothing says which videos are for testing"):
        convert("data/ucf.json", split_file=False)


@pytest.mark.parametrize(("kind", "base"), [("act", 0), ("act", 1), ("yowo", 1), ("pyannot", None)])
def test_exported_files_come_back(convert, tmp_path, kind, base):
    native = convert("data/ucf.json")
    options = [] if base is None else [f"--corner_base={base}"]
    export(native, kind, tmp_path / "exported", *options)
    again = convert(
        "data/again.json", *options, kind=kind, source="exported", split_file=kind == "yowo"
    )
    assert read_native(again) == read_native(native)


def test_other_data_sets_facts_can_be_told(convert, tmp_path):
    (tmp_path / "classes.txt").write_text("Basketball\nother\n")
    facts = [f"--classes={tmp_path / 'classes.txt'}", "--fps=30", "--name=hoops"]
    annotations = read_native(convert("data/a.json", *facts, "--frame_size", "640", "480"))
    assert (annotations.name, annotations.classes) == ("hoops", ("Basketball", "other"))
    [video] = annotations.videos
    assert (video.fps, video.width, video.height) == (30, 640, 480)


def test_a_doubtful_corner_base_is_a_warning(convert, tmp_path, capsys):
    border = np.array([[1, 1, 319, 239]] * 3, np.int32)
    tube = {"label": 0, "sf": 0, "ef": 3, "boxes": border}
    record = {"label": 0, "numf": 9, "annotations": [tube]}
    (tmp_path / "pyannot.pkl").write_bytes(pickle.dumps({NAME: record}))
    native = convert("data/ucf.json")
    assert "warning" not in capsys.readouterr().out
    export(native, "act", tmp_path / "GT.pkl", "--corner_base=1")
    convert("data/act.json", kind="act", source="GT.pkl", split_file=False)
    assert "warning: no box begins before pixel 1" in capsys.readouterr().out
    with pytest.raises(InputError, match="pyannot's boxes always count from 1"):
        export(native, "pyannot", tmp_path / "x.pkl", "--corner_base=0")


def test_an_input_is_never_overwritten(convert, tmp_path):
    for name in ("pyannot.pkl", "testlist01.txt"):
        before = (tmp_path / name).read_bytes()
        with pytest.raises(InputError, match="is one of the inputs"):
            convert(name)
        assert (tmp_path / name).read_bytes() == before
    native = convert("data/a.json")
    before = native.read_bytes()
    with pytest.raises(InputError, match="is one of the inputs"):
        export(native, "pyannot", native)
    assert native.read_bytes() == before
