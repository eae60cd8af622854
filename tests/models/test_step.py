"""The progressive detector: lengths, what each step reads, and how one step feeds the next."""

import math

import jax
import minute
import numpy as np
import pytest

from step_jax.models.heads import HeadOutput
from step_jax.models.step import StepOutput, StepPlan

SIDE = minute.SIDE
GROWING, LATE = (False, True, True), (False, False, True)


@pytest.mark.parametrize(
    ("extends", "method", "lengths", "starts", "grows"),
    [
        (GROWING, "anticipate", [6, 18, 30], [12, 6, 0], [True, True, False]),
        (LATE, "extrapolate", [6, 6, 18], [6, 6, 0], [False, True, False]),
        (GROWING, "none", [6, 6, 6], [0, 0, 0], [False, False, False]),
        ((False,), "anticipate", [6], [0], [False]),
        ((0, 1), "mean", [6, 18], [6, 0], [True, False]),
        ((0, 1, 1, 0), "recursive", [6, 18, 30, 30], [12, 6, 0, 0], [True, True, False, False]),
    ],
)
def test_plan(extends, method, lengths, starts, grows):
    plan = StepPlan(6, extends, method)
    steps = range(len(lengths))
    assert plan.num_steps == len(lengths)
    assert [plan.length(step) for step in steps] == lengths
    assert plan.longest == lengths[-1]
    windows = [slice(a, a + n) for a, n in zip(starts, lengths, strict=True)]
    assert [plan.window(step) for step in steps] == windows
    assert [plan.grows_after(step) for step in steps] == grows
    anticipates = [grown and method == "anticipate" for grown in grows]
    assert [plan.anticipates(step) for step in steps] == anticipates
    frames = list(range(lengths[-1]))
    for window, length in zip(windows, lengths, strict=True):
        assert frames[window][plan.target(length)] == frames[plan.target(lengths[-1])]


@pytest.mark.parametrize(
    ("extends", "method", "message"),
    [
        (GROWING, "extrapolation", "'extrapolation': expected one of anticipate, extrapolate"),
        ((True, True), "mean", "first step"),
        ((), "mean", "first step"),
    ],
)
def test_a_wrong_plan_is_refused(extends, method, message):
    with pytest.raises(ValueError, match=message):
        StepPlan(6, extends, method)


REGIMES = [
    {"classification": "softmax", "regression": "per_class"},
    {"classification": "sigmoid", "regression": "agnostic"},
]


@pytest.mark.parametrize("regime", REGIMES, ids=["softmax", "sigmoid"])
@pytest.mark.parametrize(
    ("extension", "plan", "number", "rest"),
    [
        ("anticipate", GROWING, 7, {}),
        ("anticipate", LATE, 1, {"roi_mode": "pool"}),
        ("extrapolate", (False, True, True, False), 2, {"scene_context": False}),
        ("recursive", (False, True), 3, {}),
        ("mean", (False, True), 5, {"roi_mode": "pool", "scene_context": False}),
        ("none", GROWING, 4, {}),
        ("anticipate", (False,), 34, {}),
    ],
)
def test_shapes(regime, extension, plan, number, rest):
    detector = minute.detector(extension=extension, extension_plan=plan, **regime, **rest)
    plan = detector.plan
    clips = np.zeros((2, plan.longest, SIDE, SIDE, 3), np.float32)
    tubes = np.zeros((number, minute.CHUNK, 4), np.float32)
    outputs, _ = jax.eval_shape(detector.init_with_output, jax.random.key(0), clips, tubes)
    logits = minute.CLASSES + (regime["classification"] == "softmax")
    classes = minute.CLASSES if regime["regression"] == "per_class" else 1
    assert len(outputs) == plan.num_steps
    for step, output in enumerate(outputs):
        assert output.fed.shape == (2, number, plan.length(step), 4)
        assert output.head.logits.shape == (2, number, logits)
        assert output.head.deltas.shape == (2, number, plan.length(step), classes, 4)
        sides = [output.head.first, output.head.last]
        if plan.anticipates(step):
            shape = (2, number, minute.CHUNK, classes, 4)
            assert [side.shape for side in sides] == [shape, shape]
        else:
            assert sides == [None, None]
        scores = jax.eval_shape(detector.class_scores, output)
        assert scores.shape == (2, number, minute.CLASSES)


@pytest.mark.parametrize("key", ["classification", "regression", "roi_mode"])
def test_a_wrong_regime_is_refused(key):
    detector = minute.detector().clone(**{key: "maybe"})
    with pytest.raises(ValueError, match=f"{key} 'maybe': expected one of"):
        minute.variable_shapes(detector)


# What a step makes of its output, against loops over single boxes.


