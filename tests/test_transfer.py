"""Placing arrays by path, and starting a model from another one."""

import numpy as np
import pytest

from step_jax.errors import InputError
from step_jax.transfer import DifferentKeysError, by_path, fill, transfer


def ones(*shape, times=1.0):
    return np.full(shape, times, np.float32)


def detector(steps, *, classes=3, value=0.0):
    """Variables as a detector's: trained ones, and frozen ones of the same modules."""
    params, frozen = {"backbone": {"conv": {"kernel": ones(2, 4, times=value)}}}, {}
    frozen["backbone"] = {"conv": {"scale": ones(4, times=value)}}
    for step in range(steps):
        params[f"heads_{step}"] = {
            "classifier": {"kernel": ones(5, classes, times=value + step)},
            "box": {"kernel": ones(5, 4, times=value + step)},
        }
    return {"params": params, "frozen": frozen}


def test_paths_leave_the_collection_out():
    assert list(by_path(detector(1))) == [
        "backbone/conv/scale",
        "backbone/conv/kernel",
        "heads_0/box/kernel",
        "heads_0/classifier/kernel",
    ]


def test_fill_takes_every_leaf_whatever_its_collection():
    source = by_path(detector(2, value=7))
    shapes = detector(2)
    shapes["params"]["backbone"]["conv"]["scale"] = shapes["frozen"].pop("backbone")["conv"][
        "scale"
    ]
    filled = fill(shapes, source)
    assert by_path(filled).keys() == source.keys()
    for path, leaf in by_path(filled).items():
        np.testing.assert_array_equal(leaf, source[path])


def test_fill_names_everything_that_does_not_fit():
    arrays = by_path(detector(1))
    del arrays["heads_0/box/kernel"]
    arrays["other"] = ones(1)
    arrays["backbone/conv/scale"] = ones(5)
    with pytest.raises(DifferentKeysError, match=r"1 missing .*1 surplus .*1 misshapen") as error:
        fill(detector(1), arrays)
    assert isinstance(error.value, InputError)
    assert "\n" not in str(error.value)
    assert error.value.report.listing() == [
        "missing: heads_0/box/kernel",
        "surplus: other",
        "misshapen: backbone/conv/scale [5] instead of [4]",
    ]


def test_the_message_is_short_and_the_listing_complete():
    with pytest.raises(DifferentKeysError, match=r"12 missing .* and 9 more") as error:
        fill(detector(5), {})
    assert len(error.value.report.listing()) == 12
    assert error.value.__notes__ == ["\n".join(error.value.report.listing())]


def test_transfer_from_one_step_fills_every_head():
    variables, report = transfer(detector(3), detector(1, value=7))
    assert report.complete
    assert len(report.taken) == 8
    assert all((leaf == 7).all() for leaf in by_path(variables).values())


def test_transfer_from_several_steps_goes_head_by_head():
    variables, report = transfer(detector(3), detector(2, value=7))
    values = {path: float(leaf.mean()) for path, leaf in by_path(variables).items()}
    assert values["heads_0/box/kernel"] == 7
    assert values["heads_1/box/kernel"] == 8
    assert values["heads_2/box/kernel"] == 2  # its own
    assert report.missing == ("heads_2/box/kernel", "heads_2/classifier/kernel")


def test_transfer_skips_and_reports():
    target, source = detector(2), detector(1, classes=9, value=7)
    source["params"]["stem"] = ones(1)
    variables, report = transfer(target, source, skip=["classifier"])
    assert report.surplus == ("stem",)
    assert not report.missing
    assert not report.misshapen
    assert (by_path(variables)["heads_1/classifier/kernel"] == 1).all()
    _, report = transfer(target, source)
    assert report.misshapen[0] == "heads_0/classifier/kernel [5, 9] instead of [5, 3]"
    assert len(report.misshapen) == 2


def test_transfer_does_not_change_what_it_is_given():
    target = detector(2)
    transfer(target, detector(1, value=7))
    assert (by_path(target)["heads_1/box/kernel"] == 1).all()
