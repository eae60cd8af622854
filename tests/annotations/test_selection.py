import numpy as np
import pytest

from step_jax.annotations import Annotations, Video, select_videos
from step_jax.annotations.selection import matching
from step_jax.errors import InputError

IDS = ("Diving/v_g01_c01", "Diving/v_g02_c01", "Biking/v_g01_c01", "Biking/v_g08_c01")


def dataset():
    splits = ("test", "test", "test", "train")
    videos = [
        Video(id, f"{id}.avi", split, 25.0, 9, 40, 30, ())
        for id, split in zip(IDS, splits, strict=True)
    ]
    return Annotations("some", ("Diving", "Biking"), tuple(videos), "/nowhere")


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [
        ("", [True, True, True, True]),
        ("*", [True, True, True, True]),
        ("Diving/*", [True, True, False, False]),
        ("*_g01_*", [True, False, True, False]),
        ("*_g0[12]_c01", [True, True, True, False]),
        ("Diving/v_g02_c01", [False, True, False, False]),
    ],
)
def test_globs(pattern, expected):
    np.testing.assert_array_equal(matching(IDS, pattern), expected)
    np.testing.assert_array_equal(matching(np.array(IDS), pattern), expected)


def test_videos_of_one_split():
    chosen = select_videos(dataset(), "*_g01_*", split="test")
    assert [video.id for video in chosen.videos] == [IDS[0], IDS[2]]
    assert chosen.classes == dataset().classes
    assert len(select_videos(dataset(), "", split="test").videos) == 3


@pytest.mark.parametrize(("pattern", "split"), [("*_g08_*", "test"), ("diving/*", "test")])
def test_none_is_an_error(pattern, split):
    with pytest.raises(InputError, match=r"no video matches .*; ids are such as 'Diving/v_g01"):
        select_videos(dataset(), pattern, split=split)


def test_an_unknown_split_is_named():
    with pytest.raises(InputError, match="no split 'val'"):
        select_videos(dataset(), "", split="val")
