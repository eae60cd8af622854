"""ACT's ground truth: a Python 2 pickle of 1-based frames and corners of either base."""

import copy
import os
import pickle
import pickletools

import numpy as np
import pytest

from step_jax.annotations import Annotations, Tube, Video
from step_jax.annotations.act_pickle import read_act, write_act
from step_jax.errors import InputError

CLAP, WALK, ALONE = "clap/#20_clap", "walk/a_walk", "walk/b_walk"

# What Python 2.7 with numpy 1 writes, as protocol 2: str objects (opcode U), the array's bytes in
# a str, a name of numpy 1's module. {'labels': ['clap'], 'gttubes': {'clap/a': {0: [array([[2, 10,
# 20, 30, 40]], 'float32')]}}, 'nframes': {'clap/a': 5}, 'resolution': {'clap/a': (240, 320)},
# 'train_videos': [['clap/b']], 'test_videos': [['clap/a']]}
PYTHON_2 = (
    b"\x80\x02}(U\x06labels]U\x04clapaU\x07gttubes}U\x06clap/a}K\x00]"
    b"cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85U\x01b\x87R"
    b"(K\x01K\x01K\x05\x86cnumpy\ndtype\nU\x02f4K\x00K\x01\x87R(K\x03U\x01<NNNJ\xff\xff\xff\xff"
    b"J\xff\xff\xff\xffK\x00tb\x89U\x14" + np.array([2, 10, 20, 30, 40], "<f4").tobytes() + b"tbass"
    b"U\x07nframes}U\x06clap/aK\x05sU\nresolution}U\x06clap/aK\xf0M@\x01\x86s"
    b"U\x0ctrain_videos]]U\x06clap/baaU\x0btest_videos]]U\x06clap/aaau."
)


def rows(*frames):
    return np.array([[frame, 10, 20, 30, 40] for frame in frames], np.float32)


@pytest.fixture
def content():
    """Two splits; ALONE has no tube, and a listed video was never annotated."""
    names = (CLAP, WALK, ALONE)
    return {
        "labels": ["clap", "walk"],
        "gttubes": {CLAP: {0: [rows(1, 2), rows(5)]}, WALK: {1: [rows(2, 4)]}},
        "nframes": {name: np.int64(9) for name in names},
        "resolution": dict.fromkeys(names, (240, 320)),
        "train_videos": [[WALK, ALONE, "walk/not_annotated"], [CLAP]],
        "test_videos": [[CLAP], [WALK, ALONE]],
    }


@pytest.fixture
def read(tmp_path):
    def read_pickled(content, **options):
        (tmp_path / "GT.pkl").write_bytes(pickle.dumps(content, 2))
        return read_act(tmp_path / "GT.pkl", **options)

    return read_pickled


def test_a_pickle_of_python_2(tmp_path):
    assert pickle.loads(PYTHON_2, encoding="latin-1")["nframes"] == {"clap/a": 5}
    (tmp_path / "GT.pkl").write_bytes(PYTHON_2)
    annotations = read_act(tmp_path / "GT.pkl")
    assert annotations.classes == ("clap",)
    [video] = annotations.videos
    assert (video.id, video.split, video.num_frames) == ("clap/a", "test", 5)
    assert (video.width, video.height) == (320, 240)
    assert video.tubes == (Tube((0,), [1], [[10, 20, 30, 40]]),)


def test_splits_gaps_and_videos_without_tubes(read, content):
    annotations = read(content)
    splits = {video.id: video.split for video in annotations.videos}
    assert splits == {CLAP: "test", WALK: "train", ALONE: "train"}
    assert annotations.video(ALONE).tubes == ()
    np.testing.assert_array_equal(annotations.video(WALK).tubes[0].frames, [1, 3])
    assert [len(tube.frames) for tube in annotations.video(CLAP).tubes] == [2, 1]
    second = read(content, split=2)
    assert {video.split for video in second.videos if video.id != CLAP} == {"test"}


def test_corners_count_from_0_or_1(read, content):
    [tube] = read(content, corner_base=1).video(WALK).tubes
    np.testing.assert_array_equal(tube.boxes, [[9, 19, 29, 39]] * 2)
    with pytest.raises(InputError, match="corner_base is 2"):
        read(content, corner_base=2)


