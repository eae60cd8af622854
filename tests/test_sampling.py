"""Sampling against sequential draws, greedy loops, and the rules of Section 3.4 one by one."""

import functools
import itertools

import jax
import minute
import numpy as np
import pytest

from step_jax import sampling
from step_jax.errors import InputError

G, M = 5, 9  # tubes and proposals
TIMES = 4000  # problems at once; one shape for all tests, so as to compile once
CHECKED = 200  # of them, where loops check each
DEFAULTS = {"max_positives": 3, "negatives_per_positive": 2, "background_negatives": 4}


@pytest.fixture(scope="module", autouse=True)
def _quick_compilation():
    with minute.quick_compilation():
        yield


@functools.lru_cache
def compiled(**options):
    def sample(key, overlaps, mask, scores, threshold):
        return sampling.sample_proposals(
            key, overlaps, mask, scores, threshold=threshold, **DEFAULTS | options
        )

    return jax.jit(jax.vmap(sample, in_axes=(0, 0, 0, 0, None)))


def sample_each(overlaps, mask, scores, *, threshold=0.5, seed=0, **options):
    """Samples of many problems, leading dimension first, as NumPy arrays."""
    keys = jax.random.split(jax.random.key(seed), len(overlaps))
    samples = compiled(**options)(keys, overlaps, mask, scores, threshold)
    return jax.tree.map(np.asarray, samples)


def sample_often(overlaps, scores, *, times=TIMES, **arguments):
    """Samples of one problem of up to G tubes, with many keys."""
    mask = np.arange(G) < len(overlaps)
    overlaps = np.concatenate([overlaps, np.zeros((G - len(overlaps), M))])
    problem = [np.float32(overlaps), mask, np.float32(scores)]
    return sample_each(*(np.repeat(x[None], times, 0) for x in problem), **arguments)


def chosen(samples, kind, problem=0):
    return list(samples.index[problem][getattr(samples, kind)[problem]])


def claims(overlaps, *, without_overlap=False):
    """{proposal: tube}: tubes choose in descending order of their best overlap."""
    taken = {}
    for tube in sorted(range(len(overlaps)), key=lambda g: (-max(overlaps[g]), g)):
        free = [m for m in range(len(overlaps[tube])) if m not in taken]
        if not free:
            break
        best = max(free, key=lambda m: (overlaps[tube][m], -m))
        if overlaps[tube][best] > 0 or without_overlap:
            taken[best] = tube
    return taken


def problems(*, seed=0):
    """Random overlaps with many ties and zeros, random masks and scores."""
    rng = np.random.default_rng(seed)
    overlaps = np.round(np.maximum(rng.uniform(-0.6, 1, (TIMES, G, M)), 0), 1)
    mask = rng.uniform(size=(TIMES, G)) < 0.5
    scores = rng.uniform(0.1, 1, (TIMES, M))
    return overlaps.astype(np.float32), mask, scores.astype(np.float32)


@pytest.mark.parametrize("without_overlap", [False, True])
@pytest.mark.parametrize("proposals", [M, 2])
def test_tubes_claim_greedily_and_distinctly(without_overlap, proposals):
    overlaps, mask, _ = problems()
    overlaps = np.where(mask[..., None], overlaps, -1)[..., :proposals]
    claim = functools.partial(sampling.claim_proposals, claim_without_overlap=without_overlap)
    claimer = np.asarray(jax.jit(jax.vmap(claim))(overlaps))[:CHECKED]
    overlaps, mask = overlaps[:CHECKED], mask[:CHECKED]
    for found, overlap, real in zip(claimer, overlaps, mask, strict=True):
        expected = np.full(proposals, -1)
        for proposal, tube in claims(overlap[real], without_overlap=without_overlap).items():
            expected[proposal] = np.flatnonzero(real)[tube]
        np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize(("keep_claims", "claim_without_overlap"), [(False, False), (True, True)])
def test_every_rule_on_random_problems(keep_claims, claim_without_overlap):
    overlaps, mask, scores = problems()
    options = {"keep_claims": keep_claims, "claim_without_overlap": claim_without_overlap}
    samples = sample_each(overlaps, mask, scores, **options)
    assert samples.index.shape == (TIMES, min(M, 3 + max(3 * 2, 4)))
    for i in range(CHECKED):
        overlap = np.where(mask[i][:, None], overlaps[i], -1)
        real = np.flatnonzero(mask[i])
        claimed = claims(overlaps[i][real], without_overlap=claim_without_overlap)
        claimed = {m: real[tube] for m, tube in claimed.items()}
        above = {m for m in range(M) if overlap[:, m].max() > 0.5}
        positives, negatives = chosen(samples, "positive", i), chosen(samples, "negative", i)
        assert len(set(positives + negatives)) == len(positives) + len(negatives)
        assert not (samples.positive[i] & samples.negative[i]).any()

        assert set(positives) <= claimed.keys() | above
        assert len(positives) == min(3, len(claimed.keys() | above))
        assert claimed.keys() <= set(positives) or set(positives) <= claimed.keys()

        assert not set(negatives) & (claimed.keys() | above)
        allowed = 2 * len(positives) if len(real) else 4
        assert len(negatives) == min(allowed, M - len(claimed.keys() | above))

        for slot in np.flatnonzero(samples.positive[i]):
            proposal = samples.index[i, slot]
            owner = overlap[:, proposal].argmax()
            if keep_claims:
                owner = claimed.get(proposal, owner)
            assert samples.tube[i, slot] == owner
        assert not samples.tube[i][~samples.positive[i]].any()


