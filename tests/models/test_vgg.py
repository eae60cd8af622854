"""VGG16 against a float64 forward pass in numpy, its pooling against loops, its sizes."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from step_jax.errors import InputError
from step_jax.models import platform, vgg

CHANNELS = {  # of each convolution, from the torchvision model's printout
    **{"conv1_1": 64, "conv1_2": 64, "conv2_1": 128, "conv2_2": 128},
    **{"conv3_1": 256, "conv3_2": 256, "conv3_3": 256},
    **{"conv4_1": 512, "conv4_2": 512, "conv4_3": 512},
    **{"conv5_1": 512, "conv5_2": 512, "conv5_3": 512},
}
POOLED = ("conv2_1", "conv3_1", "conv4_1", "conv5_1")  # a pooling before each


def shapes_of(module, *, side=16):
    clips = jax.ShapeDtypeStruct((1, 1, side, side, module.channels), jnp.float32)
    return jax.eval_shape(module.init, jax.random.key(0), clips)["params"]


def random_weights(module):
    """He's spread, and biases that matter."""
    rng = np.random.default_rng(0)

    def weights(leaf):
        scale = 0.1 if len(leaf.shape) == 1 else np.sqrt(2 / np.prod(leaf.shape[:-1]))
        return (scale * rng.standard_normal(leaf.shape)).astype(np.float32)

    return jax.tree.map(weights, shapes_of(module))


def slow_forward(params, image):
    """One normalised image `[H, W, C]` in float64 -> conv5_3, `[h, w, 512]`."""
    x = image.astype(np.float64)
    for name in CHANNELS:
        if name in POOLED:
            x = slow_max_pool(x)
        kernel, bias = (params[name][part].astype(np.float64) for part in ("kernel", "bias"))
        height, width = x.shape[:2]
        padded = np.pad(x, ((1, 1), (1, 1), (0, 0)))
        y = np.zeros((height, width, kernel.shape[-1])) + bias
        for i, j in np.ndindex(3, 3):
            y += np.tensordot(padded[i : i + height, j : j + width], kernel[i, j], axes=1)
        x = np.maximum(y, 0)
    return x


