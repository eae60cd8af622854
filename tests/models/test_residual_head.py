"""The residual head: its parameters, what its branches see, anticipation and dropout.

What the trunk "mixed" computes is compared with the released model's numbers in tests/parity.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from step_jax.errors import InputError
from step_jax.models import residual_head
from step_jax.models.residual_head import ResidualHead

N, L, P, CHUNK = 2, 5, 3, 3
TINY = {
    "trunk": "conv",
    "global_features": 4,
    "local_features": 6,
    "local_bottleneck": 3,
    "local_blocks": 2,
}


def head(*, num_logits=3, num_box_classes=2, anticipates=True, **options):
    return ResidualHead(num_logits, num_box_classes, CHUNK, anticipates, **TINY | options)


def shapes_of(module, rois, context=None):
    return jax.eval_shape(module.init, jax.random.key(0), rois, context)


def variables_of(module, rois, context=None):
    random = np.random.default_rng(0)

    def draw(path, leaf):
        values = (random.normal(size=leaf.shape) / 8).astype(np.float32)
        return np.abs(values) + 0.5 if path[-1].key == "var" else values

    return jax.tree_util.tree_map_with_path(draw, shapes_of(module, rois, context))


def count(params):
    return sum(leaf.size for leaf in jax.tree.leaves(params))


@pytest.mark.parametrize(
    ("options", "context", "number"),
    [
        ({}, 1024, 10_721_320),
        ({}, 0, 10_659_880),
        ({"local_branch": False}, 1024, 5_835_548),
    ],
)
def test_numbers_of_parameters(options, context, number):
    """Those of the released model, which has the regressors of Eq. 5 in every step."""
    module = ResidualHead(60, 1, CHUNK, True, norm="affine", **options)
    rois = jax.ShapeDtypeStruct((1, 1, CHUNK, 7, 7, 832), np.float32)
    vectors = jax.ShapeDtypeStruct((1, CHUNK, context), np.float32) if context else None
    assert count(shapes_of(module, rois, vectors)["params"]) == number


@pytest.fixture(scope="module")
def rois():
    return np.random.default_rng(1).uniform(size=(2, N, L, P, P, 5)).astype(np.float32)


def test_outputs(rois):
    module = head()
    out = module.apply(variables_of(module, rois), rois, None)
    assert out.logits.shape == (2, N, 3)
    assert out.deltas.shape == (2, N, L, 2, 4)
    assert out.first.shape == out.last.shape == (2, N, CHUNK, 2, 4)


def slow_block(x, params, *, projects):
    """A residual block by its definition, float64."""

    def conv(x, name):
        kernel = params[name]["kernel"].astype(np.float64)
        reach = kernel.shape[0] // 2
        padded = np.pad(x, ((0, 0), (reach, reach), (reach, reach), (0, 0)))
        return sum(
            padded[:, i : i + x.shape[1], j : j + x.shape[2]] @ kernel[i, j]
            for i, j in np.ndindex(kernel.shape[:2])
        )

    y = np.maximum(conv(x, "reduce"), 0)
    y = conv(np.maximum(conv(y, "conv"), 0), "expand")
    return np.maximum((conv(x, "shortcut") if projects else x) + y, 0)


@pytest.mark.parametrize("projects", [True, False])
def test_residual_block(projects):
    random = np.random.default_rng(2)
    x = random.normal(size=(3, P, P, 6)).astype(np.float32)
    module = residual_head.Bottleneck(6, 2, projects=projects)
    variables = jax.tree.map(
        lambda leaf: random.normal(size=leaf.shape).astype(np.float32), shapes_of_block(module, x)
    )
    expected = slow_block(x.astype(np.float64), variables["params"], projects=projects)
    np.testing.assert_allclose(module.apply(variables, x), expected, rtol=1e-4, atol=1e-4)


def shapes_of_block(module, x):
    return jax.eval_shape(module.init, jax.random.key(0), x)


def test_the_conv_trunk_sees_the_scene_beside_the_rois(rois):
    """Two convolutions added are one over RoI features and context in the same channels."""
    context = np.random.default_rng(3).normal(size=(2, L, P, P, 7)).astype(np.float32)
    module = head()
    variables = variables_of(module, rois, context)
    params = dict(variables["params"])
    scene = params.pop("global_context")["kernel"]
    repeated = np.broadcast_to(context[:, None], (2, N, *context.shape[1:]))
    beside = np.concatenate([rois, repeated], axis=-1)
    kernel = np.concatenate([params["global_0"]["kernel"], scene], axis=3)
    params["global_0"] = params["global_0"] | {"kernel": kernel}
    for name in ("reduce", "shortcut"):  # the local branch does not see the scene
        narrow = params["local_0"][name]["kernel"]
        wide_kernel = np.insert(narrow, [5] * 7, 0, axis=2)
        params["local_0"] = params["local_0"] | {name: {"kernel": wide_kernel}}
    one = module.apply(variables, rois, context)
    other = module.apply({"params": params}, beside, None)
    for ours, theirs in zip(one, other, strict=True):
        np.testing.assert_allclose(ours, theirs, atol=2e-5 * np.abs(theirs).max())


def test_the_widths_of_the_conv_trunk(rois):
    params = shapes_of(head(trunk_features=(5, 7)), rois)["params"]
    widths = [params[f"global_{index}"]["kernel"].shape[-2:] for index in range(3)]
    assert widths == [(rois.shape[-1], 5), (5, 7), (7, TINY["global_features"])]


def test_the_conv_trunk_takes_the_maximum_over_time(rois):
    """A tube's class does not depend on the order of frames that convolutions see alike."""
    still = np.repeat(rois[:, :, :1], L, axis=2)
    module = head()
    variables = variables_of(module, rois)
    feature = module.apply(
        variables, still, None, capture_intermediates=lambda one, _: one.name == "global_2"
    )[1]["intermediates"]["global_2"]["__call__"][0]
    summary = np.maximum(feature, 0).max(axis=1).reshape(2, N, -1)
    dense = variables["params"]["classifier"]
    expected = summary @ dense["kernel"] + dense["bias"]
    np.testing.assert_allclose(module.apply(variables, still, None).logits, expected, atol=1e-4)


