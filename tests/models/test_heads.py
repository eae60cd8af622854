"""The two-branch head: what each of its outputs may depend on, and its parts against loops."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from step_jax.errors import InputError
from step_jax.models import heads

B, N, L, P, C, CHUNK = 2, 3, 6, 3, 4, 2


@pytest.fixture(scope="module")
def inputs():
    rng = np.random.default_rng(0)
    rois = rng.normal(size=(B, N, L, P, P, C)).astype(np.float32)
    context = rng.normal(size=(B, L, P, P, C)).astype(np.float32)
    return rois, context


@pytest.fixture(scope="module")
def head():
    return heads.TwoBranchHead(
        num_logits=3,
        num_box_classes=2,
        chunk=CHUNK,
        anticipates=True,
        global_features=(4, 5),
        global_kernels=((1, 2, 2), (3, 1, 1)),
        local_features=(6, 5),
        time_bins=2,
        dropout=0.5,
    )


@pytest.fixture(scope="module")
def params(head, inputs):
    shapes = jax.eval_shape(head.init, jax.random.key(0), *inputs)["params"]
    rng = np.random.default_rng(1)
    return jax.tree.map(lambda leaf: 0.5 * rng.normal(size=leaf.shape).astype(np.float32), shapes)


@pytest.fixture(scope="module")
def run(head):
    """`(params, rois, context) -> HeadOutput` of NumPy arrays."""
    apply = jax.jit(lambda params, rois, context: head.apply({"params": params}, rois, context))
    return lambda *arguments: jax.tree.map(np.asarray, apply(*arguments))


def without(params, *layers):
    """`params` with all of the named layers zero."""
    zeros = jax.tree.map(np.zeros_like, params)
    return params | {layer: zeros[layer] for layer in layers}


def test_shapes(run, params, inputs):
    out = run(params, *inputs)
    assert out.logits.shape == (B, N, 3)
    assert out.deltas.shape == (B, N, L, 2, 4)
    assert out.first.shape == out.last.shape == (B, N, CHUNK, 2, 4)


def test_a_head_that_does_not_anticipate_has_no_such_layers(head, inputs):
    out, variables = jax.eval_shape(
        head.clone(anticipates=False).init_with_output, jax.random.key(0), *inputs
    )
    assert out.first is None
    assert out.last is None
    assert {"box_before", "box_after"}.isdisjoint(variables["params"])


def test_anticipation_is_a_residual_on_the_nearest_clip(run, params, inputs):
    """Eq. 5, with both regressors zero; then each moves its own side alone."""
    out = run(without(params, "box_before", "box_after"), *inputs)
    np.testing.assert_array_equal(out.first, out.deltas[:, :, :CHUNK])
    np.testing.assert_array_equal(out.last, out.deltas[:, :, -CHUNK:])
    other = run(without(params, "box_after"), *inputs)
    assert (other.first != out.first).all()
    np.testing.assert_array_equal(other.last, out.last)


@pytest.mark.parametrize(("frame", "moved", "still"), [(1, "first", "last"), (4, "last", "first")])
def test_anticipation_looks_at_the_nearest_clip(run, params, inputs, frame, moved, still):
    rois, context = inputs
    params = without(params, "local_frame", "local_global", "box")
    changed = rois.copy()
    changed[:, :, frame] += 1
    before, after = run(params, rois, context), run(params, changed, context)
    assert (getattr(after, moved) != getattr(before, moved)).any(axis=(2, 3, 4)).all()
    np.testing.assert_array_equal(getattr(after, still), getattr(before, still))


def test_tubes_do_not_see_each_other(run, params, inputs):
    rois, context = inputs
    changed = rois.copy()
    changed[0, 1] += 1
    before, after = run(params, rois, context), run(params, changed, context)
    for ours, theirs in zip(before, after, strict=True):
        same = np.isclose(ours, theirs, atol=1e-6).reshape(B, N, -1).all(axis=-1)
        np.testing.assert_array_equal(same, [[True, False, True], [True, True, True]])


def test_the_local_branch_reads_its_frame_and_the_global_feature(run, params, inputs):
    rois, context = inputs
    changed = rois.copy()
    changed[:, :, 4] += 1
    alone = without(params, "local_frame", "local_global")
    moved = abs(run(alone, changed, context).deltas - run(alone, rois, context).deltas)
    assert (moved[:, :, 4] > 0).any()
    assert not np.delete(moved, 4, axis=2).any()
    moved = abs(run(params, changed, context).deltas - run(params, rois, context).deltas)
    assert (moved.reshape(B, N, L, -1).max(axis=-1) > 0).all()


def test_the_class_depends_on_every_frame(run, params, inputs):
    rois, context = inputs
    logits = run(params, rois, context).logits
    for frame in range(L):
        changed = rois.copy()
        changed[:, :, frame] += 1
        assert (run(params, changed, context).logits != logits).any(axis=-1).all()


def test_the_scene_reaches_the_class_alone(run, params, inputs):
    rois, context = inputs
    with_it, without_it = run(params, rois, context), run(params, rois, 0 * context)
    assert (with_it.logits != without_it.logits).all()
    for ours, theirs in zip(with_it[1:], without_it[1:], strict=True):
        np.testing.assert_array_equal(ours, theirs)


def test_the_scene_adds_the_same_logits_to_all_tubes_of_its_clip(run, params, inputs):
    rois, context = inputs
    added = run(params, rois, context).logits - run(params, rois, 0 * context).logits
    np.testing.assert_allclose(added, np.broadcast_to(added[:, :1], added.shape), atol=1e-5)
    assert (abs(added[0] - added[1]) > 1e-3).any(axis=-1).all()


def test_every_frame_and_place_of_the_scene_counts(run, params, inputs):
    rois, context = inputs
    logits = run(params, rois, context).logits
    for frame, row, column in ((0, 0, 0), (L - 1, P - 1, 0), (2, 1, P - 1)):
        changed = context.copy()
        changed[:, frame, row, column, 0] += 1
        assert (run(params, rois, changed).logits != logits).any(axis=-1).all()


def test_a_tubes_path_reaches_the_class_only_where_it_is_asked_for(head, inputs, run, params):
    seeing = head.clone(tube_path=True)
    rng = np.random.default_rng(2)
    layer = {"kernel": rng.normal(size=(4, 4)), "bias": np.zeros(4)}
    seeing_params = {"params": params | {"global_path": jax.tree.map(np.float32, layer)}}
    path = np.zeros((B, N, L, 4), np.float32)
    apply = jax.jit(seeing.apply)
    still = apply(seeing_params, *inputs, path)
    np.testing.assert_allclose(still.logits, run(params, *inputs).logits, atol=1e-5)
    path[0, 1, 3, 2] = 0.2
    differ = (apply(seeing_params, *inputs, path).logits != still.logits).any(axis=-1)
    np.testing.assert_array_equal(differ, [[False, True, False], [False, False, False]])
    assert "global_path" not in params


@pytest.mark.parametrize(("length", "bins"), [(6, 1), (6, 2), (7, 3), (2, 3)])
def test_max_over_time_is_the_loop(length, bins):
    x = np.random.default_rng(0).normal(size=(1, 2, length, 3, 2)).astype(np.float32)
    found, pull_back = jax.vjp(lambda x: heads.max_over_time(x, bins=bins), x)
    gradient = np.ones_like(found)
    expected, expected_gradient = np.full(found.shape, -np.inf), np.zeros_like(x)
    for n, part, i, c in np.ndindex(2, bins, 3, 2):
        start, stop = part * length // bins, -(-(part + 1) * length // bins)
        frames = list(x[0, n, start:stop, i, c])
        expected[0, n, i, part * 2 + c] = max(frames)
        expected_gradient[0, n, start + frames.index(max(frames)), i, c] += 1
    np.testing.assert_array_equal(found, expected)
    np.testing.assert_array_equal(pull_back(gradient)[0], expected_gradient)


def test_gradients_are_finite_without_xlas_optimisations(head, params, inputs):
    """Where values are computed twice and rounded differently, `jnp.max` divides 0 by 0."""

    def loss(params):
        return sum((leaf**2).sum() for leaf in head.apply({"params": params}, *inputs))

    compiled = (
        jax.jit(jax.grad(loss))
        .lower(params)
        .compile(
            compiler_options={
                "xla_backend_optimization_level": 0,
                "xla_llvm_disable_expensive_passes": True,
            }
        )
    )
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(compiled(params)))


def test_dropout_follows_the_example_not_its_place():
    x = np.ones((4, 50, 40), np.float32)
    keys = jax.random.split(jax.random.key(0), 4)
    dropped = np.asarray(heads.apply_dropout(x, rate=0.25, keys=keys))
    assert set(np.unique(dropped)) == {0, np.float32(1 / 0.75)}
    assert abs(dropped.mean() - 1) < 0.03
    halves = [heads.apply_dropout(x[i : i + 2], rate=0.25, keys=keys[i : i + 2]) for i in (0, 2)]
    np.testing.assert_array_equal(np.concatenate(halves), dropped)
    assert (dropped[0] != dropped[1]).any()
    assert heads.apply_dropout(x, rate=0.25, keys=None) is x


def test_dropout_is_of_the_classifier_alone(head, params, inputs, run):
    keys = jax.random.split(jax.random.key(1), B)
    dropped = jax.jit(head.apply)({"params": params}, *inputs, dropout_keys=keys)
    plain = run(params, *inputs)
    assert (dropped.logits != plain.logits).all()
    np.testing.assert_allclose(dropped.deltas, plain.deltas, atol=1e-6)


def test_scene_context_keeps_position_and_mean():
    features = np.zeros((1, 2, 6, 6, 2), np.float32)
    features[0, 1, :3] = 1  # the upper half, of the second frame
    found = np.asarray(heads.SceneContext(3).apply({}, features))
    assert found.shape == (1, 2, 3, 3, 2)
    assert not found[0, 0].any()
    np.testing.assert_allclose(found[0, 1].mean(), 0.5, atol=0.01)
    assert (np.diff(found[0, 1, :, 0, 0]) < -0.3).all()
    np.testing.assert_allclose(found[0, 1, :, 0], found[0, 1, :, 2], atol=1e-6)


def test_outputs_stay_float32_in_bfloat16(head, inputs):
    head = head.clone(dtype=jnp.bfloat16)
    out = jax.eval_shape(head.init_with_output, jax.random.key(0), *inputs)
    assert {leaf.dtype for leaf in jax.tree.leaves(out)} == {np.dtype(np.float32)}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"global_features": (4, 5, 6)}, r"3 global_features \(4, 5, 6\) for 2 global_kernels"),
        ({"global_kernels": ((1, 2, 4), (1, 1, 1))}, "pool_size 3: .* at least 4"),
    ],
)
def test_a_branch_that_does_not_fit_is_refused(head, inputs, changes, message):
    with pytest.raises(InputError, match=message):
        jax.eval_shape(head.clone(**changes).init, jax.random.key(0), *inputs)
