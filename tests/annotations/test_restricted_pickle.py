"""A pickle from someone else gives data or an error, and never runs anything."""

import os
import pickle
import pickletools

import numpy as np
import pytest

from step_jax.annotations.restricted_pickle import load_restricted
from step_jax.errors import InputError


@pytest.fixture
def load(tmp_path):
    def load_bytes(data: bytes):
        (tmp_path / "data.pkl").write_bytes(data)
        return load_restricted(tmp_path / "data.pkl")

    return load_bytes


@pytest.mark.parametrize("protocol", [0, 1, 2, 3, 4])
def test_containers_numbers_text_and_plain_arrays_come_back(load, protocol):
    arrays = {
        "u1": np.array([[1, 255]], np.uint8),
        "big": np.arange(6, dtype=">u2").reshape(2, 3),
        "f8": np.asfortranarray(np.arange(6.0).reshape(2, 3)),
        "text": np.array(["walk", "run"]),
        "none": np.zeros((0, 4), np.int64),
    }
    data = load(pickle.dumps([arrays, {1, 2}, frozenset("a"), (None, True, 1.5)], protocol))
    assert data[1:] == [{1, 2}, frozenset("a"), (None, True, 1.5)]
    for name, array in arrays.items():
        np.testing.assert_array_equal(np.asarray(data[0][name]), array)
        assert np.asarray(data[0][name]).dtype == array.dtype.newbyteorder("=")


def test_numpy_scalars_become_python_values(load):
    data = load(pickle.dumps({np.str_("name"): [np.uint8(200), np.float32(0.5)]}, 2))
    assert data == {"name": [200, 0.5]}
    assert type(data["name"][0]) is int


def test_a_pickle_of_python_2_is_read_as_latin_1(load):
    # What Python 2.7 with numpy 1 writes for {'caf\xe9': numpy.array([[5, 200]], 'uint8')}.
    data = load(
        b"\x80\x02}q\x00U\x04caf\xe9q\x01cnumpy.core.multiarray\n_reconstruct\nq\x02cnumpy\n"
        b"ndarray\nq\x03K\x00\x85q\x04U\x01bq\x05\x87q\x06Rq\x07(K\x01K\x01K\x02\x86q\x08cnumpy\n"
        b"dtype\nq\tU\x02u1q\nK\x00K\x01\x87q\x0bRq\x0c(K\x03U\x01|q\rNNNJ\xff\xff\xff\xffJ\xff\xff"
        b"\xff\xffK\x00tq\x0eb\x89U\x02\x05\xc8q\x0ftq\x10bs."
    )
    assert list(data) == ["caf\xe9"]
    np.testing.assert_array_equal(np.asarray(data["caf\xe9"]), [[5, 200]])


class Runs:
    """Pickled, this is a call of `function`."""

    def __init__(self, function, *arguments):
        self.call = function, arguments

    def __reduce__(self):
        return self.call


@pytest.mark.parametrize("protocol", [0, 2, 4])
def test_a_pickle_cannot_run_a_command(load, tmp_path, protocol):
    trace = tmp_path / "trace"
    attack = pickle.dumps(Runs(os.system, f"touch {trace}"), protocol)
    with pytest.raises(InputError, match=r"refused: it asks for posix\.system"):
        load(attack)
    assert not trace.exists()
    pickle.loads(attack)  # the attack is a real one
    assert trace.exists()


@pytest.mark.parametrize(
    "function", [eval, exec, getattr, __import__, np.load, np.frombuffer, bytearray, os.getcwd]
)
def test_no_other_name_is_admitted(load, function):
    with pytest.raises(InputError, match="refused: it asks for"):
        load(pickle.dumps(Runs(function, "1"), 2))


@pytest.mark.parametrize(
    "array",
    [
        np.array([Runs(os.getcwd)], object),
        np.array([None, 1], object),
        np.zeros(2, [("a", "u1"), ("b", "O")]),
        np.zeros(2, [("a", "u1")]),
        np.array(["2020-01-01"], "datetime64[D]"),
    ],
)
def test_object_and_structured_arrays_are_refused(load, array):
    with pytest.raises(InputError, match="refused"):
        load(pickle.dumps(array, 2))


@pytest.mark.parametrize("name", [b"ndarray", b"dtype"])
def test_what_a_pickle_names_cannot_be_changed(load, name):
    build = b"\x80\x02cnumpy\n" + name + b"\n}(U\x01xK\x01ub."  # BUILD with {'x': 1}
    assert "BUILD" in [op.name for op, _, _ in pickletools.genops(build)]
    with pytest.raises(InputError, match="refused: it tries to change"):
        load(build)


def test_a_pickle_cannot_ask_for_memory(load):
    with pytest.raises(InputError, match="damaged"):
        load(pickle.dumps(Runs(bytes, 10**15), 2))


def test_array_with_fewer_bytes_than_its_shape_is_an_error(load):
    good = pickle.dumps(np.arange(8, dtype=np.uint8), 4)
    short = good.replace(b"K\x08\x85", b"K\x63\x85")  # shape (8,) -> (99,)
    assert short != good
    with pytest.raises(InputError, match="damaged"):
        load(short)


@pytest.mark.parametrize("data", [b"", b"no pickle", pickle.dumps(list(range(99)))[:50]])
def test_a_damaged_file_is_an_input_error(load, data):
    with pytest.raises(InputError, match="not a pickle, or a damaged one"):
        load(data)