@pytest.mark.slow
def test_the_context_is_appended_to_the_flat_feature(rois):
    """Trunk "mixed": the last rows of the classifier are the context's, averaged over time."""
    context = np.random.default_rng(4).normal(size=(2, L, 6)).astype(np.float32)
    module = head(trunk="mixed")
    variables = variables_of(module, rois, context)
    with_scene = module.apply(variables, rois, context)
    without = module.apply(variables, rois, np.zeros_like(context))
    rows = variables["params"]["classifier"]["kernel"][-6:]
    expected = (context @ rows).mean(axis=1)[:, None]
    np.testing.assert_allclose(
        with_scene.logits - without.logits, np.repeat(expected, N, 1), atol=1e-4
    )
    np.testing.assert_array_equal(with_scene.deltas, without.deltas)


def test_anticipation_is_residual(rois):
    """Eq. 5: the neighbours' deltas are the step's own plus a regression of the same features."""
    module = head()
    variables = variables_of(module, rois)
    for name in ("box_before", "box_after"):
        variables["params"][name] = jax.tree.map(np.zeros_like, variables["params"][name])
    variables["params"]["box_after"]["bias"][:] = 2
    out = module.apply(variables, rois, None)
    np.testing.assert_array_equal(out.first, out.deltas[:, :, :CHUNK])
    np.testing.assert_allclose(out.last, out.deltas[:, :, -CHUNK:] + 2, atol=1e-6)


@pytest.mark.parametrize(("keeps", "anticipates"), [(True, False), (False, False), (True, True)])
def test_regressors_without_use_are_carried_but_not_trained(rois, keeps, anticipates):
    module = head(anticipates=anticipates, keep_regressors=keeps)
    variables = shapes_of(module, rois)
    names = {"box_before", "box_after"}
    assert names & set(variables["params"]) == (names if anticipates else set())
    kept = names if keeps and not anticipates else set()
    assert names & set(variables.get("frozen", {})) == kept
    for name in kept:
        like = variables["params"]["box"]
        assert variables["frozen"][name]["kernel"].shape == like["kernel"].shape
    out = module.apply(variables_of(module, rois), rois, None)
    assert (out.first is not None) == anticipates


def test_a_classifier_alone_leaves_tubes_as_they_are(rois):
    module = head(local_branch=False)
    variables = variables_of(module, rois)
    assert set(variables["params"]) == {"global_0", "global_1", "global_2", "classifier"}
    out = module.apply(variables, rois, None)
    assert out.deltas.shape == (2, N, L, 2, 4)
    assert not out.deltas.any()
    assert out.first is out.last is None


@pytest.mark.parametrize("trunk", [pytest.param("conv", marks=pytest.mark.slow), "mixed"])
def test_dropout(rois, trunk):
    """Both branches, by the example's own key: an example's result does not depend on others."""
    module = head(dropout=0.5, trunk=trunk)
    variables = variables_of(module, rois)
    keys = jax.random.split(jax.random.key(3), 2)
    plain = module.apply(variables, rois, None)
    dropped = module.apply(variables, rois, None, dropout_keys=keys)
    for ours, theirs in zip(dropped, plain, strict=True):
        assert not np.allclose(ours, theirs, atol=1e-3)
    alone = module.apply(variables, rois[1:], None, dropout_keys=keys[1:])
    for ours, theirs in zip(dropped, alone, strict=True):
        np.testing.assert_allclose(ours[1:], theirs, atol=1e-4)


def test_half_precision_stays_inside(rois):
    module = head(dtype=jnp.bfloat16)
    variables = variables_of(module, rois)
    leaves = jax.tree.leaves(shapes_of(module, rois))
    assert {leaf.dtype for leaf in leaves} == {np.dtype("float32")}
    out, exact = module.apply(variables, rois, None), head().apply(variables, rois, None)
    for ours, theirs in zip(out, exact, strict=True):
        assert ours.dtype == np.float32
        assert 0 < np.abs(ours - theirs).max() < 0.05 * np.abs(theirs).max()


def test_wrong_options_are_refused(rois):
    with pytest.raises(InputError, match="trunk 'deep': expected one of mixed, conv"):
        shapes_of(head(trunk="deep"), rois)
    with pytest.raises(InputError, match="'frozen' or 'affine'"):
        shapes_of(head(trunk="mixed", norm="batch"), rois)
