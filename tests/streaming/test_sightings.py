import itertools

import numpy as np

from step_jax.streaming.frame_detections import FrameBoxes
from step_jax.streaming.sightings import Sightings


def boxes(scores_of_label):
    pairs = [(label, score) for label, scores in scores_of_label.items() for score in scores]
    label, score = np.array(pairs, float).reshape(-1, 2).T
    return FrameBoxes(
        np.zeros(len(pairs), int), label.astype(int), score, np.zeros((len(pairs), 4))
    )


def test_runs_and_counts_against_brute_force():
    rng = np.random.default_rng(0)
    for density in (0.2, 0.5, 0.9):
        present = rng.random((30, 2)) < density
        scores = rng.random((30, 2))
        sightings = Sightings()
        for frame in range(30):
            shown = {c: [scores[frame, c]] for c in range(2) if present[frame, c]}
            sightings.add(frame, boxes(shown))
        for label, seen in sightings.best_first():
            frames = np.flatnonzero(present[:, label])
            runs = [(key, len(list(group))) for key, group in itertools.groupby(present[:, label])]
            assert seen.frames == len(frames)
            assert (seen.first, seen.last) == (frames[0], frames[-1])
            assert seen.longest_run == max(length for key, length in runs if key)
            run = present[seen.longest_start : seen.longest_start + seen.longest_run, label]
            assert run.all()
            assert seen.best_score == scores[present[:, label], label].max()
            assert scores[seen.best_frame, label] == seen.best_score


def test_several_boxes_of_a_class_count_once():
    sightings = Sightings()
    sightings.add(4, boxes({1: [0.5, 0.75], 0: [0.25]}))
    (first, seen), (second, _) = sightings.best_first()
    assert (first, second) == (1, 0)
    assert seen.to_json() == {
        "frames": 1,
        "first": 4,
        "last": 4,
        "best_score": 0.75,
        "best_frame": 4,
        "longest_run": 1,
        "longest_start": 4,
    }


def test_the_best_is_known_even_if_nothing_is_shown():
    sightings = Sightings()
    sightings.consider({"score": np.array([0.1, 0.25]), "class": np.array([3, 5])})
    sightings.consider({"score": np.array([0.2]), "class": np.array([1])})
    sightings.consider({"score": np.zeros(0), "class": np.zeros(0, int)})
    assert (sightings.best_label, sightings.best_score) == (5, 0.25)
    assert sightings.best_first() == []
