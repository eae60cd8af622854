import os
import signal
import subprocess
import sys
import textwrap

# A parent that interrupts its workers while Python starts in them.
PROGRAM = textwrap.dedent(
    """
    import multiprocessing, os, signal, sys, time
    from step_jax.interruption import end_silently, starting_workers

    def work():
        end_silently()
        time.sleep(60)

    if __name__ == "__main__":
        for delay in (0, 0.02, 0.03, 0.04, 0.05, 0.06, 0.07):
            worker = multiprocessing.get_context("spawn").Process(target=work)
            with starting_workers():
                worker.start()
            time.sleep(delay)
            os.kill(worker.pid, signal.SIGINT)
            worker.join(30)
            print(worker.exitcode)
    """
)


def test_a_worker_that_is_still_starting_ends_without_a_word(tmp_path):
    path = tmp_path / "program.py"
    path.write_text(PROGRAM)
    environment = os.environ | {"PYTHONPATH": os.getcwd()}
    done = subprocess.run(
        [sys.executable, path], capture_output=True, text=True, env=environment, timeout=60
    )
    assert done.stdout.split() == [str(-signal.SIGINT)] * 7
    assert done.stderr == ""
