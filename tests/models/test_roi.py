"""RoIAlign and RoIPool against the released model's numbers and against loops."""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from step_jax.models import roi

# Map height, width, pooled size, stride.
GEOMETRIES = [(12, 12, 5, 8), (9, 14, 7, 16), (25, 6, 3, 4), (1, 5, 2, 8)]


@pytest.fixture(scope="module")
def golden(data_dir):
    with np.load(data_dir / "golden_ops_roi.npz") as arrays:
        return dict(arrays)


@pytest.fixture(params=["at_once", "by_axis"])
def interpolation(request, monkeypatch):
    """Both ways to interpolate, whatever the platform."""
    monkeypatch.setattr(roi, "_interpolate", getattr(roi, f"_interpolate_{request.param}"))


def make_boxes(rng, height, width, stride, lead=()):
    """Ordinary boxes, and those that need care: outside, tiny, inverted, huge, on half cells."""
    size = np.array([width, height, width, height]) * stride
    inside = np.sort(rng.uniform(0, 1, (*lead, 5, 2, 2)), axis=-2).reshape(*lead, 5, 4)
    crossing = np.sort(rng.uniform(-0.4, 1.4, (*lead, 4, 2, 2)), axis=-2).reshape(*lead, 4, 4)
    special = np.array(
        [
            [0, 0, 1, 1],
            [-3.1, -2.3, 4.2, 3.8],
            [0.31, 0.42, 0.32, 0.43],
            [0.6, 0.5, 0.2, 0.1],
            [1.7, 0.1, 2.3, 0.7],
            [-1 / width, -1 / height, 1 + 1 / width, 1 + 1 / height],
            [0.5 / width, 0.5 / height, 2.5 / width, 3.5 / height],
        ]
    )
    special = np.broadcast_to(special, (*lead, *special.shape))
    return (np.concatenate([inside, crossing, special], axis=-2) * size).astype(np.float32)


def loop_align(features, boxes, output_size, stride):
    """The definition, sample by sample: the weight `[N, P, P, H, W]` of each cell."""
    height, width, _ = features.shape
    weights = np.zeros((len(boxes), output_size, output_size, height, width))
    for n, i, j in np.ndindex(weights.shape[:3]):
        x1, y1, x2, y2 = boxes[n].astype(np.float64) / stride
        w, h = max(x2 - x1, 1), max(y2 - y1, 1)
        nx, ny = math.ceil(w / output_size), math.ceil(h / output_size)
        for a, b in np.ndindex(ny, nx):
            y = y1 + (i + (a + 0.5) / ny) * h / output_size
            x = x1 + (j + (b + 0.5) / nx) * w / output_size
            if y < -1 or y > height or x < -1 or x > width:
                continue
            y, x = min(max(y, 0), height - 1), min(max(x, 0), width - 1)
            top, left = int(y), int(x)
            below, right = min(top + 1, height - 1), min(left + 1, width - 1)
            for row, share_y in ((top, 1 - (y - top)), (below, y - top)):
                for column, share_x in ((left, 1 - (x - left)), (right, x - left)):
                    weights[n, i, j, row, column] += share_y * share_x / (ny * nx)
    return weights


