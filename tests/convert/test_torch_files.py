"""PyTorch's files: both containers, and those that are not what they should be.

`make test-convert` installs PyTorch and runs these.
"""

import argparse
import collections
import os
import pickle
import re
import subprocess

import numpy as np
import pytest

from step_jax.convert.state_dict import read_state_dict
from step_jax.convert.torch_files import read_torch, write_torch
from step_jax.errors import InputError

torch = pytest.importorskip("torch")

CONTAINERS = [pytest.param(False, id="2019"), pytest.param(True, id="zip")]


def save(value, path, *, new):
    torch.save(value, path, _use_new_zipfile_serialization=new)
    return path


def small():
    state = collections.OrderedDict(
        weight=torch.arange(6.0).reshape(2, 3).T, counter=torch.tensor(7)
    )
    state._metadata = collections.OrderedDict({"": {"version": 1}})  # as of nn.Module.state_dict
    adam = {"step": 3, "exp_avg": torch.ones(2)}
    return {
        "base_net": state,
        "optimizer": {"state": {0: adam}, "param_groups": [{"params": [0]}]},
        "cfg": argparse.Namespace(image_size=(400, 400), chunks={1: 1}),
    }


@pytest.mark.parametrize("new", CONTAINERS)
def test_both_containers(tmp_path, new):
    found = read_torch(save(small(), tmp_path / "a.pth", new=new))
    np.testing.assert_array_equal(found["base_net"]["weight"], np.arange(6.0).reshape(2, 3).T)
    assert found["base_net"]["weight"].dtype == np.float32
    assert found["base_net"]["counter"].shape == ()
    assert found["base_net"]["counter"].dtype == np.int64
    assert found["cfg"] == argparse.Namespace(image_size=(400, 400), chunks={1: 1})


@pytest.mark.parametrize("new", CONTAINERS)
def test_tensors_of_a_gpu(tmp_path, new, monkeypatch):
    """As the public files have them, without a GPU on either side."""
    monkeypatch.setattr(torch.serialization, "location_tag", lambda storage: "cuda:0")
    path = save(small(), tmp_path / "a.pth", new=new)
    monkeypatch.undo()
    assert b"cuda:0" in path.read_bytes()
    assert read_torch(path)["base_net"]["weight"].sum() == 15


@pytest.mark.parametrize("new", CONTAINERS)
def test_numbers_of_numpy(tmp_path, new):
    """A mean computed by numpy; read by stand-ins that know plain numbers only."""
    value = {"mean": np.float64(0.25), "count": np.int32(-3), "cfg": argparse.Namespace(a=1)}
    found = read_torch(save(value, tmp_path / "a.pth", new=new))
    assert found == {"mean": 0.25, "count": -3, "cfg": argparse.Namespace(a=1)}
    assert type(found["mean"]) is float


def test_half_precision_becomes_float32(tmp_path):
    path = save(
        {"a": torch.ones(2).half(), "b": torch.ones(2).bfloat16()}, tmp_path / "a", new=True
    )
    assert all(array.dtype == np.float32 for array in read_state_dict(path).values())


def test_a_wrapped_state_dict_of_a_parallel_model(tmp_path):
    path = save({"state_dict": {"module.conv.weight": torch.ones(2)}}, tmp_path / "a", new=True)
    assert list(read_state_dict(path)) == ["conv.weight"]


@pytest.mark.parametrize(
    "value", [5, [torch.ones(2)], {}, {"a": "text"}, {"a": torch.ones(2).to_sparse()}]
)
def test_not_a_state_dict(tmp_path, value):
    with pytest.raises(InputError, match="expected a state dict"):
        read_state_dict(save(value, tmp_path / "a.pth", new=True))


def test_written_files_are_read_with_the_same_care(tmp_path):
    nets = {"base_net": {"weight": np.arange(3, dtype=np.float32), "n": np.array(7)}}
    write_torch(tmp_path / "a.pth", {**nets, "cfg": argparse.Namespace(a=1), "epochs": 3})
    assert [path.name for path in tmp_path.iterdir()] == ["a.pth"]
    with torch.serialization.safe_globals([argparse.Namespace]):
        found = torch.load(tmp_path / "a.pth", weights_only=True)
    assert found["base_net"]["weight"].tolist() == [0, 1, 2]
    assert found["base_net"]["n"].dtype == torch.int64
    assert (found["cfg"].a, found["epochs"]) == (1, 3)


