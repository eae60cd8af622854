"""The released model's inference, number by number: what the public PyTorch model computes.

Weights and clip are pseudo-random (released_weights.py, released_clip.py); the tolerances are three
to five times the float32 noise of the original, measured against float64. At 160 px without scene
context, which is quick, and at 400 px with it.
"""

import functools
import pathlib

import jax
import numpy as np
import pytest
import released_clip
import released_model

from step_jax.clip_detections import clip_detections
from step_jax.models.pooling import max_pool3d

DATA = pathlib.Path(__file__).parents[1] / "data"
STEPS = range(released_model.STEPS)

# Backbone layers as the original counts them; its pools are applied to the layer before.
LAYERS = [
    "conv_1a",
    ((1, 3, 3), (1, 2, 2)),
    "conv_2b",
    "conv_2c",
    ((1, 3, 3), (1, 2, 2)),
    "mixed_3b",
    "mixed_3c",
    ((3, 3, 3), (2, 2, 2)),
    "mixed_4b",
    "mixed_4c",
    "mixed_4d",
    "mixed_4e",
    "mixed_4f",
]
HEAD_LAYERS = {
    "i3d_conv": "mixed_5c",
    "downsample": "squeeze",
    "local_conv": "local_2",
    "downsample2": "local_squeeze",
}
FEATURES = 3e-4
FORCED = {"logits": 3e-4, "deltas": 6e-5, "probabilities": 4e-5, "boxes": 0.012}
FREE = [
    FORCED,
    {"logits": 8e-4, "deltas": 3e-4, "probabilities": 2e-4, "boxes": 0.06},
    {"logits": 8e-3, "deltas": 2e-3, "probabilities": 1.2e-3, "boxes": 0.5},
]


class Case:
    """The model at one size, its clip, and the original's numbers."""

    def __init__(self, *, side, seed, batch, context):
        self.side, self.clips_of_original = side, batch
        self.expected = np.load(DATA / f"released_{side}px.npz")
        self.detector = released_model.detector(context=context)
        self.variables = released_model.variables(context=context)
        self.clips = released_clip.make_clip(seed, batch=batch, frames=36, side=side)[:1]
        self.refine = jax.jit(self._refine, static_argnums=0)

    def stored(self, step, name):
        return self.expected[f"s{step + 1}_{name}"]

    @functools.cached_property
    def features_and_layers(self):
        """Features of the clip, and every layer's output `[T, H, W, C]` by name."""

        @jax.jit
        def apply(variables, clips):
            return self.detector.apply(
                variables, clips, method="features", capture_intermediates=_is_called
            )

        features, state = apply(self.variables, self.clips)
        layers = state["intermediates"]["backbone"]
        names = [name for name in LAYERS if isinstance(name, str)]
        return features, {name: np.asarray(layers[name]["__call__"][0][0]) for name in names}

    def _refine(self, step, variables, features, tubes):
        output, state = self.detector.apply(
            variables, step, features, tubes, method="refine", capture_intermediates=_is_called
        )
        layers = state["intermediates"][f"heads_{step}"]
        return output, {name: layers[name]["__call__"][0] for name in HEAD_LAYERS.values()}

    def next_tubes(self, step, output):
        tubes = self.detector.next_tubes(step, output, height=self.side, width=self.side)
        return np.asarray(tubes)

    @functools.cached_property
    def forced(self):
        """(output, layers) of each step, fed the tubes that the original fed it."""
        features, _ = self.features_and_layers
        fed = [self.stored(step, "flat_tubes")[None] for step in STEPS]
        return [self.refine(step, self.variables, features, fed[step]) for step in STEPS]

    @functools.cached_property
    def free(self):
        """The output of each step, fed what the one before made."""
        features, _ = self.features_and_layers
        tubes, outputs = released_model.initial_tubes(self.side)[None], []
        for step in STEPS:
            outputs.append(self.refine(step, self.variables, features, tubes)[0])
            tubes = self.next_tubes(step, outputs[-1])
        return outputs


def _is_called(module, method):
    return method == "__call__"


@pytest.fixture(
    scope="module",
    params=[
        pytest.param({"side": 160, "seed": 6, "batch": 2, "context": False}, id="160px"),
        pytest.param(
            {"side": 400, "seed": 1, "batch": 1, "context": True},
            id="400px",
            marks=pytest.mark.slow,
        ),
    ],
)
def case(request):
    return Case(**request.param)


def difference(ours, theirs):
    assert ours.shape == theirs.shape
    return float(np.abs(np.asarray(ours, np.float64) - theirs).max())


# --- the trunk ------------------------------------------------------------------------------------