def test_exactly_the_threshold_is_a_negative():
    overlaps = [[0.75, 0.5, 0.51, 0.0] + [0.0] * (M - 4)]
    samples = sample_often(overlaps, [1.0] * M, threshold=0.5)
    assert all(set(chosen(samples, "positive", i)) == {0, 2} for i in range(TIMES))
    assert any(1 in chosen(samples, "negative", i) for i in range(TIMES))


def test_a_positive_belongs_to_the_tube_it_overlaps_most_or_to_its_claimer():
    """Tube 1 finds its best proposal taken and claims 1, which overlaps tube 0 more."""
    overlaps = np.zeros((2, M))
    overlaps[:, :2] = [[0.9, 0.7], [0.8, 0.6]]
    paper = sample_often(overlaps, [1.0] * M)
    assert dict(zip(paper.index[0], paper.tube[0], strict=True))[1] == 0
    released = sample_often(overlaps, [1.0] * M, keep_claims=True)
    assert dict(zip(released.index[0], released.tube[0], strict=True))[1] == 1


def test_a_tube_that_overlaps_nothing():
    overlaps = np.zeros((1, M))
    samples = sample_often(overlaps, [1.0] * M)
    assert not samples.positive.any()
    assert not samples.negative.any()  # twice as many as no positives
    samples = sample_often(overlaps, [1.0] * M, claim_without_overlap=True)
    assert (chosen(samples, "positive"), len(chosen(samples, "negative"))) == ([0], 2)


def test_more_tubes_than_positives_are_cut_at_random():
    overlaps = np.eye(5, M) * 0.9 + 0.05
    samples = sample_often(overlaps, [1.0] * M, threshold=0.02)
    counts = np.bincount(samples.index[samples.positive], minlength=M)
    assert not counts[5:].any()  # claimed ones come before others above the threshold
    assert counts.sum() == TIMES * 3
    assert (abs(counts[:5] / TIMES - 3 / 5) < 0.03).all()


def test_padding_changes_nothing_wherever_it_stands():
    _, _, scores = problems()
    overlaps = np.random.default_rng(3).uniform(size=(TIMES, G, M)).astype(np.float32)
    overlaps[:, 3:] = 0
    plain = sample_each(overlaps, np.repeat([np.arange(G) < 3], TIMES, 0), scores)
    places = np.array([4, 1, 2])
    padded = np.full_like(overlaps, np.nan)
    padded[:, 3] = 1e9
    padded[:, places] = overlaps[:, :3]
    mask = np.isin(np.arange(G), places)
    found = sample_each(padded, np.repeat(mask[None], TIMES, 0), scores)
    for name in ("index", "positive", "negative"):
        np.testing.assert_array_equal(getattr(found, name), getattr(plain, name))
    tubes = np.where(plain.positive, places[np.minimum(plain.tube, 2)], 0)
    np.testing.assert_array_equal(found.tube, tubes)


def set_probabilities(weights, size):
    """{set: probability} of drawing `size` one after the other, in proportion to the weights."""
    result = {}
    for order in itertools.permutations(range(len(weights)), size):
        probability, left = 1.0, sum(weights)
        for item in order:
            probability *= weights[item] / left
            left -= weights[item]
        key = tuple(sorted(order))
        result[key] = result.get(key, 0) + probability
    return result


def assert_frequencies(sets, expected):
    """Chi-square below the 1 in 10,000 quantile (normal approximation, generous)."""
    times = len(sets)
    assert set(sets) <= expected.keys()
    statistic = sum((sets.count(key) - times * p) ** 2 / (times * p) for key, p in expected.items())
    freedom = len(expected) - 1
    assert statistic < freedom + 4 * np.sqrt(2 * freedom) + 4


SCORES = np.array([0.9, 0.1, 0.3, 0.6, 0.2, 0.4, 0.8, 0.5, 0.7])


