"""MATLAB files against SciPy's writer, and damaged ones, which give an error and nothing worse."""

import contextlib
import random
import struct

import numpy as np
import pytest
import scipy.io
import scipy.sparse

from step_jax.annotations.mat_file import read_mat_variable
from step_jax.errors import InputError


def structs(*rows, **fields):
    """A 1 x n struct array; each field a list of n values."""
    array = np.zeros((1, len(next(iter(fields.values())))), [(name, object) for name in fields])
    for name, values in fields.items():
        for index, value in enumerate(values):
            array[name][0, index] = value
    return array


@pytest.fixture
def save(tmp_path):
    def save_as(value, name="annot", **options):
        scipy.io.savemat(tmp_path / "a.mat", {"before": [1.0], name: value}, **options)
        return tmp_path / "a.mat"

    return save_as


@pytest.mark.parametrize("compressed", [False, True])
@pytest.mark.parametrize("dtype", ["u1", "i1", "u2", "i2", "u4", "i4", "i8", "f4", "f8"])
def test_numbers_of_any_type_in_their_shape(save, dtype, compressed):
    array = np.arange(6, dtype=dtype).reshape(2, 3)
    found = read_mat_variable(save(array, do_compression=compressed), "annot")
    np.testing.assert_array_equal(found, array)
    assert found.dtype == (np.float64 if dtype[0] == "f" else np.int64)


def test_structs_within_structs(save):
    inner = [structs(x=[1, 2], text=["a", "longer é text"]), np.zeros((0, 0))]
    path = save(structs(number=[np.uint8(200), 3.5], inner=inner), do_compression=True)
    first, second = read_mat_variable(path, "annot")
    assert first["number"] == 200
    assert [row["text"] for row in first["inner"]] == ["a", "longer é text"]
    assert first["inner"][1]["x"] == 2
    assert second["number"] == 3.5
    assert second["inner"].shape == (0, 0)


def test_a_file_of_a_big_endian_machine(tmp_path):
    def element(kind, data):
        return struct.pack(">II", kind, len(data)) + data + b"\0" * (-len(data) % 8)

    array = element(6, struct.pack(">II", 11, 0)) + element(5, struct.pack(">ii", 1, 2))
    array += struct.pack(">HH4s", 1, 1, b"x") + element(4, struct.pack(">HH", 7, 300))
    header = b"text".ljust(124) + struct.pack(">H", 0x0100) + b"MI"
    (tmp_path / "a.mat").write_bytes(header + element(14, array))
    np.testing.assert_array_equal(read_mat_variable(tmp_path / "a.mat", "x"), [[7, 300]])


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (np.array([[1j]]), "holds a complex number"),
        (np.array([["text", 1]], object), "holds a cell array"),
        (scipy.sparse.csc_array(np.eye(3)), "holds a sparse matrix"),
        (np.array(["ab", "cd"]), "holds several lines of text"),
    ],
)
def test_other_values_are_refused(save, value, message):
    with pytest.raises(InputError, match=rf"a\.mat: {message}; expected"):
        read_mat_variable(save(value), "annot")


def test_other_files_and_variables_are_input_errors(save, tmp_path):
    path = save([1.0])
    with pytest.raises(InputError, match="has no variable 'other'"):
        read_mat_variable(path, "other")
    with pytest.raises(InputError, match="cannot be read: No such file"):
        read_mat_variable(tmp_path / "none.mat", "annot")
    path.write_bytes(b"MATLAB 7.3 MAT-file, Platform: GLNXA64".ljust(600))
    with pytest.raises(InputError, match="save it again with save"):
        read_mat_variable(path, "annot")


def test_a_small_file_cannot_ask_for_much_memory(save, monkeypatch):
    monkeypatch.setattr("step_jax.annotations.mat_file._MAX_BYTES", 1 << 16)
    path = save(np.zeros((300, 300)), do_compression=True)
    assert path.stat().st_size < 2000
    with pytest.raises(InputError, match="damaged one: a variable of more than"):
        read_mat_variable(path, "annot")


@pytest.mark.parametrize("compressed", [False, True])
def test_a_damaged_file_is_an_input_error_or_other_data(save, compressed):
    value = structs(a=[np.uint8([[1, 2]]), 7.5], b=["text", structs(c=[1])])
    path = save(value, do_compression=compressed)
    good, chance = path.read_bytes(), random.Random(0)
    errors = 0
    for _ in range(150):
        data = bytearray(good)
        for _ in range(chance.randint(1, 3)):
            data[chance.randrange(124, len(data))] = chance.randrange(256)
        path.write_bytes(data[: chance.choice([None, chance.randrange(len(data))])])
        with contextlib.suppress(InputError):
            read_mat_variable(path, "annot")
            errors -= 1
        errors += 1
    assert errors > 75