def layer_difference(case, number, layer):
    """Of means and standard deviations of all channels, and of a sample of the values."""
    layer = layer.astype(np.float64)
    means, deviations = layer.mean(axis=(0, 1, 2)), layer.std(axis=(0, 1, 2), ddof=1)
    strides = [max(1, size // 8) for size in (layer.shape[3], *layer.shape[1:3])]
    sample = layer[::4, :: strides[1], :: strides[2], :: strides[0]].transpose(3, 0, 1, 2)
    ours = {"mean": means, "std": deviations, "sub": sample}
    return max(difference(v, case.expected[f"bb{number:02}_{k}"][0]) for k, v in ours.items())


def test_the_first_layer_that_diverges(case):
    _, layers = case.features_and_layers
    x = None
    for number, layer in enumerate(LAYERS):
        if isinstance(layer, str):
            x = layers[layer]
        else:
            x = np.asarray(max_pool3d(x[None], window=layer[0], strides=layer[1])[0])
        worst = layer_difference(case, number, x)
        assert worst < FEATURES, f"the first layer that diverges is {number}, {layer}: {worst}"


def test_features(case):
    features, _ = case.features_and_layers
    maps = np.asarray(features.maps).transpose(0, 1, 4, 2, 3)[:, ::2, ::8, ::3, ::3]
    assert difference(maps, case.expected["conv_feat_sub"]) < FEATURES
    if features.context is not None:
        assert difference(features.context, case.expected["context_feat"]) < FEATURES
    assert (features.context is None) == ("context_feat" not in case.expected)


# --- each step, fed what the original was fed -----------------------------------------------------


@pytest.mark.parametrize("step", STEPS)
def test_the_layers_of_a_head(case, step):
    _, layers = case.forced[step]
    for name, ours in HEAD_LAYERS.items():
        theirs = case.stored(step, f"{name}_sub")
        values = np.moveaxis(layers[ours], -1, 1)
        clips = case.clips_of_original  # of which the first one's values are kept
        apart = [max(1, values.shape[0] * clips // 6), max(1, values.shape[1] // 8)]
        sample = values[:: apart[0], :: apart[1]]
        assert difference(sample, theirs) < 4e-4, f"step {step + 1}, {name}"


def output_differences(case, step, output):
    """The worst differences of a step's output, by kind."""
    logits = case.stored(step, "logits")
    probabilities = 1 / (1 + np.exp(-logits.astype(np.float64)))
    tubes = case.detector.class_tubes(output)[0, :, :, 0]
    return {
        "logits": difference(output.head.logits[0], logits),
        "probabilities": difference(case.detector.class_scores(output)[0], probabilities),
        "deltas": difference(output.head.deltas[0, :, :, 0], case.stored(step, "delta_loc")),
        "boxes": difference(tubes, case.stored(step, "pred_loc")),
    }


def assert_within(differences, tolerances):
    assert all(differences[kind] < tolerances[kind] for kind in differences), differences


@pytest.mark.parametrize("step", STEPS)
def test_a_step_that_is_fed_the_original_tubes(case, step):
    output, _ = case.forced[step]
    assert_within(output_differences(case, step, output), FORCED)
    theirs = case.stored(step, "next_tubes")
    assert difference(case.next_tubes(step, output)[0], theirs) < FORCED["boxes"]


def test_anticipation(case):
    output, _ = case.forced[1]
    for side, deltas in (("first", output.head.first), ("last", output.head.last)):
        assert difference(deltas[0, :, :, 0], case.stored(1, f"delta_{side}")) < FORCED["deltas"]
    assert case.forced[0][0].head.first is None
    assert case.forced[2][0].head.last is None


# --- all steps on their own -----------------------------------------------------------------------


@pytest.mark.parametrize("step", STEPS)
def test_running_free(case, step):
    output = case.free[step]
    assert_within(output_differences(case, step, output), FREE[step])
    fed = difference(output.fed[0], case.stored(step, "flat_tubes"))
    assert fed < FREE[max(step - 1, 0)]["boxes"]


@pytest.mark.parametrize("step", STEPS)
def test_detections(case, step):
    """The same boxes and classes in the same order, where scores differ by more than the noise."""
    output = case.free[step]
    target = case.detector.plan.target(output.fed.shape[2])
    tubes = np.asarray(case.detector.class_tubes(output))[0, :, target, 0]
    found = clip_detections(
        np.asarray(case.detector.class_scores(output)[0]),
        tubes[:, tubes.shape[1] // 2, None] / case.side,
        score_threshold=0.01,
        per_class_top=released_model.PROPOSALS,
        nms_threshold=0.4,
        top=300,
        inclusive_side=case.side,
    )
    theirs = case.stored(step, "detections")
    noise = 2 * FREE[step]["probabilities"]
    box_noise = FREE[step]["boxes"] / case.side
    order = np.argsort(-found.score, kind="stable")
    assert len(order) == len(theirs) == 300
    np.testing.assert_allclose(found.score[order], theirs[:, -1], atol=noise)
    labels, boxes, scores = found.label[order], found.boxes[order, 0], found.score[order]
    last = theirs[-1, -1]
    for *box, label, _, score in theirs:
        same = (
            (labels == label)
            & (np.abs(boxes - box).max(axis=1) < box_noise)
            & (np.abs(scores - score) < noise)
        )
        assert same.any() or score < last + noise, (box, label, score)
