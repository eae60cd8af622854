"""I3D: shapes at any size, numbers of parameters, and what training may change of its norms.

What it computes is compared with the released model's numbers in tests/parity.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from step_jax import parallel
from step_jax.errors import InputError
from step_jax.models import i3d

WIDTHS = (3, 4, 5, 2, 3, 4)


def count(variables):
    return sum(leaf.size for leaf in jax.tree.leaves(variables))


def shapes_of(module, shape):
    return jax.eval_shape(module.init, jax.random.key(0), jax.ShapeDtypeStruct(shape, np.float32))


def test_numbers_of_parameters():
    """Those of the released model, running statistics left out."""
    backbone = shapes_of(i3d.I3DBackbone(norm="batch"), (1, 4, 32, 32, 3))
    assert count(backbone["params"]) == 7_528_256
    context = shapes_of(i3d.I3DContext(norm="affine"), (1, 1, 2, 2, 832))
    assert count(context["params"]) == 4_759_008


@pytest.mark.parametrize("side", [400, 160, 417, 386, 33, 34, 47])
def test_feature_sides(side):
    module = i3d.I3DBackbone()
    clips = jax.ShapeDtypeStruct((2, 12, side, side + 16, 3), np.float32)
    features, _ = jax.eval_shape(module.init_with_output, jax.random.key(0), clips)
    sides = [-(-(one // 2) // 8) for one in (side, side + 16)]
    assert features.shape == (2, 3, *sides, 832)


def test_a_small_image_is_refused():
    with pytest.raises(InputError, match=r"image_size: found 31; .* 32 pixels or more"):
        shapes_of(i3d.I3DBackbone(), (1, 4, 64, 31, 3))
    i3d.I3DBackbone.check_side(32)


def random_like(shapes, *, seed=0):
    random = np.random.default_rng(seed)
    return jax.tree.map(
        lambda leaf: random.uniform(0.5, 1.5, leaf.shape).astype(np.float32), shapes
    )


@pytest.fixture(scope="module")
def x():
    return np.random.default_rng(1).normal(size=(2, 3, 4, 5, 6)).astype(np.float32)


def slow_unit(x, variables, *, mean, var):
    """1x1x1 convolution, normalisation, ReLU in float64, as they are defined."""
    y = np.asarray(x, np.float64) @ variables["kernel"][0, 0, 0]
    y = (y - mean) / np.sqrt(var + 1e-5) * variables["scale"] + variables["bias"]
    return np.maximum(y, 0)


@pytest.mark.parametrize("norm", i3d.NORMS)
def test_normalisation_by_running_statistics(x, norm):
    module = i3d.Unit3D(7, norm=norm)
    variables = random_like(shapes_of(module, x.shape))
    where = {
        "frozen": ("frozen", "frozen"),
        "affine": ("params", "frozen"),
        "batch": ("params", "batch_stats"),
    }[norm]
    trained = {"kernel"} if norm == "frozen" else {"kernel", "scale", "bias"}
    assert set(variables["params"]) == trained
    flat = variables["params"] | variables[where[0]] | variables[where[1]]
    expected = slow_unit(x, flat, mean=flat["mean"], var=flat["var"])
    np.testing.assert_allclose(module.apply(variables, x), expected, atol=1e-4)


@pytest.mark.parametrize("devices", [1, 2])
def test_normalisation_by_the_batch(x, devices):
    """The statistics are those of the batches of all devices together."""
    module = i3d.Unit3D(7, norm="batch")
    variables = random_like(shapes_of(module, x.shape))

    def apply(variables, x):
        y, updated = module.apply(variables, x, train=True, mutable=["batch_stats"])
        return y, updated["batch_stats"]

    mapped = jax.pmap(
        functools.partial(apply, variables),
        axis_name=parallel.DATA_AXIS,
        devices=jax.devices()[:devices],
        out_axes=(0, None),
    )
    y, updated = mapped(x.reshape(devices, 2 // devices, *x.shape[1:]))
    flat = variables["params"] | variables["batch_stats"]
    before = np.asarray(x, np.float64) @ flat["kernel"][0, 0, 0]
    mean, var = before.mean(axis=(0, 1, 2, 3)), before.var(axis=(0, 1, 2, 3))
    expected = slow_unit(x, flat, mean=mean, var=var)
    np.testing.assert_allclose(y.reshape(expected.shape), expected, atol=1e-4)
    np.testing.assert_allclose(updated["mean"], 0.9 * flat["mean"] + 0.1 * mean, rtol=1e-5)
    np.testing.assert_allclose(updated["var"], 0.9 * flat["var"] + 0.1 * var, rtol=1e-5)


@pytest.mark.parametrize("norm", i3d.NORMS)
def test_branches_stand_side_by_side(x, norm):
    """A Mixed layer is its four branches, each computed for itself."""
    module = i3d.Mixed(WIDTHS, norm=norm)
    variables = random_like(shapes_of(module, x.shape))
    x = jnp.asarray(np.abs(x))

    def unit(name, x, width, size=1):
        one = i3d.Unit3D(width, (size,) * 3, norm=norm)
        return one.apply({key: value[name] for key, value in variables.items()}, x)

    padded = jnp.pad(x, ((0, 0), (1, 1), (1, 1), (1, 1), (0, 0)))
    shifts = [padded[:, t : t + 3, i : i + 4, j : j + 5] for t, i, j in np.ndindex(3, 3, 3)]
    expected = [
        unit("branch_0", x, WIDTHS[0]),
        unit("branch_1", unit("branch_1_reduce", x, WIDTHS[1]), WIDTHS[2], 3),
        unit("branch_2", unit("branch_2_reduce", x, WIDTHS[3]), WIDTHS[4], 3),
        unit("branch_3", functools.reduce(jnp.maximum, shifts), WIDTHS[5]),
    ]
    y = module.apply(variables, x)
    np.testing.assert_allclose(y, jnp.concatenate(expected, axis=-1), rtol=1e-4)


def test_the_context_is_a_mean_over_any_map():
    """Of a map that is the same everywhere and always, inner cells of any size agree."""
    module = i3d.I3DContext()
    variables = shapes_of(module, (1, 3, 2, 2, 832))
    kernels = random_like(variables, seed=2)
    kernels = jax.tree.map(lambda leaf: leaf / max(leaf.size // max(leaf.shape[-1], 1), 1), kernels)
    maps = np.random.default_rng(3).uniform(size=(2, 3, 5, 7, 832)).astype(np.float32)
    vectors, state = module.apply(
        kernels, maps, capture_intermediates=lambda one, _: isinstance(one, i3d.Mixed)
    )
    assert vectors.shape == (2, 3, 1024)
    cells = state["intermediates"]["mixed_5c"]["__call__"][0]
    assert cells.shape == (2, 3, 3, 4, 1024)  # pooled to half, rounded up
    np.testing.assert_allclose(vectors, np.asarray(cells).mean(axis=(2, 3)), rtol=1e-5)


def test_an_unknown_norm_is_refused():
    with pytest.raises(InputError, match="'instance': expected one of frozen, affine, batch"):
        shapes_of(i3d.Unit3D(2, norm="instance"), (1, 1, 1, 1, 2))
