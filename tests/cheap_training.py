"""train.py with the cheap step of test_train.py, as a program that several processes run."""

from __future__ import annotations

import pytest
import test_train
import tiny_run

if __name__ == "__main__":
    with pytest.MonkeyPatch.context() as patch:
        test_train.make_cheap(patch)
        tiny_run.run("train")
