"""train.py with the cheap step of test_train.py, as a program that several processes run."""

from __future__ import annotations

import os
import sys

import pytest
import test_train
import tiny_run


def keep_stdout_for_python() -> None:
    """What native code prints goes to stderr: Gloo's threads print lines into one another."""
    sys.stdout = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)


if __name__ == "__main__":
    keep_stdout_for_python()
    with pytest.MonkeyPatch.context() as patch:
        test_train.make_cheap(patch)
        tiny_run.run("train")
