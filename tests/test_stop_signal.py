"""Signals as requests: noted, answered at a good moment, and not eaten."""

import os
import signal
import threading

import pytest

from step_jax.stop_signal import StopSignal


def send(number):
    os.kill(os.getpid(), number)


@pytest.mark.parametrize("name", ["SIGTERM", "SIGINT"])
def test_a_signal_is_noted(capfd, name):
    before = signal.getsignal(signal.Signals[name])
    with StopSignal() as stop:
        stop.begin()
        assert stop.requested is None
        send(signal.Signals[name])
        assert stop.requested == name
    assert signal.getsignal(signal.Signals[name]) is before
    assert capfd.readouterr().err == f"{name}: saving and ending\n"


def test_second_ctrl_c_interrupts():
    with StopSignal() as stop:
        stop.begin()
        send(signal.SIGINT)
        with pytest.raises(KeyboardInterrupt):
            send(signal.SIGINT)


def test_more_requests_to_end_change_nothing():
    with StopSignal() as stop:
        stop.begin()
        send(signal.SIGINT)
        send(signal.SIGTERM)
        send(signal.SIGTERM)
        assert stop.requested == "SIGTERM"


def test_work_that_can_be_done_again_ends_at_once():
    done = []

    def work():
        done.append("begun")
        send(signal.SIGTERM)
        done.append("finished")

    with StopSignal() as stop:
        stop.run_interruptibly(work)
        assert (done, stop.requested) == (["begun"], "SIGTERM")
        stop.run_interruptibly(lambda: done.append("not begun any more"))
        assert done == ["begun"]


def test_a_second_signal_does_not_interrupt_what_the_first_sets_off():
    done = []

    def work():
        try:
            send(signal.SIGTERM)
        finally:
            send(signal.SIGTERM)
            done.append("cleaned up")

    with StopSignal() as stop:
        stop.run_interruptibly(work)
    assert done == ["cleaned up"]


def test_before_there_is_anything_to_save(capfd):
    with StopSignal() as stop:
        with pytest.raises(KeyboardInterrupt):
            send(signal.SIGINT)
        assert stop.requested is None
        send(signal.SIGTERM)
        assert stop.requested == "SIGTERM"
    assert capfd.readouterr().err == "SIGTERM: ending\n"


def test_work_is_finished_without_a_signal():
    done = []
    with StopSignal() as stop:
        stop.run_interruptibly(lambda: done.append(1))
        send(signal.SIGTERM)  # after it: only noted
    assert done == [1]


def test_errors_of_the_work_come_through():
    with StopSignal() as stop, pytest.raises(ZeroDivisionError):
        stop.run_interruptibly(lambda: 1 // 0)


def test_a_signal_wakes_the_main_thread():
    """As a scheduler sends it: from outside, at any time."""
    with StopSignal() as stop:
        timer = threading.Timer(0.05, send, [signal.SIGTERM])
        timer.start()
        signal.sigtimedwait([], 0.2)
        timer.join()
        assert stop.requested == "SIGTERM"
