"""Detectors from plain values: what is built, and one clear line for what cannot be."""

import json
import re

import jax
import jax.numpy as jnp
import minute
import numpy as np
import pytest

from configs import common
from step_jax.errors import InputError
from step_jax.models import factory


def test_values_reach_their_modules():
    detector = minute.detector(precision="bfloat16", roi_mode="pool", extension="mean")
    assert detector.backbone.stem_features == 4
    assert detector.backbone.dtype == jnp.bfloat16
    head = detector.make_head(num_logits=4, num_box_classes=3, chunk=2, anticipates=False)
    assert (head.global_features, head.local_features) == ((4, 5), (6, 5))
    assert head.dtype == jnp.bfloat16
    assert (detector.plan.chunk, detector.plan.extends) == (2, (False, True))
    assert (detector.plan.method, detector.roi_mode, detector.pool_size) == ("mean", "pool", 2)
    assert (detector.num_classes, detector.classification) == (3, "softmax")
    assert detector.scene_context.pool_size == 2
    assert minute.detector(scene_context=False).scene_context is None


def test_a_description_that_went_through_json_builds_the_same():
    model = {key: value for key, value in minute.MODEL.items() if key != "num_classes"}
    again = factory.build_detector(num_classes=3, **json.loads(json.dumps(model)))
    assert again.plan == minute.detector().plan
    assert minute.variable_shapes(again) == minute.variable_shapes(minute.detector())


def test_the_configurations_keys_are_the_arguments():
    detector = factory.build_detector(num_classes=24, **common.get_config().model.to_dict())
    assert factory.input_frames(detector) == 30


def test_input_frames_counts_the_longest_window():
    assert factory.input_frames(minute.detector()) == 6
    assert factory.input_frames(minute.detector(extension="none")) == 2


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"backbone": "lenet"}, "model.backbone 'lenet': expected one of .*tiny"),
        ({"head": "one"}, "model.head 'one': expected one of .*two_branch"),
        ({"precision": "half"}, "model.precision 'half': expected one of float32, tensorfloat32"),
        ({"extension": "grow"}, "model.extension 'grow': expected one of anticipate, extrapolate"),
        ({"classification": "hinge"}, "model.classification 'hinge': expected .* softmax, sigmoid"),
        ({"regression": "both"}, "model.regression 'both': expected .* per_class, agnostic"),
        ({"roi_mode": "crop"}, "model.roi_mode 'crop': expected one of align, pool"),
        ({"backbone_options": {"depth": 3}}, "model.backbone_options 'depth': .* stem_features"),
        ({"backbone_options": {"dtype": 3}}, "model.backbone_options 'dtype': .* stem_features"),
        ({"head_options": {"widths": 3}}, "model.head_options 'widths': .* global_features"),
        ({"head_options": {"num_logits": 3}}, "model.head_options 'num_logits': .* global_featur"),
        ({"clip_frames": 0}, "model.clip_frames 0: expected a positive multiple .* stride 1"),
        ({"extension_plan": ()}, r"model.extension_plan \(\): .* first of them false"),
        ({"extension_plan": [True, True]}, r"model.extension_plan \(True, True\): .*first"),
    ],
)
def test_what_cannot_be_built_is_named(changes, message):
    with pytest.raises(InputError, match=message) as error:
        minute.detector(**changes)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("precision", "expected"),
    [("float32", "HIGHEST"), ("tensorfloat32", "HIGH"), ("bfloat16", "DEFAULT")],
)
def test_products_are_rounded_as_the_precision_says(precision, expected):
    """Forward and backward: products of float32 are not, unless asked for."""
    detector = minute.detector(precision=precision, scene_context=False)
    variables = minute.variable_shapes(detector)
    side, frames = minute.SIDE, factory.input_frames(detector)
    clips = jax.ShapeDtypeStruct((1, frames, side, side, 3), np.float32)

    def total(variables, clips):
        outputs = detector.apply(variables, clips, minute.initial_tubes())
        return sum(output.head.logits.sum() + output.head.deltas.sum() for output in outputs)

    jaxpr = str(jax.make_jaxpr(jax.grad(total))(variables, clips))
    found = set(re.findall(r"precision=\(?(?:Precision\.)?(\w+)", jaxpr))
    assert found == {expected}
