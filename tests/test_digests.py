"""Digests differ where anything does."""

import numpy as np

from step_jax.digests import digest


def test_digests_differ_where_anything_does(tmp_path):
    (tmp_path / "a").write_text("text")
    trees = [
        {"a": np.zeros(4, np.float32)},
        {"b": np.zeros(4, np.float32)},
        {"a": np.zeros((2, 2), np.float32)},
        {"a": np.zeros(4, np.int32)},
        {"a": np.array([0, 0, 0, -0.0], np.float32)},
    ]
    found = [digest(tree) for tree in trees] + [digest(tmp_path / "a"), digest()]
    assert len(set(found)) == len(found)
    assert digest(trees[0]) == digest({"a": np.zeros(4, np.float32)})
