import time

import pytest

from step_jax.stopwatch import Stopwatch


def test_phases_add_up_even_through_errors():
    stopwatch = Stopwatch()
    for _ in range(2):
        with stopwatch("work"):
            time.sleep(0.01)
    with pytest.raises(KeyError), stopwatch("failing"):
        raise KeyError
    assert 0.02 <= stopwatch.seconds["work"] < 5
    assert stopwatch.seconds["failing"] >= 0


def test_only_the_making_of_items_is_counted():
    def slow_items():
        for item in range(2):
            time.sleep(0.01)
            yield item

    stopwatch, taken = Stopwatch(), []
    for item in stopwatch.iterate("read", slow_items()):
        with stopwatch("use"):
            time.sleep(0.05)
        taken.append(item)
    assert taken == [0, 1]
    assert 0.02 <= stopwatch.seconds["read"] < stopwatch.seconds["use"]