def random_output(detector, step, *, seed=0):
    """An output of `step` for 2 clips and 4 tubes, with deltas large enough to leave the image."""
    rng = np.random.default_rng(seed)
    plan = detector.plan
    logits = minute.CLASSES + (detector.classification == "softmax")
    classes = minute.CLASSES if detector.regression == "per_class" else 1

    def deltas(frames):
        return rng.normal(scale=0.4, size=(2, 4, frames, classes, 4)).astype(np.float32)

    sides = [deltas(plan.chunk) if plan.anticipates(step) else None for _ in range(2)]
    return StepOutput(
        fed=minute.random_boxes(rng, 2, 4, plan.length(step)),
        head=HeadOutput(
            rng.normal(scale=2, size=(2, 4, logits)).astype(np.float32),
            deltas(plan.length(step)),
            *sides,
        ),
    )


def decoded(delta, box):
    """One box, by the inclusive-pixel codec of R-CNN."""
    dx, dy, dw, dh = map(float, delta)
    w, h = box[2] - box[0] + 1, box[3] - box[1] + 1
    x, y = box[0] + w / 2 + dx * w, box[1] + h / 2 + dy * h
    w, h = math.exp(dw) * w, math.exp(dh) * h
    return np.array([x - w / 2, y - h / 2, x + w / 2 - 1, y + h / 2 - 1])


def valid(box, *, height, width):
    limits = [width, height, width, height]
    box = [min(max(v, 0), limit) for v, limit in zip(box, limits, strict=True)]
    degenerate = box[0] >= box[2] - 2 or box[1] >= box[3] - 2
    return [0, 0, width, height] if degenerate else box


def best_class(detector, logits):
    """Index of the box class of one tube: the best action, never the background."""
    if detector.regression == "agnostic":
        return 0
    actions = list(logits[1:]) if detector.classification == "softmax" else list(logits)
    return actions.index(max(actions))


def extended(tube, method, first, last):
    """`tube`, a list of boxes, and `CHUNK` more on both sides."""
    k = minute.CHUNK
    if method == "anticipate":
        return first + tube + last
    if method == "mean":
        return [sum(tube) / len(tube)] * (len(tube) + 2 * k)
    before = [tube[0] + i / (k - 1) * (tube[0] - tube[k - 1]) for i in range(k, 0, -1)]
    after = [tube[-1] + i / (k - 1) * (tube[-1] - tube[-k]) for i in range(1, k + 1)]
    boxes = before + tube + after
    if method == "recursive":  # the same line for two frames, clipped on one side
        boxes = [
            np.append(np.maximum(box[:2], 0), np.minimum(box[2:], [SIDE + 8 - 1, SIDE - 1]))
            for box in boxes
        ]
    return boxes


def next_tube(detector, step, fed, logits, deltas, first, last):
    """The tube that one tube becomes, in an image 8 px wider than high."""
    k, c = minute.CHUNK, best_class(detector, logits)
    tube = [decoded(delta[c], box) for delta, box in zip(deltas, fed, strict=True)]
    if detector.plan.grows_after(step):
        sides = [None, None]
        if first is not None:
            sides[0] = [decoded(delta[c], box) for delta, box in zip(first, fed[:k], strict=True)]
            sides[1] = [decoded(delta[c], box) for delta, box in zip(last, fed[-k:], strict=True)]
        tube = extended(tube, detector.plan.method, *sides)
    return [valid(box, height=SIDE, width=SIDE + 8) for box in tube]


@pytest.mark.parametrize("regime", [*REGIMES, REGIMES[1] | {"regression": "per_class"}])
@pytest.mark.parametrize("method", ["anticipate", "extrapolate", "recursive", "mean", "none"])
def test_next_tubes_are_decoded_extended_and_made_valid(regime, method):
    detector = minute.detector(extension=method, extension_plan=GROWING, **regime)
    for step in (1, 2):
        output = random_output(detector, step, seed=step)
        found = detector.next_tubes(step, output, height=SIDE, width=SIDE + 8)
        for b, n in np.ndindex(2, 4):
            head = [None if leaf is None else leaf[b, n] for leaf in output.head]
            expected = next_tube(detector, step, output.fed[b, n], *head)
            np.testing.assert_allclose(found[b, n], expected, atol=1e-3)


def test_update_takes_the_best_action_whatever_the_background_scores():
    detector = minute.detector()
    output = random_output(detector, 1)
    output.head.logits[..., 0] = 50  # background
    output.head.logits[0, 0] = [50, 1, 3, 2]
    found = detector.update(output)
    boxes = zip(output.head.deltas[0, 0, :, 1], output.fed[0, 0], strict=True)
    np.testing.assert_allclose(found[0, 0], [decoded(*pair) for pair in boxes], atol=1e-4)
    scores = detector.class_scores(output)
    assert scores.shape[-1] == minute.CLASSES
    assert scores.max() < 1e-9


