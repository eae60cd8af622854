"""What training says: means, speed, no line twice, and a loss that is not a number."""

import itertools
import json
import re
import struct

import numpy as np
import pytest

from step_jax.errors import InputError
from step_jax.training_log import TrainingLog, read_log


@pytest.fixture
def clock(monkeypatch):
    """Time that passes only by `clock(seconds)`."""
    now = [1000.0]
    monkeypatch.setattr("step_jax.training_log.time.monotonic", lambda: now[0])

    def advance(seconds):
        now[0] += seconds

    return advance


@pytest.fixture
def open_log(tmp_path):
    opened = []

    def open_log(*, start_step=0, total_steps=10, every=2):
        opened.append(
            TrainingLog(
                tmp_path,
                start_step=start_step,
                total_steps=total_steps,
                batch_size=4,
                every=every,
                learning_rate=lambda step: 0.1 / (step + 1),
            )
        )
        return opened[-1]

    yield open_log
    for log in opened:
        log.close()


def metrics(loss, *, count=1.0):
    return {
        "loss": (np.float32(loss * count), np.float32(count)),
        "classification_1": (np.float32(2.0), np.float32(4.0)),
        "localization_1": (np.float32(0.0), np.float32(0.0)),
        "gradient_norm": np.float32(3.0),
    }


def add_steps(log, losses, clock, *, seconds=1.0):
    for loss in losses:
        clock(seconds)
        log.add(metrics(loss))
    log.flush()


def test_means_of_sums_over_counts(open_log, clock, tmp_path):
    log = open_log(total_steps=3)
    clock(2)
    log.add(metrics(1.0, count=1))
    log.waited_for_data(0.5)
    clock(2)
    log.add(metrics(4.0, count=3))
    log.flush()
    (line,) = read_log(tmp_path)
    assert line["step"] == 2
    assert line["loss"] == pytest.approx((1 + 12) / 4)
    assert line["classification_1"] == pytest.approx(0.5)
    assert line["localization_1"] == 0.0  # nothing to count
    assert line["gradient_norm"] == 3.0
    assert line["learning_rate"] == pytest.approx(0.1 / 2)  # the one that made step 2
    assert line["clips_per_second"] == pytest.approx(2 * 4 / 4)
    assert line["data_wait"] == pytest.approx(0.5 / 4)


def test_reports_every_so_often_and_at_the_end(open_log, clock, tmp_path):
    add_steps(open_log(total_steps=7, every=3), range(7), clock)
    assert [line["step"] for line in read_log(tmp_path)] == [3, 6, 7]
    assert [line["loss"] for line in read_log(tmp_path)] == [1.0, 4.0, 6.0]


def test_speed_leaves_out_pauses(open_log, clock, tmp_path):
    log = open_log(every=4)
    add_steps(log, [1, 1], clock, seconds=0.5)
    with log.paused():
        clock(100)
    add_steps(log, [1, 1], clock, seconds=0.5)
    assert read_log(tmp_path)[0]["clips_per_second"] == pytest.approx(4 * 4 / 2)


def test_speed_after_a_start_between_two_reports(open_log, clock, tmp_path):
    add_steps(open_log(start_step=3, every=4), [1.0], clock, seconds=2)
    (line,) = read_log(tmp_path)
    assert line["step"] == 4
    assert line["clips_per_second"] == pytest.approx(1 * 4 / 2)


def test_console_line(open_log, clock, capsys):
    add_steps(open_log(total_steps=3602, every=2), [1.5, 2.5], clock, seconds=0.5)
    line = capsys.readouterr().out.splitlines()[-1]
    assert line == (
        "step 2/3602  loss 2.000  class 0.50  box 0.000  8.0 clips/s  data 0%  ETA 0:30:00"
    )


def test_eta_is_not_misled_by_a_slow_start(open_log, clock, capsys):
    log = open_log(total_steps=100, every=1)
    for seconds in (60, 1, 1, 1):  # compilation first
        add_steps(log, [1.0], clock, seconds=seconds)
    line = capsys.readouterr().out.splitlines()[-1]
    assert re.search(r"ETA 0:01:36$", line), line


# --- continuing -----------------------------------------------------------------------------------