@pytest.mark.parametrize(
    ("negative_weights", "weights"),
    [("score", SCORES), ("softmax", np.exp(SCORES)), ("uniform", np.ones(M))],
)
def test_negatives_are_drawn_without_replacement_by_weight(negative_weights, weights):
    overlaps = np.zeros((1, M))
    overlaps[0, :4] = [0.9, 0.6, 0.6, 0.6]
    samples = sample_often(overlaps, SCORES, max_positives=1, negative_weights=negative_weights)
    negatives = [tuple(sorted(chosen(samples, "negative", i))) for i in range(TIMES)]
    expected = set_probabilities(weights[4:], 2)
    assert_frequencies(negatives, {tuple(4 + i for i in k): p for k, p in expected.items()})
    assert (samples.index[samples.positive] == 0).all()


@pytest.mark.parametrize(
    ("positive_weights", "weights"), [("score", SCORES), ("uniform", np.ones(M))]
)
def test_positives_are_drawn_by_weight_after_the_claimed_one(positive_weights, weights):
    overlaps = np.zeros((1, M))
    overlaps[0, :5] = [0.9, 0.6, 0.6, 0.6, 0.6]
    samples = sample_often(overlaps, SCORES, positive_weights=positive_weights)
    positives = [tuple(sorted(chosen(samples, "positive", i))) for i in range(TIMES)]
    expected = set_probabilities(weights[1:5], 2)
    assert_frequencies(positives, {(0, *(1 + i for i in k)): p for k, p in expected.items()})


RELEASED = {
    "positive_weights": "uniform",
    "negative_weights": "softmax",
    "background_negatives": 0,
    "keep_claims": True,
    "claim_without_overlap": True,
}


def test_the_released_rules_together():
    """Two tubes, one of which claims what overlaps nothing: {(positives, negatives): chance}."""
    overlaps = np.zeros((2, M))
    overlaps[0, [3, 4, 5]] = [0.9, 0.6, 0.7]
    overlaps[1, 6] = 0.3  # which the second tube claims, under the threshold
    options = RELEASED | {"negatives_per_positive": 1}
    samples = sample_often(overlaps, SCORES, times=20_000, **options)
    below = [0, 1, 2, 7, 8]
    negatives = set_probabilities(np.exp(SCORES[below]), 3)
    expected = {
        ((3, filled, 6), tuple(below[i] for i in three)): 0.5 * chance
        for filled in (4, 5)
        for three, chance in negatives.items()
    }
    found = [
        tuple(tuple(sorted(chosen(samples, kind, i))) for kind in ("positive", "negative"))
        for i in range(20_000)
    ]
    assert_frequencies(found, expected)
    owners = dict(zip(samples.index.ravel(), samples.tube.ravel(), strict=True))
    assert [owners[m] for m in (3, 4, 5, 6)] == [0, 0, 0, 1]


def test_more_claims_than_positives_in_the_released_rules():
    """They are cut uniformly; what lost is no negative either. A clip without tubes has none."""
    overlaps = np.eye(4, M) * [[0.9], [0.6], [0.0], [0.3]]
    samples = sample_often(overlaps, SCORES, times=20_000, **RELEASED)
    positives = [tuple(sorted(chosen(samples, "positive", i))) for i in range(20_000)]
    assert_frequencies(positives, dict.fromkeys(itertools.combinations(range(4), 3), 1 / 4))
    assert samples.index[samples.negative].min() >= 4
    assert not sample_often(np.zeros((0, M)), SCORES, times=20_000, **RELEASED).negative.any()


def test_all_tubes_as_their_own_samples():
    samples = sampling.all_tubes(np.array([True, False, True]))
    assert samples.index.tolist() == [0, 1, 2]
    assert samples.tube.tolist() == [0, 0, 2]
    assert samples.positive.tolist() == [True, False, True]
    assert not samples.negative.any()


def test_scores_of_zero_can_be_drawn():
    """At the first step of a clip without tubes all scores are 0."""
    samples = sample_often(np.zeros((0, M)), np.zeros(M))
    assert (samples.negative.sum(axis=1) == 4).all()
    counts = np.bincount(samples.index[samples.negative], minlength=M)
    assert (abs(counts / TIMES - 4 / M) < 0.03).all()


def test_keys_make_the_difference():
    overlaps, mask, scores = problems()
    first, again = (sample_each(overlaps, mask, scores, seed=1) for _ in range(2))
    np.testing.assert_array_equal(first.index, again.index)
    assert (first.index != sample_each(overlaps, mask, scores, seed=2).index).any()


def test_unknown_weights_are_refused():
    with pytest.raises(InputError, match="negative_weights 'hard': expected one of score, softmax"):
        sample_often(np.zeros((1, M)), [1.0] * M, negative_weights="hard")
