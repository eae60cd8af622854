"""What training says: means, speed, no line twice, and a loss that is not a number."""

import itertools
import json
import struct

import numpy as np
import pytest

from step_jax.errors import InputError
from step_jax.startup import Startup
from step_jax.training_log import NonFiniteLossError, TrainingLog, read_log


@pytest.fixture
def clock(monkeypatch):
    """Time that passes only by `clock(seconds)`."""
    now = [1000.0]
    monkeypatch.setattr("step_jax.training_log.time.monotonic", lambda: now[0])

    def advance(seconds):
        now[0] += seconds
        return seconds

    return advance


@pytest.fixture
def open_log(tmp_path):
    opened = []

    def open_log(*, start_step=0, total_steps=10, every=2, **options):
        opened.append(
            TrainingLog(
                tmp_path,
                start_step=start_step,
                total_steps=total_steps,
                batch_size=4,
                every=every,
                learning_rate=lambda step: 0.1 / (step + 1),
                **options,
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


def test_eta_is_not_misled_by_a_slow_start(open_log, clock, capsys):
    log = open_log(total_steps=100, every=1)
    for seconds in (60, 1, 1, 1):  # compilation first
        add_steps(log, [1.0], clock, seconds=seconds)
    line = capsys.readouterr().out.splitlines()[-1]
    assert "ETA 0:01:36 (" in line, line


def test_eta_expects_as_many_pauses_as_there_were(open_log, clock, capsys):
    log = open_log(total_steps=10, every=2)
    add_steps(log, [1, 1], clock, seconds=1)
    with log.paused():
        clock(6)
    add_steps(log, [1, 1], clock, seconds=1)
    line = capsys.readouterr().out.splitlines()[-1]
    assert f"ETA 0:00:{6 + 6 * 6 // 4:02} (" in line, line


def test_where_a_steps_time_goes(open_log, clock, tmp_path):
    class SlowDevice:
        """A metric that comes after three seconds."""

        def __float__(self):
            clock(3)
            return 1.0

    log = open_log()
    for _ in range(2):
        clock(4)
        log.waited_for_data(1.0)
        log.add({"loss": SlowDevice(), "gradient_norm": 1.0})
    with log.paused():
        clock(50)
    log.flush()
    (line,) = read_log(tmp_path)
    parts = {"step_ms": 7000, "data_ms": 1000, "device_ms": 3000, "host_ms": 3000}
    assert {name: line[name] for name in parts} == pytest.approx(parts)
    shares = [line[name] for name in ("data_wait", "device_wait", "host_work")]
    assert shares == pytest.approx([1 / 7, 3 / 7, 3 / 7])
    assert line["elapsed_seconds"] == pytest.approx(64)


def test_histograms_are_shares_and_skipped_examples_a_sum(open_log, clock, tmp_path):
    log = open_log()
    for number in (1, 3):
        histogram = np.zeros(10, np.float32)
        histogram[number] = 5 * number
        overlaps = (histogram, np.float32(5 * number))
        skipped = (np.int32(number), np.int32(4))
        log.add(metrics(1.0) | {"overlap_histogram_1": overlaps, "skipped": skipped})
    log.flush()
    (line,) = read_log(tmp_path)
    assert line["overlap_histogram_1"] == [0, 0.25, 0, 0.75, 0, 0, 0, 0, 0, 0]
    assert line["skipped"] == 4
    assert line["examples"] == 8


def test_rates_of_groups(open_log, clock, tmp_path):
    log = open_log(group_factors={"backbone/*": 0.1, "*": 1.0})
    add_steps(log, [1, 1], clock)
    (line,) = read_log(tmp_path)
    assert line["learning_rates"] == pytest.approx({"backbone/*": 0.005, "*": 0.05})


def test_a_run_that_stops_between_reports(open_log, clock, tmp_path):
    log = open_log(every=4)
    add_steps(log, [1, 1, 1, 1, 7], clock)
    log.finish()
    log.finish()
    assert [(line["step"], line["loss"]) for line in read_log(tmp_path)] == [(4, 1), (5, 7)]


def test_a_process_that_does_not_write_still_checks(open_log, clock, tmp_path, capsys):
    log = open_log(every=1, writes=False)
    add_steps(log, [1, 1], clock)
    log.add_scalars(2, {"eval/frame_map_step_1": 33.0})
    log.add(metrics(float("nan")))
    with pytest.raises(NonFiniteLossError):
        log.finish()
    assert list(tmp_path.iterdir()) == []
    assert capsys.readouterr().out == ""


# --- the start ------------------------------------------------------------------------------------


def test_the_start_is_told_and_left_out_of_the_speed(open_log, clock, tmp_path, capsys):
    startup = Startup(import_seconds=5.0)
    clock(2)
    startup.done("parameters")
    log = open_log(every=2, startup=startup)
    with log.paused():
        clock(100)
    log.waited_for_data(clock(3))
    clock(20)
    log.add(metrics(1.0))
    add_steps(log, [1.0, 1.0, 1.0], clock, seconds=0.5)
    phases = "import 5.0, parameters 2.0, first batch 3.0, compilation 20.0, first step 0.0"
    assert f"first step after 30.0 s: {phases}; " in capsys.readouterr().out
    first, second = read_log(tmp_path)
    assert first["startup"]["seconds"] == pytest.approx(30)
    assert first["clips_per_second"] == pytest.approx(4 / 0.5)
    assert "startup" not in second


def test_a_first_step_alone_has_no_speed(open_log, clock, tmp_path, capsys):
    log = open_log(every=1, startup=Startup())
    add_steps(log, [1.0, 1.0], clock)
    first, second = read_log(tmp_path)
    assert "clips_per_second" not in first
    assert "step_ms" in second
    assert "ETA" not in capsys.readouterr().out.splitlines()[1]


def test_elapsed_seconds_go_on_in_a_continued_run(open_log, clock, tmp_path):
    add_steps(open_log(), [1, 1], clock)
    clock(1000)
    add_steps(open_log(start_step=2), [1, 1], clock)
    assert [line["elapsed_seconds"] for line in read_log(tmp_path)] == pytest.approx([2, 4])


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
    log = open_log(group_factors={"heads_*": 2.0})
    histogram = np.float32([0, 3, 1, 0]), np.float32(4)
    log.add(metrics(1.0) | {"overlap_histogram_1": histogram})
    add_steps(log, [1], clock)
    log.add_scalars(2, {"eval/frame_map_step_1": 33.0})
    log.close()
    payload = b"".join(tensorboard_records(tmp_path / "tensorboard"))
    rates = b"train/learning_rates/heads__"
    for name in (b"train/loss", b"train/overlap_histogram_1", b"eval/frame_map_step_1", rates):
        assert payload.count(name) == 1


def test_tensorboard_on_a_full_disk(open_log, clock, small_files_only, tmp_path):
    """Told at once; the thread of tensorboardX's own writer would die, and the log wait for it."""
    log = open_log()
    many = {f"eval/{number}": 33.0 for number in range(1000)}
    with small_files_only(1000), pytest.raises(InputError) as error:
        log.add_scalars(1, many)
    assert str(error.value).startswith(
        f"{tmp_path / 'tensorboard'}: cannot be written (File too la"
    )
    log.add_scalars(2, many)
    log.close()


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
    with pytest.raises(
        NonFiniteLossError, match="step 1: the norm of the gradient is inf"
    ) as error:
        log.flush()
    assert error.value.step == 1