def test_scores_are_probabilities():
    logits = np.array([[[0.0, 1.0, 2.0, 3.0]]], np.float32)
    output = StepOutput(None, HeadOutput(logits, None, None, None))
    softmax = minute.detector().class_scores(output)
    np.testing.assert_allclose(softmax[0, 0], np.exp([1, 2, 3]) / np.exp([0, 1, 2, 3]).sum(), 1e-5)
    sigmoid = minute.detector(classification="sigmoid").class_scores(output)
    np.testing.assert_allclose(sigmoid, 1 / (1 + np.exp(-logits)), rtol=1e-5)


# What each step reads, through a backbone that mixes no cells and only pairs of frames.


@pytest.fixture(scope="module", autouse=True)
def _quick_compilation():
    with minute.quick_compilation():
        yield


class Run:
    """A detector of three steps over 2, 6 and 10 feature frames, compiled once."""

    def __init__(self):
        self.detector = minute.detector_of_patch_means(extension_plan=GROWING)
        self.variables = minute.random_variables(self.detector)
        frames = 2 * self.detector.plan.longest
        rng = np.random.default_rng(0)
        self.clips = rng.normal(size=(1, frames, SIDE, SIDE, 3)).astype(np.float32)
        self._apply = jax.jit(
            lambda variables, clips: self.detector.apply(variables, clips, minute.initial_tubes())
        )

    def __call__(self, *, clips=None, variables=None):
        clips = self.clips if clips is None else clips
        return jax.tree.map(np.asarray, self._apply(variables or self.variables, clips))


@pytest.fixture(scope="module")
def run():
    return Run()


def logits_differ(outputs, others):
    return [(a.head.logits != b.head.logits).any() for a, b in zip(outputs, others, strict=True)]


def test_steps_are_chained_by_next_tubes(run):
    outputs = run()
    initial = np.broadcast_to(minute.initial_tubes(), outputs[0].fed.shape)
    np.testing.assert_array_equal(outputs[0].fed, initial)
    for step in (0, 1):
        expected = run.detector.next_tubes(step, outputs[step], height=SIDE, width=SIDE)
        np.testing.assert_allclose(outputs[step + 1].fed, expected, atol=1e-3)


def test_every_step_reads_its_own_window(run):
    """Feature frame t is input frames 2t and 2t + 1; windows are 4..5, 2..7 and 0..9."""
    outputs = run()
    first_steps = [2, 2, 1, 1, 0, 0, 1, 1, 2, 2]
    for frame, first in enumerate(first_steps):
        clips = run.clips.copy()
        clips[:, 2 * frame + frame % 2] += 3
        differ = logits_differ(outputs, run(clips=clips))
        assert differ == [step >= first for step in range(3)], frame


def test_heads_are_separate(run):
    outputs = run()
    for step in range(3):
        params = dict(run.variables["params"])
        params[f"heads_{step}"] = jax.tree.map(lambda leaf: 1.5 * leaf, params[f"heads_{step}"])
        differ = logits_differ(outputs, run(variables={"params": params}))
        assert differ == [other >= step for other in range(3)], step


def test_a_box_that_collapses_becomes_the_whole_image(run):
    """One that says "a hundredth of the size" for every box, whatever it sees."""
    params = dict(run.variables["params"])
    head = dict(params["heads_0"])
    for layer in ("box", "box_before", "box_after"):
        head[layer] = jax.tree.map(np.zeros_like, head[layer])
    bias = np.tile(np.float32([0, 0, -5, -5]), minute.CLASSES)
    head["box"] = head["box"] | {"bias": bias}
    outputs = run(variables={"params": params | {"heads_0": head}})
    np.testing.assert_array_equal(
        outputs[1].fed, np.broadcast_to([0, 0, SIDE, SIDE], outputs[1].fed.shape)
    )


def test_rois_are_where_the_tubes_are(run):
    """What changes in the upper right corner, two proposals see; the scene context shows it all."""
    head = run.variables["params"]["heads_0"]
    blind = head | {"scene_norm": jax.tree.map(np.zeros_like, head["scene_norm"])}
    blind = {"params": run.variables["params"] | {"heads_0": blind}}
    clips = run.clips.copy()
    clips[:, :, :8, 24:] += 3

    def differ(variables):
        before, after = run(variables=variables), run(clips=clips, variables=variables)
        return (before[0].head.logits != after[0].head.logits).any(axis=-1)[0]

    corners = [tuple(box) for box in minute.initial_tubes()[:, 0]]
    seeing = [box in ((0, 0, 32, 32), (16, 0, 32, 16)) for box in corners]
    assert sum(seeing) == 2
    assert list(differ(blind)) == seeing
    assert differ(run.variables).all()


def test_other_clips_and_parameters_are_not_compiled_again(run):
    run()
    with minute.compilations() as compiled:
        run(clips=2 * run.clips, variables=jax.tree.map(lambda leaf: leaf / 2, run.variables))
    assert not compiled
