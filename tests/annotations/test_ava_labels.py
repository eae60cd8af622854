"""AVA's label maps and lists."""

import numpy as np
import pytest

from step_jax.annotations.ava_labels import read_label_map
from step_jax.annotations.ava_lists import read_file_names, read_timestamps
from step_jax.errors import InputError

ITEMS = """
# the benchmark's form
item {
  name: "watch (e.g., TV)"
  id: 61
}
item { name: 'carry/hold (an "object")'; id: 17 }
item { id: 12, name: "say \\"stand\\"." }
item { name: "hug" id: 70 }
"""
LABELS = """
label { name: "get up" label_id: 6 label_type: PERSON_MOVEMENT }
label { name: "crawl" label_id: 2 label_type: OBJECT_MANIPULATION }
label { name: "hug" label_id: 70 label_type: PERSON_INTERACTION }
"""


def write(folder, text):
    path = folder / "map.pbtxt"
    path.write_text(text)
    return path


def test_items(tmp_path):
    label_map = read_label_map(write(tmp_path, ITEMS))
    assert label_map.ids == (12, 17, 61, 70)
    names = ('say "stand".', 'carry/hold (an "object")', "watch (e.g., TV)", "hug")
    assert label_map.names == names
    kinds = ("pose", "object interaction", "object interaction", "person interaction")
    assert label_map.kinds == kinds  # by the id, this dialect does not say
    np.testing.assert_array_equal(label_map.classes(np.array([70, 1, 12, 80])), [3, -1, 0, -1])


def test_labels(tmp_path):
    label_map = read_label_map(write(tmp_path, LABELS))
    assert label_map.ids == (2, 6, 70)
    assert label_map.kinds == ("object interaction", "pose", "person interaction")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('\nitem { name: "stand" }', r":2: entry 'stand' has no id"),
        ("item { id: 3 }", ":1: the entry of id 3 has no name"),
        ('item { name: "a" id: 3 }\nitem { name: "b" id: 3 }', ":2: id 3 occurs twice"),
        ('item { name: "a" id: 0 }', ":1: id is 0; expected 1 to 80"),
        ('item { name: "a" id: "x" }', ":1: id is x"),
        ('item { name: "a" id: 3 id: 4 }', ":1: id occurs twice"),
        ('item { name: "a" id: 3', ":1: found 'the end of the file'"),
        ("item {\n name: }", ":2: found '}'; expected a value"),
        ("item { name stand }", ":1: found 'stand'; expected :"),
        ("class { id: 3 }", ":1: found 'class'; expected item or label"),
        ("stand, walk", ":1: found 'stand'"),
        ("\n12 [", ":2: found '12'; expected item or label"),
        ("item { % }", "'% }' is no label map's text"),
        ("", "has no entries"),
        ('label { name: "a" label_id: 3 label_type: POSE }', "label_type is POSE"),
    ],
)
def test_bad_maps_say_which_line(tmp_path, text, message):
    with pytest.raises(InputError, match=message):
        read_label_map(write(tmp_path, text))


def test_file_names(tmp_path):
    path = write(tmp_path, "-b_2.mkv\n_7oW.c.mp4\n\nxyz\n")
    assert read_file_names(path) == {"-b_2": "-b_2.mkv", "_7oW.c": "_7oW.c.mp4", "xyz": "xyz"}
    for text, message in (
        ("a.mkv\na.mp4", ":2: video a occurs twice"),
        ("../a.mkv", ":1: '../a.mkv'; expected a file's name"),
        ("\n", "has no lines"),
    ):
        with pytest.raises(InputError, match=message):
            read_file_names(write(tmp_path, text))


def test_timestamps(tmp_path):
    assert read_timestamps(write(tmp_path, "0902\n0903\r\n1798\n")).tolist() == [902, 903, 1798]
    with pytest.raises(InputError, match=r":2: '902\.5'; expected a second"):
        read_timestamps(write(tmp_path, "0902\n902.5\n"))
