"""Which steps are traced, and that a trace comes of it."""

import contextlib

import pytest

from step_jax import profiling
from step_jax.errors import InputError


@pytest.mark.parametrize(
    ("text", "start", "expected"),
    [
        ("5:7", 0, range(5, 8)),
        ("5:5", 4, range(5, 6)),
        ("1:20", 0, range(1, 21)),
        ("2", 0, range(3, 5)),
        ("2", 10, range(13, 15)),
    ],
)
def test_steps(text, start, expected):
    assert profiling.parse(text).steps(start=start, total=20) == expected


def test_nothing_asked_for():
    assert profiling.parse(None) is None


@pytest.mark.parametrize("text", ["", "0", "x", "7:5", "0:3", "3:", ":3", "1:2:3", "-4", "1.5"])
def test_bad_values(text):
    with pytest.raises(InputError, match=r"--profile '.*': expected FIRST:LAST, steps counted"):
        profiling.parse(text)


@pytest.mark.parametrize(
    ("text", "start"), [("5:7", 5), ("5:7", 4000), ("2", 17), ("1", 20), ("19:20", 20)]
)
def test_steps_that_a_continued_run_does_not_make(text, start):
    wanted = profiling.parse(text)
    wanted.check(total=20)
    assert wanted.steps(start=start, total=20) is None


@pytest.mark.parametrize("text", ["19:21", "19"])
def test_steps_that_no_run_makes(text):
    with pytest.raises(InputError, match="to 21 are asked for; the run has 20"):
        profiling.parse(text).check(total=20)


@pytest.fixture
def tracer(monkeypatch, tmp_path):
    """What was traced, in order, instead of tracing."""
    told = []

    def start_trace(folder, **options):
        (tmp_path / "plugins" / "profile" / "2026").mkdir(parents=True)
        told.append("start")

    monkeypatch.setattr(profiling.jax.profiler, "start_trace", start_trace)
    monkeypatch.setattr(profiling.jax.profiler, "stop_trace", lambda: told.append("stop"))
    return told


def test_only_the_wanted_steps_are_traced_to_their_end(tracer, tmp_path, capsys):
    wait = lambda: tracer.append("wait")  # noqa: E731

    @contextlib.contextmanager
    def paused():
        tracer.append("pause")
        yield
        tracer.append("go on")

    with profiling.Profile(range(2, 4), tmp_path, wait=wait, paused=paused) as profile:
        for step in range(1, 6):
            with profile.step(step):
                tracer.append(step)
    assert tracer == [1, "start", 2, 3, "wait", "pause", "stop", "go on", 4, 5]
    assert str(tmp_path / "plugins" / "profile" / "2026") in capsys.readouterr().out


def test_a_trace_is_ended_where_training_breaks_off(tracer, tmp_path):
    with (
        pytest.raises(KeyError),
        profiling.Profile(range(1, 9), tmp_path, wait=tracer.clear) as profile,
        profile.step(1),
    ):
        raise KeyError
    assert tracer == ["start", "stop"]


def test_without_profile(tracer, tmp_path):
    with profiling.Profile(None, tmp_path, wait=tracer.clear) as profile, profile.step(1):
        pass
    assert tracer == []
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_a_trace_that_jax_writes(tmp_path):
    with profiling.Profile(range(1, 3), tmp_path, wait=lambda: None) as profile:
        for step in (1, 2):
            with profile.step(step):
                profiling.jax.numpy.ones(3).sum().block_until_ready()
    (trace,) = tmp_path.glob("plugins/profile/*/perfetto_trace.json.gz")
    assert trace.stat().st_size > 0
    assert list(tmp_path.glob("plugins/profile/*/*.xplane.pb"))
