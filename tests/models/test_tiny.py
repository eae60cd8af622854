"""The tiny backbone's input channels against loops, and how far its features reach."""

import jax
import numpy as np
import pytest

from step_jax.errors import InputError
from step_jax.models import tiny

GAP = 2


@pytest.fixture(scope="module")
def clips():
    return np.random.default_rng(0).uniform(-1, 1, (2, 7, 16, 24, 3)).astype(np.float32)


@pytest.fixture(scope="module")
def backbone():
    """A jitted backbone of clips, with its parameters in place."""
    module = tiny.TinyBackbone(stem_features=3, features=4, num_blocks=1, difference_frames=GAP)
    rng = np.random.default_rng(1)
    shapes = jax.eval_shape(module.init, jax.random.key(0), np.zeros((1, 1, 16, 24, 3)))
    variables = jax.tree.map(lambda leaf: rng.normal(size=leaf.shape).astype(np.float32), shapes)
    return jax.jit(lambda clips: module.apply(variables, clips))


def test_motion_channels_are_the_absolute_differences_to_two_frames(clips):
    found = tiny.with_motion_energy(clips, gap=GAP)
    assert found.shape == (2, 7, 16, 24, 5)
    np.testing.assert_array_equal(found[..., :3], clips)
    for b, t in np.ndindex(2, 7):
        grey = clips[b].astype(np.float64).mean(axis=-1)
        before = abs(grey[t] - grey[max(t - GAP, 0)])
        after = abs(grey[min(t + GAP, 6)] - grey[t])
        np.testing.assert_allclose(found[b, t, :, :, 3], 4 * before, atol=1e-5)
        np.testing.assert_allclose(found[b, t, :, :, 4], 4 * after, atol=1e-5)


def test_patches_are_the_squares_of_the_image():
    images = np.random.default_rng(0).normal(size=(2, 4, 6, 3))
    patches = tiny.patchify(images, size=2)
    assert patches.shape == (2, 2, 3, 12)
    for n, i, j in np.ndindex(2, 2, 3):
        square = images[n, 2 * i : 2 * i + 2, 2 * j : 2 * j + 2]
        np.testing.assert_array_equal(patches[n, i, j], square.ravel())


def test_coordinates_are_the_cells_centres():
    features = np.zeros((2, 2, 4, 3), np.float32)
    found = np.asarray(tiny.with_coordinates(features))
    assert found.shape == (2, 2, 4, 5)
    np.testing.assert_allclose(found[1, 0, :, 3], [-0.75, -0.25, 0.25, 0.75])
    np.testing.assert_allclose(found[1, :, 2, 4], [-0.5, 0.5])


def test_features_have_the_declared_strides(backbone, clips):
    features = backbone(clips)
    stride = tiny.TinyBackbone.spatial_stride
    assert tiny.TinyBackbone.temporal_stride == 1
    assert features.shape == (2, 7, 16 // stride, 24 // stride, 4)


def test_frames_and_cells_are_read_where_they_are(backbone, clips):
    """A change shows at its own frame, `GAP` frames away, and in the cells around; no further."""
    changed = clips.copy()
    changed[1, 4, :8, :8] += 0.5
    difference = abs(np.asarray(backbone(changed) - backbone(clips))).max(axis=-1)
    assert not difference[0].any()
    assert set(np.flatnonzero(difference[1].max(axis=(1, 2)))) == {4 - GAP, 4, 4 + GAP}
    assert (difference[1, 4, :, :2] > 0).all()  # a 3x3 convolution: the cell's neighbours too
    assert not difference[:, :, :, 2].any()


@pytest.mark.parametrize("side", [20, 17])
def test_an_image_that_does_not_divide_is_refused(side):
    module = tiny.TinyBackbone(stem_features=2, features=2)
    clips = jax.ShapeDtypeStruct((1, 2, 16, side, 3), np.float32)
    with pytest.raises(InputError, match=f"image_size is {side}; expected a multiple of .* 8"):
        jax.eval_shape(module.init, jax.random.key(0), clips)


@pytest.mark.parametrize(("channels", "rgb", "stem"), [(6, False, 6), (9, True, 11)])
def test_flow_images_are_read_as_they_are(clips, channels, rgb, stem):
    """The motion energy is that of RGB; flow alone has none."""
    module = tiny.TinyBackbone(channels, rgb, stem_features=3, features=4, difference_frames=GAP)
    more = np.random.default_rng(1).uniform(-1, 1, (*clips.shape[:4], channels - 3))
    both = np.concatenate([clips, more], axis=-1).astype(np.float32)
    variables = module.init(jax.random.key(0), both)
    assert variables["params"]["stem"]["kernel"].shape == (16 * stem, 3)

    def changed_frames(channel):
        changed = both.copy()
        changed[0, 3, ..., channel] += 0.5
        difference = module.apply(variables, changed) - module.apply(variables, both)
        return set(np.flatnonzero(abs(np.asarray(difference[0])).max(axis=(1, 2, 3)) > 1e-6))

    assert changed_frames(0) == ({3 - GAP, 3, 3 + GAP} if rgb else {3})
    assert changed_frames(channels - 1) == {3}
    with pytest.raises(InputError, match=f"channels {channels}: found clips of 3 channels"):
        module.apply(variables, clips)
