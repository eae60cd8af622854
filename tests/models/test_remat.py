"""Rematerialisation: the same parameters, outputs and gradients, computed twice."""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import minute
import numpy as np
import pytest

from step_jax.errors import InputError
from step_jax.models.i3d import I3DBackbone, Unit3D
from step_jax.models.remat import run_stages
from step_jax.models.tiny import TinyBackbone
from step_jax.models.vgg import VGG16Backbone
from step_jax.parallel import DATA_AXIS

BLOCKS = ((1, 2), (2, 3), (1, 3), (1, 4), (1, 4))


@pytest.fixture(scope="module", autouse=True)
def _quick_compilation():
    with minute.quick_compilation():
        yield


def recomputed(function, *arguments):
    """How many parts of a function are computed again in its backward pass."""
    names = [one.primitive.name for one in jax.make_jaxpr(function)(*arguments).eqns]
    return names.count("checkpoint") + names.count("remat2")


def shapes_of(tree):
    return jax.tree.map(jnp.shape, tree)


class OneStep:
    """A detector of one step with dropout, and a loss of all that its head says."""

    def __init__(self, remat):
        self.detector = minute.detector(
            head_options=minute.MODEL["head_options"] | {"dropout": 0.3},
            backbone_options=minute.MODEL["backbone_options"] | {"num_blocks": 1},
            extension_plan=(False,),
            remat=remat,
        )

    def loss(self, variables, clips):
        features = self.detector.apply(variables, clips, method="features")
        tubes = jnp.asarray(minute.initial_tubes())[None]
        keys = jax.random.split(jax.random.key(0), 1)
        output = self.detector.apply(
            variables, 0, features, tubes, dropout_keys=keys, method="refine"
        )
        return sum(jnp.square(leaf).mean() for leaf in jax.tree.leaves(output.head))


def test_a_detectors_gradients_are_the_same():
    plain, other = OneStep("none"), OneStep("all")
    variables = minute.random_variables(plain.detector)
    assert shapes_of(minute.variable_shapes(other.detector)) == shapes_of(variables)
    clips = minute.random_clips(plain.detector, batch_size=1).astype(np.float32) / 255
    results = [jax.jit(jax.value_and_grad(one.loss))(variables, clips) for one in (plain, other)]
    assert results[0][0] > 0
    for ours, theirs in zip(*map(jax.tree.leaves, results), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-6)


# The stem and a block of the backbone; RoI features and head are one part.
@pytest.mark.parametrize(("remat", "parts"), [("none", 0), ("backbone", 2), ("heads", 1)])
def test_what_is_computed_again(remat, parts):
    one = OneStep(remat)
    variables = minute.variable_shapes(one.detector)
    clips = minute.random_clips(one.detector, batch_size=1).astype(np.float32)
    assert recomputed(one.loss, variables, clips) == parts


@pytest.mark.parametrize(
    ("make", "options", "shape", "stages"),
    [
        (I3DBackbone, {}, (1, 4, 32, 32, 3), 8),
        (VGG16Backbone, {"blocks": BLOCKS}, (1, 1, 32, 32, 3), 5),
        (TinyBackbone, {"num_blocks": 2}, (1, 2, 16, 16, 3), 3),
    ],
    ids=["i3d", "vgg16", "tiny"],
)
def test_a_backbone_has_its_stages_computed_again(make, options, shape, stages):
    plain, other = (make(remat=remat, **options) for remat in (False, True))
    clips = jax.ShapeDtypeStruct(shape, np.float32)
    variables = jax.eval_shape(plain.init, jax.random.key(0), clips)
    assert jax.eval_shape(other.init, jax.random.key(0), clips) == variables
    assert recomputed(other.apply, variables, clips) == stages


class TwoUnits(nn.Module):
    """Two convolutions that learn the statistics of the batch."""

    remat: bool

    @nn.compact
    def __call__(self, x, *, train):
        def first(_, x):
            return Unit3D(2, norm="batch", name="first")(x, train=train)

        def second(_, x):
            return Unit3D(3, norm="batch", name="second")(x, train=train)

        return run_stages(self, [first, second], x, remat=self.remat)


def test_statistics_move_once_although_the_forward_pass_is_made_twice():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(1, 2, 2, 3, 3, 4)).astype(np.float32)
    initialise = functools.partial(TwoUnits(False).init, train=False)
    shapes = jax.eval_shape(initialise, jax.random.key(0), x[0])
    variables = jax.tree.map(lambda leaf: rng.uniform(0.5, 1, leaf.shape).astype("f4"), shapes)

    def gradient(x, params, module):
        def loss(params):
            given = variables | {"params": params}
            out, updated = module.apply(given, x, train=True, mutable=["batch_stats"])
            return jnp.square(out).mean(), updated

        return jax.grad(loss, has_aux=True)(params)

    def on_one_device(module):
        step = jax.vmap(lambda x, p: gradient(x, p, module), (0, None), axis_name=DATA_AXIS)
        return jax.jit(step)(x, variables["params"])

    plain, other = on_one_device(TwoUnits(False)), on_one_device(TwoUnits(True))
    assert shapes_of(plain) == shapes_of(other)
    assert shapes_of(plain[1]["batch_stats"]).keys() == {"first", "second"}
    for ours, theirs in zip(*map(jax.tree.leaves, (plain, other)), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-6)


def test_an_unknown_choice_is_refused():
    with pytest.raises(InputError, match=r"model.remat 'full': expected one of none, backbone, h"):
        minute.detector(remat="full")
