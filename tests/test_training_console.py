"""The one line on the console: what is in it, and that it fits."""

import datetime

import pytest

from step_jax.training_console import console_line, duration


def line(steps=3, **changes):
    values = {"step": 1100, "loss": 2.3456, "gradient_norm": 3.2109}
    values |= {f"classification_{step}": 0.5 / step for step in range(1, steps + 1)}
    values |= {f"localization_{step}": 0.12 / step for step in range(1, steps + 1)}
    speed = {"clips_per_second": 14.04, "data_wait": 0.02, "device_wait": 0.93, "host_work": 0.05}
    return values | speed | changes


def test_everything_in_its_place():
    text = console_line(line(), total_steps=2200, seconds_left=None)
    assert text == (
        "step 1100/2200  loss 2.346  class 0.50 0.25 0.17  box 0.120 0.060 0.040  grad 3.2  "
        "14.0 clips/s  data 2%"
    )


def test_what_is_only_said_where_it_matters():
    text = console_line(line(host_work=0.2), total_steps=2200, seconds_left=None, skipped=3)
    assert text.endswith("data 2% host 20%  3 skipped")


@pytest.mark.parametrize(("hours", "form"), [(3, "%H:%M"), (50, "%a %H:%M")])
def test_when_it_ends(hours, form):
    text = console_line(line(), total_steps=2200, seconds_left=3600 * hours)
    ends = [datetime.datetime.now() + datetime.timedelta(hours=hours, seconds=s) for s in (-5, 1)]
    assert text.endswith(
        tuple(f"ETA {duration(3600 * hours)} ({end.strftime(form)})" for end in ends)
    )


def test_fits_on_one_line():
    values = line(step=123456, loss=12.3456, gradient_norm=123456.0)
    text = console_line(values, total_steps=234567, seconds_left=10 * 24 * 3600)
    assert len(text) <= 140, text


def test_a_detector_without_boxes_to_learn():
    values = {"step": 1, "loss": 1.0, "classification_1": 1.0}
    assert (
        console_line(values, total_steps=5, seconds_left=None) == "step 1/5  loss 1.000  class 1.00"
    )


def test_durations():
    assert duration(1799.6) == "0:30:00"
    assert duration(23 * 3600 + 59 * 60) == "23:59:00"
    assert duration(2 * 24 * 3600 + 4.5 * 3600) == "2d 4:30"
