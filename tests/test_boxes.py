"""Boxes against the released model's numbers and against definitions, for NumPy and JAX alike."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from step_jax import boxes

both_namespaces = pytest.mark.parametrize("xp", [np, jnp])


@pytest.fixture(scope="module")
def golden(data_dir):
    with np.load(data_dir / "golden_ops_geometry.npz") as arrays:
        return dict(arrays)


def random_boxes(rng, *shape):
    corners = np.sort(rng.uniform(-20, 120, (*shape, 2, 2)), axis=-2)
    return corners.reshape(*shape, 4).astype(np.float32)


def plain_iou(a, b, extra=0):
    """The overlap of two boxes of Python floats, by the definition."""
    ax1, ay1, ax2, ay2 = map(float, a)
    bx1, by1, bx2, by2 = map(float, b)
    w = max(min(ax2, bx2) - max(ax1, bx1) + extra, 0)
    h = max(min(ay2, by2) - max(ay1, by1) + extra, 0)
    area_a = (ax2 - ax1 + extra) * (ay2 - ay1 + extra)
    area_b = (bx2 - bx1 + extra) * (by2 - by1 + extra)
    return w * h / (area_a + area_b - w * h)


@both_namespaces
def test_codec_reproduces_the_released_model(golden, xp):
    targets = boxes.encode_boxes(xp.asarray(golden["codec_gt"]), xp.asarray(golden["codec_prop"]))
    decoded = boxes.decode_boxes(
        xp.asarray(golden["codec_delta"]), xp.asarray(golden["codec_prop"])
    )
    assert targets.dtype == decoded.dtype == np.float32
    np.testing.assert_allclose(targets, golden["codec_encode"], atol=1e-6)
    np.testing.assert_allclose(decoded, golden["codec_decode"], atol=1e-3, rtol=1e-6)


def test_decode_inverts_encode():
    rng = np.random.default_rng(0)
    wanted, references = random_boxes(rng, 5, 7), random_boxes(rng, 5, 7)
    decoded = boxes.decode_boxes(boxes.encode_boxes(wanted, references), references)
    np.testing.assert_allclose(decoded, wanted, atol=1e-4)


def test_zero_deltas_keep_the_box():
    box = np.array([3, 5, 3, 9], np.float32)  # one pixel wide, counted inclusively
    np.testing.assert_allclose(boxes.decode_boxes(np.zeros(4, np.float32), box), box)


@both_namespaces
@pytest.mark.parametrize(("key", "height", "width"), [("400", 400, 400), ("160x120", 120, 160)])
def test_make_valid_reproduces_the_released_model(golden, xp, key, height, width):
    valid = boxes.make_valid(xp.asarray(golden["valid_in"]), height=height, width=width)
    assert valid.dtype == np.float32
    np.testing.assert_array_equal(valid, golden[f"valid_out_{key}"])


@pytest.mark.parametrize(
    ("box", "kept"),
    [
        ([10, 10, 12, 40], False),  # two pixels wide
        ([10, 10, 12.01, 40], True),
        ([10, 38, 20, 40], False),  # two pixels high
        ([98.5, 10, 130, 40], False),  # two pixels or less are left by clipping
        ([30, 10, 20, 40], False),  # inverted
        ([-9, -9, -3, -3], False),  # outside
        ([-np.inf, -np.inf, np.inf, np.inf], True),  # decoded from a huge exponent
    ],
)
def test_make_valid_replaces_degenerate_boxes(box, kept):
    box = np.array(box, np.float32)
    expected = np.clip(box, 0, [100, 50, 100, 50]) if kept else [0, 0, 100, 50]
    np.testing.assert_array_equal(boxes.make_valid(box, height=50, width=100), expected)


def test_clip_keeps_each_axis_to_its_side():
    clipped = boxes.clip_boxes(np.array([[-5, -6, 70, 80]], np.float32), height=30, width=50)
    np.testing.assert_array_equal(clipped, [[0, 0, 50, 30]])


@both_namespaces
def test_iou_reproduces_the_released_model(golden, xp):
    iou = boxes.pairwise_iou(xp.asarray(golden["codec_gt"]), xp.asarray(golden["codec_prop"]))
    np.testing.assert_allclose(iou, golden["iou_box"], atol=1e-6)
    tube_iou = boxes.tube_iou(xp.asarray(golden["iou_tube_a"]), xp.asarray(golden["iou_tube_b"]))
    expected = golden["iou_tube"]
    defined = ~np.isnan(expected)  # the original divides 0 by 0 for a degenerate pair
    assert np.isfinite(tube_iou).all()
    np.testing.assert_allclose(np.asarray(tube_iou)[defined], expected[defined], atol=1e-6)


@both_namespaces
@pytest.mark.parametrize("inclusive", [False, True])
def test_pairwise_iou_is_the_loop(xp, inclusive):
    rng = np.random.default_rng(1)
    a, b = random_boxes(rng, 2, 6), random_boxes(rng, 2, 5)
    iou = np.asarray(boxes.pairwise_iou(xp.asarray(a), xp.asarray(b), inclusive=inclusive))
    for n, i, j in np.ndindex(2, 6, 5):
        assert iou[n, i, j] == pytest.approx(plain_iou(a[n, i], b[n, j], int(inclusive)), abs=1e-5)


def test_degenerate_boxes_overlap_nothing():
    cases = [[4, 4, 4, 4], [9, 9, 2, 2], [4, 4, 4, 8], [-np.inf, -np.inf, np.inf, np.inf]]
    with np.errstate(invalid="ignore"):  # inf - inf
        iou = boxes.pairwise_iou(np.array(cases, np.float32), np.array(cases, np.float32))
    np.testing.assert_array_equal(iou, np.zeros((4, 4)))


@both_namespaces
def test_tube_iou_averages_the_frames_that_exist(xp):
    rng = np.random.default_rng(2)
    a, b = random_boxes(rng, 4, 5), random_boxes(rng, 3, 5)
    mask = np.array([[1, 1, 1, 1, 1], [0, 1, 0, 0, 1], [0, 0, 0, 0, 0]], bool)
    b[~mask] = np.nan  # whatever padding holds
    iou = np.asarray(boxes.tube_iou(xp.asarray(a), xp.asarray(b), frame_mask=xp.asarray(mask)))
    for i, j in np.ndindex(4, 3):
        frames = [plain_iou(a[i, t], b[j, t]) for t in range(5) if mask[j, t]]
        assert iou[i, j] == pytest.approx(np.mean(frames) if frames else 0, abs=1e-5)


def test_numpy_and_traced_arrays_mix():
    rng = np.random.default_rng(3)
    a, b = random_boxes(rng, 4) / 100, random_boxes(rng, 4) / 100
    for function in (boxes.encode_boxes, boxes.decode_boxes, boxes.box_iou, boxes.pairwise_iou):
        expected = function(a, b)
        np.testing.assert_allclose(jax.jit(lambda x, f=function: f(x, b))(a), expected, rtol=1e-4)
        np.testing.assert_allclose(jax.jit(lambda x, f=function: f(a, x))(b), expected, rtol=1e-4)


def test_scale_boxes_turns_fractions_into_pixels():
    scaled = boxes.scale_boxes(np.array([[0.25, 0.5, 1, 1]], np.float32), width=320, height=240)
    np.testing.assert_array_equal(scaled, [[80, 120, 320, 240]])
