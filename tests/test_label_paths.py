"""The best labelling against all labellings there are, and what ties do."""

import itertools

import numpy as np
import pytest

from step_jax.label_paths import label_paths


def value(scores, labels, penalty):
    changes = sum(a != b for a, b in itertools.pairwise(labels))
    return sum(scores[t, label] for t, label in enumerate(labels)) - penalty * changes


def best_values(scores, penalty):
    """The values of all labellings, the highest first."""
    every = itertools.product(range(scores.shape[1]), repeat=len(scores))
    return sorted((value(scores, labels, penalty) for labels in every), reverse=True)


@pytest.mark.parametrize("num_labels", [2, 3, 4])
@pytest.mark.parametrize("penalty", [0, 0.3, 0.9, 5])
def test_no_labelling_is_better(num_labels, penalty):
    rng = np.random.default_rng(num_labels)
    lengths = [6, 1, 3, 7, 7, 2]
    offset = np.cumsum([0, *lengths])
    scores = rng.uniform(size=(offset[-1], num_labels))
    labels = label_paths(scores, offset, penalty=penalty)
    for start, stop in itertools.pairwise(offset):
        own = value(scores[start:stop], labels[start:stop], penalty)
        assert own == pytest.approx(best_values(scores[start:stop], penalty)[0])


def two_labels(*scores, penalty, preferred=0):
    scores = np.array(scores)
    columns = np.stack([scores, 1 - scores], axis=1)
    return label_paths(columns, np.array([0, len(scores)]), penalty=penalty, preferred=preferred)


def test_changes_cost_in_both_directions_and_the_ends_are_free():
    assert two_labels(0, 0, 1, 1, 0, 0, penalty=0.99).tolist() == [1, 1, 0, 0, 1, 1]
    assert two_labels(0, 0, 1, 1, 0, 0, penalty=1.01).tolist() == [1] * 6
    assert two_labels(1, 1, 0, 0, 0, penalty=1.99).tolist() == [0, 0, 1, 1, 1]  # one change
    assert two_labels(1, 1, 0, 0, 0, penalty=2.01).tolist() == [1] * 5


def test_a_tie_keeps_the_label():
    assert two_labels(1, 1, 0, 0, penalty=2).tolist() == [0] * 4  # 2 with or without the change
    assert two_labels(0.5, 0.5, 0.5, penalty=0).tolist() == [0, 0, 0]
    assert two_labels(1, 0.5, 0, penalty=0).tolist() == [0, 1, 1]  # kept, seen from the end
    assert two_labels(0.5, 0.5, penalty=1, preferred=1).tolist() == [1, 1]


def test_tubes_do_not_see_each_other_and_may_be_empty():
    rng = np.random.default_rng(0)
    offset = np.array([0, 0, 5, 5, 20, 21, 21])
    scores = rng.uniform(size=(21, 3))
    preferred = np.array([0, 2, 0, 1, 1, 0])
    together = label_paths(scores, offset, penalty=0.4, preferred=preferred)
    alone = [
        label_paths(scores[a:b], np.array([0, b - a]), penalty=0.4, preferred=p)
        for (a, b), p in zip(itertools.pairwise(offset), preferred, strict=True)
    ]
    np.testing.assert_array_equal(together, np.concatenate(alone))
    assert label_paths(np.zeros((0, 2)), np.array([0]), penalty=1).tolist() == []
