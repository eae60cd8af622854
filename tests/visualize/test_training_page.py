"""A training's page: its panels hold what the run has, and it comes of runs of any kind."""

import json

import cv2
import numpy as np
import pytest

from step_jax import evaluations
from step_jax.errors import InputError
from step_jax.training_summary import read_summary
from step_jax.visualize import at_end, curves, training, training_panels


def report(step, *, num_steps=2):
    line = {"step": step, "loss": 30 / step, "gradient_norm": 2.0, "learning_rate": 0.1}
    for number in range(1, num_steps + 1):
        histogram = np.eye(10)[number]
        line |= {
            f"classification_{number}": 2 / step,
            f"positives_{number}": 3.0,
            f"negatives_{number}": 2.5,
            f"overlap_histogram_{number}": histogram.tolist(),
        }
    speed = {"clips_per_second": 8.0, "step_ms": 500, "data_ms": 100, "device_ms": 300}
    return line | speed | {"host_ms": 100, "host_mib": 900.0, "host_peak_mib": 1000.0}


def write_run(folder, lines, scores=(), *, cut_off=""):
    folder.mkdir(exist_ok=True)
    text = "".join(json.dumps(line) + "\n" for line in lines)
    (folder / "train_log.jsonl").write_text(text + cut_off)
    for step, means in dict(scores).items():
        steps = [{"step": n, "mean": mean} for n, mean in enumerate(means, start=1)]
        metrics = {"score": means[-1], "metric": "frame-mAP@0.5", "steps": steps}
        evaluations.write_metrics(evaluations.folder(folder, split="test", step=step), metrics)
    return folder


def panels_of(folder):
    """Title -> axes of a run's page."""
    figure = training.draw_page(read_summary(folder))
    return {axes.get_title(loc="left"): axes for axes in figure.axes}


def labels(axes):
    return [text.get_text() for text in axes.get_legend().get_texts()]


def test_every_panel(tmp_path):
    run = write_run(tmp_path, [report(n) for n in range(10, 60, 10)], {20: [1.0, 2.5], 50: [3, 4]})
    panels = panels_of(run)
    assert list(panels) == [
        "loss", "classification",
        "frame-mAP@0.5, %", "learning rate", "norm of the gradient",
        "positives, negatives (dashed) a clip", "inputs by IoU, at the start, %",
        "inputs by IoU, at the end, %",
        "ms a step, by what it waits for", "clips/s", "memory, GiB",
    ]  # fmt: skip
    assert labels(panels["frame-mAP@0.5, %"]) == ["step 1: 3.0", "step 2: 4.0"]
    assert labels(panels["classification"]) == ["step 1", "step 2"]
    times = labels(panels["ms a step, by what it waits for"])
    assert times == ["device 60%", "data 20%", "host 20%"]
    (measured, smoothed) = panels["loss"].lines
    np.testing.assert_allclose(measured.get_ydata(), [3, 1.5, 1, 0.75, 0.6])
    np.testing.assert_allclose(smoothed.get_xdata(), [10, 20, 30, 40, 50])
    assert panels["memory, GiB"].lines[0].get_ydata()[0] == pytest.approx(900 / 1024)
    bins = panels["inputs by IoU, at the end, %"].patches[0].get_data().values
    np.testing.assert_allclose(bins, 100 * np.eye(10)[1])


def test_panels_do_not_overlap(tmp_path):
    """Nor do their ticks and titles, not even where numbers are long."""
    lines = [report(1000 * n) | {"learning_rate": 1.25e-5 * n, "loss": 1e6 / n} for n in (1, 2, 3)]
    figure = training.draw_page(read_summary(write_run(tmp_path, lines, {1000: [1.0, 99.9]})))
    figure.canvas.draw()
    boxes = [axes.get_tightbbox() for axes in figure.axes]
    width, height = figure.canvas.get_width_height()
    for number, box in enumerate(boxes):
        assert 0 <= box.x0 <= box.x1 <= width
        assert 0 <= box.y0 <= box.y1 <= height
        for other in boxes[:number]:
            assert not box.overlaps(other)