def slow_max_pool(x):
    height, width, channels = x.shape
    out = np.empty((height // 2, width // 2, channels))
    for i, j in np.ndindex(*out.shape[:2]):
        out[i, j] = x[2 * i : 2 * i + 2, 2 * j : 2 * j + 2].max(axis=(0, 1))
    return out


def slow_normalise(image):
    """Pixels in [-1, 1], RGB and then flow, as torchvision's weights want them."""
    image = (image.astype(np.float64) + 1) / 2
    rgb = (image[..., :3] - (0.485, 0.456, 0.406)) / (0.229, 0.224, 0.225)
    return np.concatenate([rgb, (image[..., 3:] - 128 / 255) / 0.226], axis=-1)


def test_features_are_the_slow_ones():
    """RGB and five flow maps, two frames in groups of one, sides that no pooling divides."""
    module = vgg.VGG16Backbone(channels=18, frames_at_once=1)
    params = random_weights(module)
    clips = np.random.default_rng(1).uniform(-1, 1, (1, 2, 35, 54, 18)).astype(np.float32)
    found = np.asarray(jax.jit(module.apply)({"params": params}, clips))
    assert found.shape == (1, 2, 2, 3, 512)
    for frame in range(2):
        expected = slow_forward(params, slow_normalise(clips[0, frame]))
        assert expected.max() > 1
        np.testing.assert_allclose(found[0, frame], expected, rtol=1e-5, atol=1e-5 * expected.max())


@pytest.mark.parametrize("name", ["cpu", "gpu"])
@pytest.mark.parametrize("shape", [(8, 9, 3), (8, 9, 32), (7, 7, 32)])
def test_every_convolution_is_the_loops(name, shape):
    """Of few channels, of many, and of small maps, which are computed in other ways."""
    rng = np.random.default_rng(0)
    x, kernel = rng.normal(size=(2, *shape)), rng.normal(size=(3, 3, shape[-1], 5))
    x, kernel = x.astype(np.float32), kernel.astype(np.float32)
    with platform.assumed(name):
        found = jax.jit(lambda *arrays: vgg.conv3x3(*arrays))(x, kernel)
    expected = np.zeros((2, *shape[:2], 5))
    padded = np.pad(x.astype(np.float64), ((0, 0), (1, 1), (1, 1), (0, 0)))
    for i, j in np.ndindex(3, 3):
        shifted = padded[:, i : i + shape[0], j : j + shape[1]]
        expected += np.tensordot(shifted, kernel[i, j].astype(np.float64), axes=1)
    np.testing.assert_allclose(found, expected, atol=1e-5 * np.abs(expected).max())


def test_parameters_are_those_of_imagenets_model():
    shapes = shapes_of(vgg.VGG16Backbone())
    assert {name: layer["bias"].shape for name, layer in shapes.items()} == {
        name: (features,) for name, features in CHANNELS.items()
    }
    assert shapes["conv1_1"]["kernel"].shape == (3, 3, 3, 64)
    assert shapes["conv4_1"]["kernel"].shape == (3, 3, 256, 512)
    assert sum(np.prod(leaf.shape) for leaf in jax.tree.leaves(shapes)) == 14_714_688


def test_the_computation_is_in_the_given_type():
    module = vgg.VGG16Backbone(dtype=jnp.bfloat16)
    clips = jax.ShapeDtypeStruct((2, 3, 400, 400, 3), jnp.float32)
    variables = jax.eval_shape(module.init, jax.random.key(0), clips)
    out = jax.eval_shape(module.apply, variables, clips)
    assert (out.shape, out.dtype) == ((2, 3, 25, 25, 512), jnp.bfloat16)
    assert {leaf.dtype for leaf in jax.tree.leaves(variables)} == {jnp.dtype("float32")}


@pytest.mark.parametrize(
    ("channels", "rgb", "neutral"),
    [
        (3, True, [0.485, 0.456, 0.406]),
        (15, False, [128 / 255] * 15),
        (18, True, [0.485, 0.456, 0.406, *[128 / 255] * 15]),
    ],
)
def test_the_mean_colour_and_no_motion_become_zero(channels, rgb, neutral):
    """So that the convolutions' zero padding continues them."""
    scale, shift = vgg.input_scaling(channels, rgb=rgb)
    assert scale.shape == shift.shape == (channels,)
    np.testing.assert_allclose((2 * np.array(neutral) - 1) * scale + shift, 0, atol=1e-6)


def test_pooling_and_its_gradient_are_the_loops():
    rng = np.random.default_rng(0)
    x = rng.integers(0, 3, (2, 5, 6, 3)).astype(np.float32)  # many equal cells
    weights = rng.normal(size=(2, 2, 3, 3)).astype(np.float32)
    found, pull_back = jax.vjp(vgg.max_pool_2x2, x)
    (gradient,) = pull_back(weights)
    expected = np.zeros_like(x)
    for n, i, j, c in np.ndindex(*found.shape):
        window = x[n, 2 * i : 2 * i + 2, 2 * j : 2 * j + 2, c]
        assert found[n, i, j, c] == window.max()
        row, column = divmod(int(window.argmax()), 2)  # the first
        expected[n, 2 * i + row, 2 * j + column, c] += weights[n, i, j, c]
    np.testing.assert_array_equal(gradient, expected)


@pytest.mark.parametrize("size", [0, 1, 3, 5, 8])
def test_groups_change_neither_values_nor_gradients(size):
    rng = np.random.default_rng(0)
    images, matrix = rng.normal(size=(5, 4)), rng.normal(size=(4, 2))
    seen = set()

    def loss(matrix, size):
        def function(x):
            seen.add(len(x))
            return jnp.tanh(x @ matrix)

        found = vgg.in_groups(function, images, size=size)
        assert found.shape == (5, 2)
        return (found**2 * np.arange(5)[:, None]).sum()

    value, gradient = jax.value_and_grad(loss)(matrix, size)
    assert seen == {size if 0 < size < 5 else 5}
    expected, expected_gradient = jax.value_and_grad(loss)(matrix, 0)
    assert float(value) == pytest.approx(float(expected), rel=1e-5)
    np.testing.assert_allclose(gradient, expected_gradient, rtol=1e-4, atol=1e-6)


def test_groups_bound_what_the_backward_pass_holds():
    """As the compiler counts it: however many images there are."""
    matrix = np.ones((1, 1000), np.float32)

    def temporary(number, size):
        def loss(images):
            return vgg.in_groups(lambda x: jnp.sin(jnp.sin(x @ matrix)), images, size=size).sum()

        images = jax.ShapeDtypeStruct((number, 100, 1), jnp.float32)
        compiled = jax.jit(jax.grad(loss)).lower(images).compile()
        return compiled.memory_analysis().temp_size_in_bytes

    assert temporary(16, 2) < 1.1 * temporary(4, 2)
    assert temporary(16, 2) < 0.5 * temporary(16, 0)


@pytest.mark.parametrize(
    ("options", "shape", "message"),
    [
        ({}, (1, 1, 15, 32, 3), "data.image_size is 15; the VGG16 backbone needs 16 or more"),
        ({}, (1, 1, 16, 16, 18), "channels 3: found clips of 18 channels"),
        ({"channels": 2}, (1, 1, 16, 16, 2), "channels 2: expected 3 or more with rgb=True"),
        ({"blocks": ((1, 8), (1, 8))}, (1, 1, 16, 16, 3), "blocks .*: expected five"),
        ({"channels": 0, "rgb": False}, (1, 1, 16, 16, 0), "channels 0: expected 1 or more"),
    ],
)
def test_what_does_not_fit_is_refused(options, shape, message):
    module = vgg.VGG16Backbone(**options)
    with pytest.raises(InputError, match=message):
        jax.eval_shape(module.init, jax.random.key(0), jax.ShapeDtypeStruct(shape, jnp.float32))
