"""Temporal extension against the released model's numbers and against the paper's formula."""

import jax.numpy as jnp
import numpy as np
import pytest

from step_jax import tubes
from step_jax.errors import InputError

both_namespaces = pytest.mark.parametrize("xp", [np, jnp])


@pytest.fixture(scope="module")
def golden(data_dir):
    with np.load(data_dir / "golden_ops_geometry.npz") as arrays:
        return dict(arrays)


def extend(boxes, method, chunk, **arguments):
    return tubes.extend(boxes, method=method, chunk=chunk, height=50, width=80, **arguments)


def straight_tube(num_frames):
    """A tube that moves by (2, 1) pixels a frame and grows by (1, 1)."""
    return np.array([[2 * t, t, 30 + 3 * t, 20 + 2 * t] for t in range(num_frames)], np.float32)


@both_namespaces
@pytest.mark.parametrize(("key", "chunk"), [("extrap", 3), ("extrap6", 6)])
def test_recursive_reproduces_the_released_model(golden, xp, key, chunk):
    extended = tubes.extend(
        xp.asarray(golden[f"{key}_in"]), method="recursive", chunk=chunk, height=400, width=400
    )
    assert extended.dtype == np.float32
    np.testing.assert_allclose(extended, golden[f"{key}_out_T{chunk}"], rtol=1e-6, atol=1e-3)


def test_recursive_clips_one_side_of_every_frame():
    tube = np.array([[[-3, -4, 70, 40], [-3, 9, 90, 60]]], np.float32)
    extended = extend(tube, "recursive", 1)
    expected = [[0, 0, 70, 40], [0, 0, 70, 40], [0, 9, 79, 49], [0, 9, 79, 49]]
    np.testing.assert_array_equal(extended, [expected])


@both_namespaces
@pytest.mark.parametrize("num_frames", [4, 7])
def test_extrapolate_is_equation_4(xp, num_frames):
    tube = np.random.default_rng(0).uniform(0, 80, (2, num_frames, 4)).astype(np.float32)
    extended = extend(xp.asarray(tube), "extrapolate", 4)
    assert extended.shape == (2, num_frames + 8, 4)
    assert extended.dtype == np.float32
    np.testing.assert_array_equal(extended[:, 4:-4], tube)
    for k in range(1, 5):
        after = tube[:, -1] + k / 3 * (tube[:, -1] - tube[:, -4])
        before = tube[:, 0] + k / 3 * (tube[:, 0] - tube[:, 3])
        np.testing.assert_allclose(extended[:, 3 + num_frames + k], after, atol=1e-4)
        np.testing.assert_allclose(extended[:, 4 - k], before, atol=1e-4)


def test_uniform_motion_goes_on():
    tube = straight_tube(18) + 100
    for method in ("extrapolate", "recursive"):
        extended = tubes.extend(tube[6:12], method=method, chunk=6, height=999, width=999)
        np.testing.assert_allclose(extended, tube, atol=1e-3)


@pytest.mark.parametrize("method", ["extrapolate", "recursive"])
def test_a_clip_of_one_frame_is_repeated(method):
    tube = straight_tube(3) + 1
    np.testing.assert_array_equal(extend(tube, method, 1), tube[[0, 0, 1, 2, 2]])


def test_anticipate_joins_what_the_network_says():
    first, current, last = straight_tube(9).reshape(3, 3, 4)
    extended = extend(current, "anticipate", 3, anticipated=(first, last))
    np.testing.assert_array_equal(extended, straight_tube(9))


@both_namespaces
def test_mean_makes_a_cuboid(xp):
    extended = extend(xp.asarray(straight_tube(3)[None]), "mean", 3)
    np.testing.assert_allclose(extended, np.broadcast_to(straight_tube(3)[1], (1, 9, 4)))


def test_unknown_method_names_the_known_ones():
    with pytest.raises(InputError, match="'linear' is none of extrapolate, recursive"):
        extend(straight_tube(3), "linear", 3)


def test_path_tells_motion_whatever_the_place_and_size():
    rng = np.random.default_rng(3)
    centres = rng.uniform(20, 80, (5, 2))
    sides = rng.uniform(5, 30, (5, 2))
    tube = np.concatenate([centres - sides / 2, centres + sides / 2], axis=1)
    found = tubes.path(tube[None])[0]
    for frame in range(5):
        for axis in range(2):
            offset = (centres[frame, axis] - centres[:, axis].mean()) / sides[:, axis].mean()
            np.testing.assert_allclose(found[frame, axis], offset)
            log_side = np.log(sides[frame, axis] / sides[:, axis].mean())
            np.testing.assert_allclose(found[frame, 2 + axis], log_side)
    np.testing.assert_allclose(tubes.path(3 * tube[None] + 7)[0], found)
    np.testing.assert_allclose(tubes.path(np.broadcast_to(tube[0], (6, 4))), 0, atol=1e-12)
    assert np.isfinite(tubes.path(tube[:, [2, 3, 0, 1]])).all()