def edit(content, *path, value):
    for key in path[:-1]:
        content = content[key]
    content[path[-1]] = value


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        (("gttubes",), None, "not as expected in ACT's ground truth"),
        (("gttubes", CLAP), {1: [rows(1)]}, "label 1 is walk, but the video is 'clap/#20_clap'"),
        (("gttubes", CLAP), {2: [rows(1)]}, "label 2 is no class"),
        (("gttubes", CLAP), {0: [rows(1), rows()]}, r"tube 1: has shape \(0,\)"),
        (("gttubes", CLAP), {0: [rows(0)]}, "tube 0 covers frames -1 to -1"),
        (("gttubes", CLAP), {0: [rows(10)]}, "tube 0 covers frames 9 to 9"),
        (("gttubes", CLAP), {0: [rows(1.5)]}, "a frame number that is not whole"),
        (("gttubes", CLAP), {0: [rows(3, 2)]}, "frame 1 follows frame 2"),
        (("nframes", CLAP), 0, "num_frames is 0"),
        (("nframes",), {ALONE: 9}, "'clap/#20_clap' has tubes, but nframes .* .2 such videos"),
        (("resolution",), {}, "KeyError"),
        (("resolution", CLAP), 5, "not as expected"),
        (("test_videos",), [[CLAP, CLAP]], "'clap/#20_clap' occurs twice"),
        (("test_videos",), [[CLAP, WALK]], "'walk/a_walk' is listed for training and for testing"),
        (("test_videos",), [["../x"]], "expected a name like"),
    ],
)
def test_what_is_wrong_is_one_clear_error(read, content, path, value, message):
    edit(content, *path, value=value)
    with pytest.raises(InputError, match=message) as error:
        read(content)
    assert "GT.pkl: " in str(error.value)


def test_other_files_are_refused(read, content):
    with pytest.raises(InputError, match="train_videos has 2 splits; found no split 3"):
        read(content, split=3)
    del content["nframes"]
    with pytest.raises(InputError, match="is not ACT's ground truth; expected a dictionary"):
        read(content)


def test_a_malicious_file_runs_nothing(read, content, tmp_path):
    class Runs:
        def __reduce__(self):
            return os.system, (f"touch {tmp_path / 'trace'}",)

    spoilt = copy.deepcopy(content)
    spoilt["gttubes"][CLAP][0].append(Runs())
    with pytest.raises(InputError, match=r"refused: it asks for posix\.system"):
        read(spoilt)
    content["gttubes"][CLAP][0].append(np.array([Runs()], object))
    with pytest.raises(InputError, match="refused"):
        read(content)
    assert not (tmp_path / "trace").exists()


@pytest.mark.parametrize("corner_base", [0, 1])
def test_what_is_written_is_read_back_and_by_old_programs(tmp_path, corner_base):
    boxes = np.array([[0, 0.5, 30, 239], [1, 2, 319, 7]], np.float32)
    facts = {"fps": 25.0, "num_frames": 300, "width": 320, "height": 240}
    videos = [
        Video(id=name, path=name, split=split, tubes=tubes, **facts)
        for name, split, tubes in (
            (CLAP, "test", [Tube((0,), [256, 258], boxes), Tube((0,), [0, 1], boxes)]),
            (ALONE, "validation", []),
        )
    ]
    annotations = Annotations("jhmdb", ("clap", "walk"), videos, tmp_path)
    write_act(tmp_path / "GT.pkl", annotations, corner_base=corner_base)
    data = (tmp_path / "GT.pkl").read_bytes()
    names = {text for op, text, _ in pickletools.genops(data) if op.name == "GLOBAL"}
    assert {name.split()[0] for name in names} <= {"numpy", "numpy.core.multiarray", "_codecs"}
    again = read_act(tmp_path / "GT.pkl", corner_base=corner_base)
    assert [video.split for video in again.videos] == ["test", "train"]
    for video in again.videos:
        assert video.tubes == annotations.video(video.id).tubes
