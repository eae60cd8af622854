"""The training step: its loss against loops, where gradients flow, and any number of devices."""

import dataclasses
import functools
import itertools
import math

import flax.linen as nn
import jax
import minute
import numpy as np
import optax
import pytest

from step_jax import parallel
from step_jax.accumulation import check_accumulation
from step_jax.detector_loss import normalise_clips, total_loss
from step_jax.errors import InputError
from step_jax.loss_options import LossOptions, check_options
from step_jax.step_samples import infer_candidates
from step_jax.train_state import create_train_state
from step_jax.train_step import make_train_step
from step_jax.training_targets import targets_of

B, M = 4, len(minute.initial_tubes())
# Every proposal is sampled, so that nothing is left to chance.
EVERYTHING = LossOptions(
    thresholds=(0.1, 0.2, 0.3),
    localization_weight=3.0,
    anticipation_weight=2.0,
    max_positives=M,
    negatives_per_positive=M,
    background_negatives=M,
)


@pytest.fixture(scope="module", autouse=True)
def _quick_compilation():
    with minute.quick_compilation():
        yield


def make_batch(detector, *, tubes=3, multi_label=False, seed=0):
    """Moving tubes that come and go; the second clip has one, the last is background."""
    rng = np.random.default_rng(seed)
    frames = detector.plan.longest
    start = minute.random_boxes(rng, B, tubes, 1)
    motion = np.tile(rng.uniform(-0.7, 0.7, (B, tubes, 1, 2)), 2) * np.arange(frames)[:, None]
    tube_mask = np.ones((B, tubes), bool)
    tube_mask[1, 1:] = tube_mask[3] = False
    box_mask = rng.uniform(size=(B, tubes, frames)) < 0.7
    box_mask[:, :, frames // 2] = True
    box_mask &= tube_mask[..., None]
    labels = np.eye(minute.CLASSES)[rng.integers(0, minute.CLASSES, (B, tubes))]
    if multi_label:
        labels = np.maximum(labels, rng.uniform(size=labels.shape) < 0.3)
    return {
        "clips": minute.random_clips(detector, batch_size=B, seed=seed),
        "boxes": np.where(box_mask[..., None], start + motion, 0).astype(np.float32),
        "box_mask": box_mask,
        "labels": (labels * tube_mask[..., None]).astype(np.float32),
        "tube_mask": tube_mask,
        "example_mask": np.ones(B, bool),
    }


def on_devices(number, tree):
    return jax.tree.map(lambda leaf: leaf.reshape(number, -1, *leaf.shape[1:]), tree)


# The loss against loops over single boxes.


def iou(a, b):
    width = max(min(a[2], b[2]) - max(a[0], b[0]), 0)
    height = max(min(a[3], b[3]) - max(a[1], b[1]), 0)
    areas = [(box[2] - box[0]) * (box[3] - box[1]) for box in (a, b)]
    return width * height / (sum(areas) - width * height)


def encoded(box, reference):
    w, h = reference[2] - reference[0] + 1, reference[3] - reference[1] + 1
    gw, gh = box[2] - box[0] + 1, box[3] - box[1] + 1
    x = (box[0] + gw / 2 - reference[0] - w / 2) / w
    y = (box[1] + gh / 2 - reference[1] - h / 2) / h
    return [x, y, math.log(gw / w), math.log(gh / h)]


def smooth_l1(x):
    return 0.5 * x * x if abs(x) < 1 else abs(x) - 0.5


def overlap(fed, boxes, mask, counted="all"):
    """Mean IoU over the frames of the target clip, or its middle one, that have a box."""
    before = 1 if counted == "all" else 0  # of the two frames of a chunk, the second is the middle
    inner = [
        frames[len(frames) // 2 - before : len(frames) // 2 + 1] for frames in (fed, boxes, mask)
    ]
    values = [iou(a, b) for a, b, exists in zip(*inner, strict=True) if exists]
    return sum(values) / len(values) if values else 0.0


def assigned(overlaps, threshold):
    """{proposal: tube} of the positives, and the negatives; `overlaps` is `[tubes][proposals]`."""
    claimed = set()
    for tube in sorted(overlaps, key=max, reverse=True):
        free = [m for m in range(M) if m not in claimed and tube[m] > 0]
        if free:
            claimed.add(max(free, key=lambda m: tube[m]))
    columns = [[tube[m] for tube in overlaps] for m in range(M)]
    positives = {
        m: column.index(max(column))
        for m, column in enumerate(columns)
        if column and (m in claimed or max(column) > threshold)
    }
    if overlaps and not positives:
        return {}, []
    return positives, [m for m in range(M) if m not in positives]


class Mean:
    def __init__(self):
        self.total, self.count = 0.0, 0

    def add(self, value):
        self.total, self.count = self.total + value, self.count + 1

    def value(self):
        return self.total / max(self.count, 1)


def classify(detector, loss, logits, label):
    """`label` is None for a negative."""
    if detector.classification == "softmax":
        index = 0 if label is None else list(label).index(1) + 1
        loss.add(-math.log(math.exp(logits[index]) / sum(math.exp(v) for v in logits)))
        return
    for k, logit in enumerate(logits):
        p = 1 / (1 + math.exp(-logit))
        loss.add(-math.log(p if label is not None and label[k] else 1 - p))


def localize(loss, deltas, references, boxes, mask, label):
    index = list(label).index(1) if deltas.shape[1] > 1 else 0
    for delta, reference, box, exists in zip(deltas, references, boxes, mask, strict=True):
        if exists:
            for ours, wanted in zip(delta[index], encoded(box, reference), strict=True):
                loss.add(smooth_l1(ours - wanted))


def slow_terms(detector, batch, outputs, step, counted="all"):
    """{term: Mean} of one step, from what the detector says of all proposals."""
    middle = detector.plan.longest // 2
    terms = {"classification": Mean(), "localization": Mean(), "anticipation": Mean()}
    k, window = minute.CHUNK, detector.plan.window(step)
    fed, head = outputs[step]
    for b in np.flatnonzero(batch["example_mask"]):
        real = np.flatnonzero(batch["tube_mask"][b])
        if counted == "middle":
            real = [g for g in real if batch["box_mask"][b, g, middle]]
        truth = [(batch["boxes"][b, g], batch["box_mask"][b, g]) for g in real]
        overlaps = [[overlap(fed[b, m], *tube, counted) for m in range(M)] for tube in truth]
        positives, negatives = assigned(overlaps, EVERYTHING.thresholds[step])
        for m in negatives:
            classify(detector, terms["classification"], head.logits[b, m], None)
        for m, tube in positives.items():
            boxes, mask = truth[tube]
            inside, around = mask, mask
            if counted == "middle":
                frames = np.arange(detector.plan.longest)
                inside, around = mask & (frames == middle), mask & (frames % k == k // 2)
            label = batch["labels"][b, real[tube]]
            classify(detector, terms["classification"], head.logits[b, m], label)

            def add(name, deltas, references, frames, mask, tube=(boxes, label)):
                boxes, label = tube
                localize(terms[name], deltas, references, boxes[frames], mask[frames], label)

            add("localization", head.deltas[b, m], fed[b, m], window, inside)
            if head.first is not None:
                before = slice(window.start - k, window.start)
                after = slice(window.stop, window.stop + k)
                add("anticipation", head.first[b, m], fed[b, m][:k], before, around)
                add("anticipation", head.last[b, m], fed[b, m][-k:], after, around)
    return terms


def slow_histogram(detector, batch, fed, counted):
    """Figure 4: proposals by their best overlap, in tenths."""
    bins = [0] * 10
    for b in np.flatnonzero(batch["example_mask"] & batch["tube_mask"].any(axis=1)):
        for tube in fed[b]:
            best = 0.0
            for g in np.flatnonzero(batch["tube_mask"][b]):
                truth = batch["boxes"][b, g], batch["box_mask"][b, g]
                best = max(best, overlap(tube, *truth, counted))
            bins[min(int(best * 10), 9)] += 1
    return bins


def check_candidates(detector, batch, outputs, candidates, counted):
    """What is sampled from: the tubes of each step, scored by what the step before said."""
    assert len(candidates) == len(outputs)
    for step, (tubes, scores) in enumerate(candidates):
        np.testing.assert_allclose(tubes, outputs[step].fed, atol=1e-3)
        if step > 0:
            best = np.asarray(detector.class_scores(outputs[step - 1])).max(axis=-1)
            np.testing.assert_allclose(scores, best, atol=1e-5)
    for b, m in itertools.product(np.flatnonzero(batch["example_mask"]), range(M)):
        truth = [(batch["boxes"][b, g], batch["box_mask"][b, g]) for g in range(3)]
        overlaps = [overlap(outputs[0].fed[b, m], *tube, counted) for tube in truth]
        assert candidates[0].scores[b, m] == pytest.approx(max(overlaps), abs=1e-5)


@pytest.mark.parametrize(
    ("changes", "counted"),
    [
        pytest.param({"extension_plan": (False, True, True)}, "all", marks=pytest.mark.slow),
        (
            {
                "extension_plan": (False, False, True),
                "classification": "sigmoid",
                "regression": "agnostic",
                "scene_context": False,
            },
            "middle",
        ),
    ],
    ids=["softmax", "sigmoid"],
)
def test_the_loss_is_the_loops(changes, counted):
    detector = minute.detector(**changes)
    options = dataclasses.replace(EVERYTHING, frames=counted)
    batch = make_batch(detector, multi_label=detector.classification == "sigmoid")
    if counted == "middle":
        batch["box_mask"][0, 0, detector.plan.longest // 2] = False
        batch["example_mask"][2] = False
    variables = minute.random_variables(detector)
    proposals = minute.initial_tubes()

    @jax.jit
    def infer(variables, batch):
        clips, targets = normalise_clips(batch["clips"]), targets_of(batch, temporal_stride=1)
        features = detector.apply(variables, clips, method="features")
        candidates = infer_candidates(
            detector, variables, features, proposals, targets,
            image_size=clips.shape[2:4], options=options,
        )  # fmt: skip
        return detector.apply(variables, clips, proposals), candidates

    outputs, candidates = jax.tree.map(np.asarray, infer(variables, batch))
    check_candidates(detector, batch, outputs, candidates, counted)

    def loss(params, batch, key):
        total, (metrics, _) = total_loss(
            params, {}, detector, proposals, batch, key, options=options
        )
        return total, metrics

    total, metrics = parallel.data_parallel(loss)(
        variables["params"], on_devices(1, batch), jax.random.key(0)
    )
    expected = 0.0
    weights = {"classification": 1.0, "localization": 3.0, "anticipation": 2.0}
    for step in range(3):
        for name, term in slow_terms(detector, batch, outputs, step, counted).items():
            key = f"{name}_{step + 1}"
            assert (key in metrics) == (name != "anticipation" or detector.plan.grows_after(step))
            if key in metrics:
                assert term.count > 0, key
                assert metrics[key][1] == term.count, key
                assert metrics[key][0] == pytest.approx(term.total, rel=1e-4), key
                expected += weights[name] * term.value()
        histogram = slow_histogram(detector, batch, outputs[step].fed, counted)
        np.testing.assert_array_equal(metrics[f"overlap_histogram_{step + 1}"][0], histogram)
        assert metrics[f"overlap_histogram_{step + 1}"][1] == sum(histogram) > 0
        assert metrics[f"positives_{step + 1}"][1] == batch["example_mask"].sum()
    assert total == pytest.approx(expected, rel=1e-4)
    assert metrics["loss"] == pytest.approx((expected, 1), rel=1e-4)


# Training on the annotated tubes themselves.


def test_ground_truth_as_samples():
    """The classes of the tubes alone are learned, fed with each frame's nearest box."""
    detector = minute.detector(extension_plan=(False,), classification="sigmoid")
    batch = make_batch(detector, multi_label=True)
    batch["box_mask"][0, :, 0] = [True, False, False]
    batch["box_mask"][0, :, 1] = [False, True, False]  # the third is there, without a box
    variables = minute.random_variables(detector)
    options = LossOptions(thresholds=(0.2,), samples="ground_truth")

    def loss(params, batch, key):
        total, (metrics, _) = total_loss(params, {}, detector, None, batch, key, options=options)
        return total, metrics

    def all_of(variables, clips, tubes):
        features = detector.apply(variables, normalise_clips(clips), method="features")
        return detector.apply(variables, 0, features, tubes, method="refine").head.logits

    total, metrics = parallel.data_parallel(loss)(
        variables["params"], on_devices(1, batch), jax.random.key(0)
    )
    tubes, wanted = np.zeros((B, 3, minute.CHUNK, 4), np.float32), Mean()
    present = np.argwhere(batch["tube_mask"] & batch["box_mask"].any(axis=-1))
    for b, g in present:
        there = np.flatnonzero(batch["box_mask"][b, g])
        for frame in range(minute.CHUNK):
            nearest = min(there, key=lambda other, frame=frame: abs(other - frame))
            tubes[b, g, frame] = batch["boxes"][b, g, nearest]
    logits = jax.jit(all_of)(variables, batch["clips"], tubes)
    for b, g in present:
        classify(detector, wanted, np.asarray(logits[b, g]), batch["labels"][b, g])
    assert len(present) == 3 - 1 + 1 + 3
    assert metrics["classification_1"] == pytest.approx((wanted.total, wanted.count), rel=1e-4)
    assert total == pytest.approx(wanted.value(), rel=1e-4)
    assert metrics["negatives_1"][0] == 0
    assert not {"localization_1", "anticipation_1"} & metrics.keys()


# Gradients, term by term.


class Terms:
    """Terms of a detector of two steps, and the gradient of any sum of them; every proposal."""

    def __init__(self):
        self.detector = minute.detector()
        self.params = minute.random_variables(self.detector)["params"]
        self._run = parallel.data_parallel(self._values_and_gradient)

    def _values_and_gradient(self, params, batch, key, weights):
        def sums(params):
            _, (metrics, _) = total_loss(
                params, {}, self.detector, minute.initial_tubes(), batch, key, options=EVERYTHING
            )
            return {name: metrics[name][0] for name in weights}

        values, pull_back = jax.vjp(sums, params)
        return values, pull_back(weights)[0]

    NAMES = (
        *("classification_1", "localization_1", "anticipation_1"),
        *("classification_2", "localization_2"),
    )

    def __call__(self, batch, *names):
        """({term: value}, gradient of the sum of the named terms)."""
        weights = {name: np.float32(name in names) for name in self.NAMES}
        return jax.tree.map(
            np.asarray, self._run(self.params, on_devices(1, batch), jax.random.key(0), weights)
        )


@pytest.fixture(scope="module")
def terms():
    return Terms()


def largest(tree):
    return max(abs(leaf).max() for leaf in jax.tree.leaves(tree))


@pytest.mark.parametrize("name", Terms.NAMES)
def test_a_term_trains_the_backbone_and_its_own_head(terms, name):
    """What one step feeds to the next carries no gradient (Section 3.4)."""
    _, gradient = terms(make_batch(terms.detector, tubes=2), name)
    own, other = ("heads_0", "heads_1") if name.endswith("1") else ("heads_1", "heads_0")
    assert largest(gradient[own]) > 1e-3
    assert largest(gradient["backbone"]) > 1e-3
    assert largest(gradient[other]) == 0


def test_padded_tubes_change_nothing_whatever_they_hold(terms):
    batch = make_batch(terms.detector, tubes=2)
    padded = make_batch(terms.detector, tubes=4, seed=1) | {"clips": batch["clips"]}
    padded["boxes"][:, 1:3] = np.nan
    padded["boxes"][:, 1, 0] = 1e30
    padded["labels"][:, 1:3] = 1
    for name in ("box_mask", "tube_mask"):
        padded[name][:] = False
    for name in ("boxes", "box_mask", "labels", "tube_mask"):
        padded[name][:, [0, 3]] = batch[name]
    values, gradient = terms(batch, *terms.NAMES)
    padded_values, padded_gradient = terms(padded, *terms.NAMES)
    for name in terms.NAMES:
        assert padded_values[name] == pytest.approx(values[name], rel=1e-5), name
    for ours, theirs in zip(*map(jax.tree.leaves, (padded_gradient, gradient)), strict=True):
        np.testing.assert_allclose(ours, theirs, atol=1e-5 * largest(gradient))


# Updates.


class Training:
    """A detector with dropout and sampling by chance, on some devices, in some parts."""

    def __init__(self):
        head_options = minute.MODEL["head_options"] | {
            "global_features": (8, 8),
            "local_features": (12, 12),
            "dropout": 0.1,
        }
        backbone_options = {"stem_features": 8, "features": 8, "num_blocks": 0}
        self.detector = minute.detector(
            head_options=head_options, backbone_options=backbone_options
        )
        # A larger epsilon than usual: rounding must not decide the sign of an update.
        self.optimizer = optax.adam(1e-2, eps=1e-4)
        self.before = minute.initial_variables(self.detector)
        options = LossOptions(
            thresholds=(0.2, 0.35), max_positives=2, localization_weight=30, anticipation_weight=5
        )
        make = functools.partial(
            make_train_step,
            self.detector,
            self.optimizer,
            proposals=minute.initial_tubes(),
            options=options,
        )
        self._steps = {n: parallel.data_parallel(make(accumulate=n)) for n in (1, 2)}

    def run(self, batch, *, devices, updates, parts=1, first_step=0, state=None):
        """The state after some updates on one batch, of `state` or a new one; metrics of each."""
        if state is None:
            mesh = jax.sharding.Mesh(jax.devices()[:devices], (parallel.DATA_AXIS,))
            everywhere = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec())
            state = create_train_state(self.before, self.optimizer)
            state = jax.device_put(state.replace(step=np.int32(first_step)), everywhere)
        metrics = []
        for number in range(first_step + 1, first_step + updates + 1):
            share = on_devices(devices, batch | {"number": np.full(B, number, np.int32)})
            state, last = self._steps[parts](state, share, jax.random.key(5))
            metrics.append(jax.tree.map(np.asarray, last))
        return state, metrics


@pytest.fixture(scope="module")
def training():
    return Training()


def check_metrics(found, wanted):
    for name, value in wanted.items():
        for ours, theirs in zip(jax.tree.leaves(found[name]), jax.tree.leaves(value), strict=True):
            np.testing.assert_allclose(ours, theirs, rtol=1e-3, atol=1e-5, err_msg=name)


def test_devices_and_parts_make_no_difference(training):
    """Clips have 0, 1 and 2 tubes, so that no two parts weigh the same."""
    batch = make_batch(training.detector, tubes=2)
    one, metrics = training.run(batch, devices=1, updates=4)
    many, others = training.run(batch, devices=2, parts=2, updates=4)
    for ours, theirs in zip(metrics, others, strict=True):
        assert ours.keys() == theirs.keys()
        check_metrics(theirs, ours)
    assert int(one.step) == int(many.step) == 4
    for ours, theirs in zip(*map(jax.tree.leaves, (one.params, many.params)), strict=True):
        np.testing.assert_allclose(ours, theirs, atol=1e-4)


def test_an_update_changes_every_parameter(training):
    batch = make_batch(training.detector, tubes=2)
    state, (metrics,) = training.run(batch, devices=1, updates=1)
    before = training.before["params"]
    for ours, theirs in zip(*map(jax.tree.leaves, (state.params, before)), strict=True):
        assert (np.asarray(ours) != theirs).any()
    assert metrics["positives_1"][1] == B
    assert metrics["gradient_norm"] > 0


def test_chance_is_a_function_of_the_step(training):
    batch = make_batch(training.detector, tubes=2)
    first, again, later = (
        training.run(batch, devices=1, updates=1, first_step=step)[1][0] for step in (3, 3, 4)
    )
    check_metrics(again, first)
    assert later["loss"] != first["loss"]


def test_nothing_is_learned_from_an_example_that_is_left_out(training):
    """Whatever it holds, nothing changes but who is counted."""
    batch = make_batch(training.detector, tubes=2)
    batch["example_mask"][0] = False
    others = {name: value.copy() for name, value in batch.items()}
    others["clips"][0] = 7
    others["labels"][0] = others["box_mask"][0] = others["tube_mask"][0] = 0
    states, metrics = zip(
        *(training.run(one, devices=1, updates=1) for one in (batch, others)), strict=True
    )
    check_metrics(metrics[0][0], metrics[1][0])
    assert metrics[0][0]["positives_1"][1] == B - 1
    assert metrics[0][0]["skipped"] == (1, B)
    leaves = zip(*(jax.tree.leaves(state.params) for state in states), strict=True)
    for ours, theirs in leaves:
        np.testing.assert_allclose(ours, theirs, atol=1e-6)


def test_a_broken_step_changes_nothing_and_neither_do_those_after_it(training):
    """The next step is dispatched before the host knows; it must not move on without this one."""
    good = make_batch(training.detector, tubes=2)
    broken = good | {"boxes": good["boxes"].copy()}
    broken["boxes"][:, :, [0, -1]] = np.inf  # not in the clip that overlaps are taken of
    before, _ = training.run(good, devices=1, updates=1)
    after, (metrics,) = training.run(broken, devices=1, updates=1, state=before, first_step=1)
    assert not np.isfinite(metrics["loss"][0])
    later, (metrics,) = training.run(good, devices=1, updates=1, state=after, first_step=2)
    assert np.isfinite(metrics["loss"][0])
    for state in (after, later):
        for ours, theirs in zip(jax.tree.leaves(state), jax.tree.leaves(before), strict=True):
            np.testing.assert_array_equal(ours, theirs)
    state, _ = training.run(good, devices=1, updates=1, state=later, first_step=1)
    assert int(state.step) == 2


def test_a_batch_is_learned(training):
    """Bright squares: the boxes that step 1 makes, and step 2 is fed, come to lie on them."""
    batch = make_batch(training.detector, tubes=2)
    batch["clips"] //= 4
    for b, g in np.argwhere(batch["tube_mask"]):
        for frame, box in enumerate(batch["boxes"][b, g]):
            x1, y1, x2, y2 = np.clip(box, 0, minute.SIDE).astype(int)
            batch["clips"][b, frame, y1:y2, x1:x2] += 120
    _, metrics = training.run(batch, devices=1, updates=100)
    losses = [step["loss"][0] for step in metrics]
    covered = [step["overlap_2"][0] / step["overlap_2"][1] for step in metrics]
    assert np.mean(losses[-5:]) < 0.15 * losses[0]
    assert covered[0] < 0.4
    assert np.mean(covered[-5:]) > 0.7


class NormalisedMeans(minute.PatchMeans):
    """Patch means, normalised by the statistics of the batch."""

    spatial_stride = 8
    temporal_stride = 2

    @nn.compact
    def __call__(self, clips, *, train=False):
        norm = nn.BatchNorm(axis_name=parallel.DATA_AXIS, momentum=0.5)
        return norm(super().__call__(clips), use_running_average=not train)


def test_running_statistics_are_updated_by_the_whole_batch():
    detector = minute.detector().clone(backbone=NormalisedMeans())
    batch = make_batch(detector, tubes=2)
    for name in ("boxes", "box_mask"):
        batch[name] = np.repeat(batch[name], 2, axis=2)
    optimizer = optax.sgd(0.1)
    options = LossOptions(thresholds=(0.2, 0.35))
    step = make_train_step(detector, optimizer, proposals=minute.initial_tubes(), options=options)
    state = create_train_state(minute.initial_variables(detector), optimizer)
    state, _ = parallel.data_parallel(step)(state, on_devices(4, batch), jax.random.key(0))
    found = state.model_state["batch_stats"]["backbone"]["BatchNorm_0"]
    means = minute.PatchMeans().apply({}, normalise_clips(batch["clips"])).reshape(-1, 3)
    np.testing.assert_allclose(found["mean"], 0.5 * means.mean(axis=0), atol=1e-5)
    # The variance begins at 0 here, `initial_variables` does not know it.
    np.testing.assert_allclose(found["var"], 0.5 * means.var(axis=0), atol=1e-5)


def test_statistics_of_the_batch_are_not_learned_in_parts():
    with pytest.raises(InputError, match=r"train.accumulate is 2.*options.norm 'frozen'"):
        check_accumulation(2, {"params": {}, "batch_stats": {}})
    check_accumulation(1, {"params": {}, "batch_stats": {}})
    check_accumulation(2, {"params": {}, "frozen": {}})
    with pytest.raises(InputError, match=r"train.accumulate is 0; expected 1 or more"):
        check_accumulation(0, {"params": {}})


# Small parts.


def test_clips_are_normalised_to_one():
    found = normalise_clips(np.array([0, 51, 255], np.uint8))
    np.testing.assert_allclose(found, [-1, -0.6, 1], atol=1e-6)
    assert found.dtype == np.float32


def test_a_missing_threshold_is_refused():
    options = dataclasses.replace(EVERYTHING, thresholds=(0.2,))
    with pytest.raises(InputError, match=r"loss.thresholds \(0.2,\): expected .* 2 steps"):
        make_train_step(
            minute.detector(), optax.sgd(1), proposals=minute.initial_tubes(), options=options
        )


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"samples": "ground_truth"}, "'ground_truth' with 2 steps: .* one step"),
        ({"samples": "boxes"}, "loss.samples 'boxes': expected one of proposals, ground_truth"),
        ({"frames": "first"}, "loss.frames 'first': expected one of all, middle"),
        ({"positive_weights": "softmax"}, "positive_weights 'softmax': expected one of score"),
    ],
)
def test_options_that_mean_nothing(changes, message):
    with pytest.raises(InputError, match=message):
        check_options(dataclasses.replace(EVERYTHING, **changes), num_steps=2)