def loop_pool(features, boxes, output_size, stride):
    """Maxima `[N, P, P, C]` and the flat index of the first cell of each, -1 in an empty bin."""
    height, width, channels = features.shape
    maxima = np.zeros((len(boxes), output_size, output_size, channels), features.dtype)
    first = np.full(maxima.shape, -1)
    for n, i, j in np.ndindex(maxima.shape[:3]):
        box = boxes[n] / stride
        x1, y1, x2, y2 = (int(math.copysign(math.floor(abs(v) + 0.5), v)) for v in box)
        w, h = max(x2 - x1 + 1, 1), max(y2 - y1 + 1, 1)
        ys = [y1 + y for y in range(i * h // output_size, -(-(i + 1) * h // output_size))]
        xs = [x1 + x for x in range(j * w // output_size, -(-(j + 1) * w // output_size))]
        cells = [(y, x) for y in ys for x in xs if 0 <= y < height and 0 <= x < width]
        for c in range(channels) if cells else ():
            values = [features[y, x, c] for y, x in cells]
            y, x = cells[values.index(max(values))]
            maxima[n, i, j, c], first[n, i, j, c] = features[y, x, c], y * width + x
    return maxima, first


def run(pool, features, gradient):
    """`pool(features)` and the gradient of the features for one of the output."""

    @jax.jit
    def both(features, gradient):
        out, pull_back = jax.vjp(pool, features)
        return out, pull_back(gradient)[0]

    return [np.asarray(x) for x in both(features, gradient)]


def run_golden(pool, golden):
    """The same on the reference's arrays, in its channels-first layout."""
    frames = golden["roi_rois"][:, 0].astype(int)
    boxes = golden["roi_rois"][:, None, 1:]
    results = run(
        lambda features: pool(features[frames], boxes, output_size=7, stride=16)[:, 0],
        np.moveaxis(golden["roi_feat"], 1, -1),
        np.moveaxis(golden["roi_grad"], 1, -1),
    )
    return [np.moveaxis(x, -1, 1) for x in results]


@pytest.mark.usefixtures("interpolation")
def test_align_reproduces_the_released_model(golden):
    out, gradient = run_golden(roi.roi_align, golden)
    np.testing.assert_allclose(out, golden["roi_align_out"], atol=1e-5)
    np.testing.assert_allclose(gradient, golden["roi_align_dfeat"], atol=2e-5)


def test_pool_reproduces_the_released_model(golden):
    out, gradient = run_golden(roi.roi_pool, golden)
    np.testing.assert_array_equal(out, golden["roi_pool_out"])
    np.testing.assert_allclose(gradient, golden["roi_pool_dfeat"], atol=5e-6)


@pytest.mark.usefixtures("interpolation")
@pytest.mark.parametrize(("height", "width", "size", "stride"), GEOMETRIES)
def test_align_is_the_loop(height, width, size, stride):
    rng = np.random.default_rng(height)
    features = rng.normal(size=(height, width, 3)).astype(np.float32)
    boxes = make_boxes(rng, height, width, stride)
    weights = loop_align(features, boxes, size, stride)
    gradient = rng.normal(size=(len(boxes), size, size, 3)).astype(np.float32)
    align = functools.partial(roi.roi_align, boxes=boxes, output_size=size, stride=stride)
    out, pulled = run(align, features, gradient)
    np.testing.assert_allclose(out, np.einsum("nijhw,hwc->nijc", weights, features), atol=1e-5)
    expected = np.einsum("nijhw,nijc->hwc", weights, gradient)
    np.testing.assert_allclose(pulled, expected, atol=2e-5)


@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize(("height", "width", "size", "stride"), GEOMETRIES)
def test_pool_is_the_loop(height, width, size, stride, ties):
    rng = np.random.default_rng(width)
    features = rng.normal(size=(height, width, 3)).astype(np.float32)
    if ties:
        features = np.maximum(np.round(features), 0)
    boxes = make_boxes(rng, height, width, stride)
    maxima, first = loop_pool(features, boxes, size, stride)
    gradient = rng.normal(size=maxima.shape).astype(np.float32)
    pool = functools.partial(roi.roi_pool, boxes=boxes, output_size=size, stride=stride)
    out, pulled = run(pool, features, gradient)
    expected = np.zeros((height * width, 3))
    for *place, channel in np.argwhere(first >= 0):
        expected[first[(*place, channel)], channel] += gradient[(*place, channel)]
    np.testing.assert_array_equal(out, maxima)
    np.testing.assert_allclose(pulled.reshape(-1, 3), expected, atol=1e-5)


@pytest.mark.parametrize("pool", [roi.roi_align, roi.roi_pool])
def test_leading_dimensions_are_independent(pool):
    rng = np.random.default_rng(0)
    features = rng.normal(size=(2, 3, 17, 16, 2)).astype(np.float32)
    boxes = make_boxes(rng, 17, 16, 8, lead=(2, 3))
    pool = jax.jit(functools.partial(pool, output_size=3, stride=8))
    singly = [[pool(features[b, t], boxes[b, t]) for t in range(3)] for b in range(2)]
    np.testing.assert_allclose(pool(features, boxes), np.array(singly), atol=1e-6)
    np.testing.assert_allclose(jax.vmap(pool)(features, boxes), np.array(singly), atol=1e-6)


@pytest.mark.parametrize("pool", [roi.roi_align, roi.roi_pool])
def test_boxes_get_no_gradient(pool):
    rng = np.random.default_rng(0)
    features = jnp.asarray(rng.normal(size=(9, 9, 2)), jnp.float32)
    boxes = jnp.asarray([[3.0, 5.0, 50.0, 60.0]])
    gradient = jax.jit(jax.grad(lambda b: pool(features, b, output_size=3, stride=8).sum()))(boxes)
    np.testing.assert_array_equal(gradient, np.zeros((1, 4)))


@pytest.mark.parametrize("pool", [roi.roi_align, roi.roi_pool])
@pytest.mark.usefixtures("interpolation")
def test_bfloat16_features_keep_float32_geometry(pool):
    """A corner at 200.6 would be 201 in bfloat16, which pools other cells."""
    rng = np.random.default_rng(0)
    features = jnp.asarray(rng.normal(size=(20, 20, 4)), jnp.bfloat16)
    boxes = make_boxes(rng, 20, 20, 16)
    pool = jax.jit(functools.partial(pool, boxes=boxes, output_size=7, stride=16))
    out, exact = pool(features), pool(features.astype(jnp.float32))
    assert out.dtype == jnp.bfloat16
    np.testing.assert_allclose(out.astype(jnp.float32), exact, atol=0.03)


@pytest.mark.parametrize("pool", [roi.roi_align, roi.roi_pool])
def test_other_platforms_compile_too(pool):
    def loss(features, boxes):
        return pool(features, boxes, output_size=7, stride=16).sum()

    shapes = jnp.zeros((2, 25, 25, 8)), jnp.zeros((2, 3, 4))
    exported = jax.export.export(jax.jit(jax.grad(loss)), platforms=["cuda", "tpu"])(*shapes)
    assert exported.out_avals[0].shape == (2, 25, 25, 8)


def test_leading_dimensions_must_agree():
    with pytest.raises(AssertionError, match="leading"):
        roi.roi_align(jnp.zeros((3, 9, 9, 2)), jnp.zeros((2, 5, 4)), output_size=7, stride=16)