def test_steps_made_again_are_not_logged_twice(open_log, clock, tmp_path):
    add_steps(open_log(), [1, 1, 1, 1, 1, 1], clock)
    add_steps(open_log(start_step=3), [2, 2, 2, 2, 2, 2, 2], clock)
    lines = read_log(tmp_path)
    assert [line["step"] for line in lines] == [2, 4, 6, 8, 10]
    assert [line["loss"] for line in lines] == [1, 2, 2, 2, 2]
    for text in (tmp_path / "train_log.jsonl").read_text().splitlines():
        json.loads(text)


@pytest.mark.parametrize("left", [1, 20, 60])
def test_a_line_cut_off_by_a_crash(open_log, clock, tmp_path, left):
    add_steps(open_log(), [1, 1, 1, 1], clock)
    path = tmp_path / "train_log.jsonl"
    first, second = path.read_text().splitlines()
    path.write_text(first + "\n" + second[:left])
    assert [line["step"] for line in read_log(tmp_path)] == [2]
    add_steps(open_log(start_step=2), [3, 3], clock)
    assert [line["loss"] for line in read_log(tmp_path)] == [1, 3]


def test_no_log_yet(tmp_path):
    assert read_log(tmp_path) == []


def test_a_new_run_in_a_used_folder_starts_over(open_log, clock, tmp_path):
    add_steps(open_log(), [1, 1], clock)
    open_log()
    assert read_log(tmp_path) == []


# --- TensorBoard ----------------------------------------------------------------------------------


def tensorboard_records(folder):
    """The payloads of an event file: length, checksum, bytes, checksum."""
    for path in sorted(folder.glob("events.out.tfevents.*")):
        data = path.read_bytes()
        position = 0
        while position < len(data):
            (length,) = struct.unpack_from("<Q", data, position)
            yield data[position + 12 : position + 12 + length]
            position += 16 + length


def test_tensorboard(open_log, clock, tmp_path):
    log = open_log()
    add_steps(log, [1, 1], clock)
    log.add_scalars(2, {"eval/frame_map_step_1": 33.0})
    log.close()
    payload = b"".join(tensorboard_records(tmp_path / "tensorboard"))
    for name in (b"train/loss", b"train/learning_rate", b"eval/frame_map_step_1"):
        assert payload.count(name) == 1


# --- broken losses --------------------------------------------------------------------------------


@pytest.mark.parametrize("loss", [float("nan"), float("inf")])
def test_a_broken_loss_names_its_step(open_log, clock, tmp_path, loss):
    log = open_log(start_step=4, every=1)
    add_steps(log, [1, 1], clock)
    log.add(metrics(loss))  # dispatched, not looked at
    with pytest.raises(InputError, match=f"step 7: the loss is {loss}; the checkpoints before"):
        log.add(metrics(1.0))
    assert [line["step"] for line in read_log(tmp_path)] == [5, 6]


def test_a_broken_loss_is_noticed_before_saving(open_log):
    log = open_log()
    log.add(metrics(float("nan")))
    with pytest.raises(InputError, match="step 1: the loss is nan"):
        log.flush()


def test_looks_at_a_step_only_when_the_next_is_dispatched(open_log):
    """Else the host would wait for every step before it reads the next batch."""

    class Unready:
        looked_at = False

        def __float__(self):
            self.looked_at = True
            return 1.0

    log = open_log()
    steps = [Unready() for _ in range(3)]
    log.add({"loss": steps[0]})
    for one, following in itertools.pairwise(steps):
        assert not one.looked_at
        log.add({"loss": following})
        assert one.looked_at


def test_a_full_disk(open_log, clock, tmp_path):
    log = open_log()
    (tmp_path / "train_log.jsonl").unlink()
    (tmp_path / "train_log.jsonl").mkdir()
    with pytest.raises(InputError, match=r"train_log.jsonl: cannot be written .*make room there"):
        add_steps(log, [1, 1], clock)


def test_a_broken_gradient_is_a_broken_step(open_log):
    """The loss may be finite and the update refused all the same."""
    log = open_log()
    log.add(metrics(1.0) | {"gradient_norm": np.float32("inf")})
    with pytest.raises(InputError, match="step 1: the norm of the gradient is inf; the checkp"):
        log.flush()