def test_a_place_that_cannot_be_written(tmp_path):
    with pytest.raises(InputError, match=r"gone/a.pth: cannot be written"):
        write_torch(tmp_path / "gone" / "a.pth", {})


# --- files that run something ---------------------------------------------------------------------


class RunsOnLoading:
    """What pickle rebuilds by calling `function(*arguments)`."""

    def __init__(self, function, *arguments):
        self.call = function, arguments

    def __reduce__(self):
        return self.call


def programs(trace):
    """Ways to run something that leaves the file `trace`, by what they ask for."""
    return {
        "posix.system": RunsOnLoading(os.system, f"touch {trace}"),
        "eval": RunsOnLoading(eval, f"open({str(trace)!r}, 'w')"),
        "subprocess.call|commands.call": RunsOnLoading(subprocess.call, ["touch", str(trace)]),
    }


@pytest.mark.parametrize("number", range(3))
@pytest.mark.parametrize("new", CONTAINERS)
def test_nothing_runs(tmp_path, new, number):
    trace = tmp_path / "trace"
    asked, program = list(programs(trace).items())[number]
    value = {**small(), "val_mAP": program}
    path = save(value, tmp_path / "a.pth", new=new)
    with pytest.raises(InputError, match=f"a.pth: refused: it asks for ({asked}),") as error:
        read_torch(path)
    assert "\n" not in str(error.value)
    assert not trace.exists()


@pytest.mark.parametrize("protocol", range(5))
def test_nothing_runs_of_a_bare_pickle(tmp_path, protocol):
    trace = tmp_path / "trace"
    value = RunsOnLoading(os.system, f"touch {trace}")
    pickle.loads(pickle.dumps(value, protocol))  # it would
    assert trace.exists()
    trace.unlink()
    (tmp_path / "a.pth").write_bytes(pickle.dumps(value, protocol))
    with pytest.raises(InputError, match=r"refused|is not a PyTorch checkpoint"):
        read_torch(tmp_path / "a.pth")
    assert not trace.exists()


def test_nothing_runs_behind_a_number_of_numpy(tmp_path):
    """The second attempt, which admits such numbers, admits nothing else."""
    trace = tmp_path / "trace"
    value = {"mean": np.float64(1), "evil": RunsOnLoading(os.system, f"touch {trace}")}
    with pytest.raises(InputError, match=r"posix.system"):
        read_torch(save(value, tmp_path / "a.pth", new=True))
    assert not trace.exists()


# --- files that are nothing -----------------------------------------------------------------------


@pytest.mark.parametrize("share", [0.02, 0.3, 0.9, 0.999])
@pytest.mark.parametrize("new", CONTAINERS)
def test_truncated(tmp_path, new, share):
    value = small() | {"net": {"weight": torch.ones(10_000)}}
    whole = save(value, tmp_path / "a.pth", new=new).read_bytes()
    (tmp_path / "a.pth").write_bytes(whole[: int(share * len(whole))])
    with pytest.raises(InputError, match=r"a.pth: is truncated or damaged") as error:
        read_torch(tmp_path / "a.pth")
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("new", CONTAINERS)
def test_damaged(tmp_path, new):
    whole = bytearray(save(small(), tmp_path / "a.pth", new=new).read_bytes())
    place = re.search(rb"argparse", whole).start()
    whole[place - 40 : place] = b"\xff" * 40
    (tmp_path / "a.pth").write_bytes(whole)
    with pytest.raises(InputError, match=r"a.pth: is truncated or damaged"):
        read_torch(tmp_path / "a.pth")


@pytest.mark.parametrize(
    "content",
    [
        b"epoch 3: loss 0.2\n" * 9,
        b"\x89PNG\r\n\x1a\n" + bytes(99),
        pickle.dumps({"a": 1}),
        pickle.dumps([1, 2, 3], protocol=2),
        b"\x80",
    ],
)
def test_not_a_checkpoint(tmp_path, content):
    (tmp_path / "a.pth").write_bytes(content)
    with pytest.raises(InputError, match=r"a.pth: is not a PyTorch checkpoint \(it starts with"):
        read_torch(tmp_path / "a.pth")


def test_an_empty_file(tmp_path):
    (tmp_path / "a.pth").touch()
    with pytest.raises(InputError, match=r"a.pth: is empty"):
        read_torch(tmp_path / "a.pth")


@pytest.mark.parametrize("name", ["gone.pth", "."])
def test_no_file(tmp_path, name):
    with pytest.raises(InputError, match=r"cannot be read: (No such file|Is a directory)"):
        read_torch(tmp_path / name)