@pytest.mark.parametrize("num_lines", [1, 2])
def test_a_run_that_has_hardly_begun(tmp_path, num_lines):
    """A curve of one point would be invisible."""
    lines = [report(n, num_steps=1) for n in range(1, num_lines + 1)]
    path = training.draw_summary(write_run(tmp_path, lines))
    picture = cv2.imread(str(path))
    assert path == tmp_path / "summary.png"
    assert picture.shape[1] == 1240
    loss = picture[: picture.shape[0] // 3, :600]
    assert (loss == [178, 114, 0]).all(axis=2).any()  # blue, in BGR


def test_evaluations_alone(tmp_path):
    assert list(panels_of(write_run(tmp_path, [], {5: [1.0]}))) == ["frame-mAP@0.5, %"]


def test_a_log_of_an_older_version(tmp_path):
    old = {"step": 50, "loss": 1.0, "data_wait": 0.1, "clips_per_second": 3.0}
    run = write_run(tmp_path, [old], cut_off='{"step": 100, "lo')
    assert list(panels_of(run)) == ["loss", "clips/s"]


def test_starts_are_marked(tmp_path):
    started = [report(2) | {"startup": {}}, report(4), report(6) | {"startup": {}}]
    lines = [line | {"startup": FIRST} if "startup" in line else line for line in started]
    axes = panels_of(write_run(tmp_path, lines))["loss"]
    assert [list(line.get_xdata()) for line in axes.lines[2:]] == [[4, 4]]


FIRST = {"seconds": 3.0, "devices": 2, "device": "cpu"}


def test_rates_of_many_groups(tmp_path):
    groups = {"a" * 40: 0.5, "*": 1.0}
    axes = panels_of(write_run(tmp_path, [report(1) | {"learning_rates": groups}]))["learning rate"]
    assert labels(axes) == ["a" * 23 + "…", "*"]
    assert axes.get_yscale() == "log"


@pytest.mark.parametrize("window", [0, 1, 3, 50])
def test_running_mean_against_a_loop(window):
    values = np.random.default_rng(0).normal(size=20)
    expected = []
    for i in range(20):
        reach = min(window, i, 19 - i)
        expected.append(np.mean(values[i - reach : i + reach + 1]))
    np.testing.assert_allclose(curves.running_mean(values, window), expected, atol=1e-12)


def test_short_numbers():
    numbers = [0, 0.01, 5e-4, 12.5, 20_000, 2.5e6]
    shown = ["0", "0.01", "5e-4", "12.5", "20000", "2.5e6"]
    assert [curves.short_number(value) for value in numbers] == shown


def test_nothing_to_draw(tmp_path):
    with pytest.raises(InputError, match="nothing to draw"):
        training.draw_summary(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_page_that_cannot_be_written(tmp_path):
    run = write_run(tmp_path / "run", [report(1)])
    with pytest.raises(InputError, match=r"nowhere/page.png: cannot be written"):
        training.draw_summary(run, tmp_path / "nowhere" / "page.png")


# --- when training stops --------------------------------------------------------------------------


@pytest.fixture
def drawn(monkeypatch):
    """The folders whose pages were drawn."""
    folders = []
    monkeypatch.setattr(training, "draw_summary", folders.append)
    return folders


def test_drawn_at_the_end_and_after_an_error(drawn, tmp_path):
    with at_end.drawing_summary(tmp_path, wanted=True):
        pass
    with pytest.raises(InputError), at_end.drawing_summary(tmp_path, wanted=True):
        raise InputError("diverged")
    assert drawn == [tmp_path, tmp_path]


def test_not_drawn_if_not_wanted_or_in_a_hurry(drawn, tmp_path):
    with at_end.drawing_summary(tmp_path, wanted=False):
        pass
    with pytest.raises(KeyboardInterrupt), at_end.drawing_summary(tmp_path, wanted=True):
        raise KeyboardInterrupt
    assert drawn == []


def test_a_page_that_fails_does_not_fail_the_training(tmp_path, capsys):
    with at_end.drawing_summary(tmp_path, wanted=True):
        pass
    assert "no summary: " in capsys.readouterr().out


def test_panels_know_whether_there_is_something_to_show(tmp_path):
    summary = read_summary(write_run(tmp_path, [{"step": 1, "loss": 1.0}]))
    assert training_panels.memory_panel(summary) is None
    assert training_panels.time_panel(summary) is None
    assert training_panels.loss_panel(summary) is not None
