"""Processes that prepare videos on one machine; what kills one of them costs its video alone."""

from __future__ import annotations

import multiprocessing
import multiprocessing.connection
import pathlib
from collections import deque
from collections.abc import Sequence

import cv2
import tqdm

from input_pipeline.ava import seconds
from input_pipeline.ava.report import write_report
from input_pipeline.ava.shards import ShardJob, prepare_video
from step_jax.interruption import end_silently, starting_workers

_LOOK_EVERY_S = 0.5


def run_jobs(jobs: Sequence[ShardJob], *, workers: int):
    """Prepares the videos; each job's report says what became of it.

    workers: processes; 1 works in this one, which a video that crashes the decoder takes along.

    Shows the seconds of movie that are done, and the time left. Raises OSError if the disk does not
    take a file; what is finished stays.
    """
    total = len(jobs) * (seconds.STOP_SECOND - seconds.FIRST_SECOND)
    with tqdm.tqdm(desc="movies", unit="s", total=total, mininterval=1.0) as progress:
        if workers == 1:
            for job in jobs:
                prepare_video(job, progress.update)
        else:
            _run(deque(jobs), min(workers, len(jobs)), progress)


def _run(jobs: deque[ShardJob], workers: int, progress: tqdm.tqdm):
    context = multiprocessing.get_context("spawn")  # TensorFlow's threads do not survive a fork
    done = context.Value("d", 0.0)
    running = [_Worker(context, done) for _ in range(workers)]
    try:
        for worker in running:
            worker.give(jobs.popleft())
        while running:
            ready = multiprocessing.connection.wait(
                [worker.connection for worker in running], timeout=_LOOK_EVERY_S
            )
            progress.update(done.value - progress.n)
            for worker in [each for each in running if each.connection in ready]:
                lives = worker.take_result()
                if jobs and lives:
                    worker.give(jobs.popleft())
                    continue
                running.remove(worker)
                worker.stop()
                if jobs:
                    running.append(_Worker(context, done))
                    running[-1].give(jobs.popleft())
    finally:
        for worker in running:
            worker.stop()


class _Worker:
    """A process that prepares one video after the other."""

    def __init__(self, context: multiprocessing.context.SpawnContext, done):
        """done: a shared number, to which it adds the seconds of movie that it does."""
        self.connection, theirs = context.Pipe()
        self._process = context.Process(target=_serve, args=(theirs, done), daemon=True)
        with starting_workers():
            self._process.start()
        theirs.close()  # so that its death ends the connection

    def give(self, job: ShardJob):
        self._job = job
        self.connection.send(job)

    def take_result(self) -> bool:
        """Whether the process lives on; the job it died of is reported. Raises its OSError."""
        try:
            error = self.connection.recv()
        except (EOFError, ConnectionResetError):
            self._process.join()
            self._report_death()
            return False
        if error is not None:
            raise error
        return True

    def stop(self):
        self._process.terminate()
        self._process.join()
        self.connection.close()

    def _report_death(self):
        code = self._process.exitcode
        how = f"was killed (signal {-code})" if code < 0 else f"ended (status {code})"
        error = (
            f"{self._job.source}: the process that prepared it {how}: a file that crashes the "
            "decoder, or too little memory; run again with fewer --workers"
        )
        write_report(pathlib.Path(self._job.report), self._job.failed(error))


def _serve(connection: multiprocessing.connection.Connection, done):
    end_silently()
    cv2.setNumThreads(1)  # the cores have a process each

    def count(number: float):
        with done.get_lock():
            done.value += number

    while True:
        try:
            job = connection.recv()
        except EOFError:
            return  # the command has ended
        try:
            prepare_video(job, count)
        except OSError as error:
            connection.send(error)
        else:
            connection.send(None)
