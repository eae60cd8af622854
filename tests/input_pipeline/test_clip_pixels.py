"""The pixels of training clips, against loops and against what evaluation does in the graph."""

import numpy as np
import pytest
import tensorflow as tf

from input_pipeline import augment, pixels, triangle
from input_pipeline.clip_pixels import (
    ClipFinisher,
    Retouch,
    colours_about,
    covered_pixels,
    finish,
    resize,
)
from step_jax.flow.encoding import encode_flow

PLAIN = Retouch(False, None, None)
UNCHANGED, NOTHING = np.zeros((0, 5), np.float32), np.zeros(4, np.float32)


def pictures(*shape, seed=0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (*shape, 3)).astype(np.uint8)


def finished(picture, side, kind="frames", **changes) -> np.ndarray:
    out = np.full((side, side, 3), 77, np.uint8)
    finish(kind, picture, PLAIN._replace(**changes), out)
    return out


# --- resize


@pytest.mark.parametrize("size", [(40, 40), (31, 17), (40, 21), (60, 75), (90, 40), (23, 200)])
def test_resize_is_that_of_evaluation(size):
    """All but a few values in a thousand, which are half a level, and they by one."""
    frames = pictures(4, *size)
    expected = pixels.to_uint8(pixels.resize(tf.constant(frames), 40)).numpy().astype(int)
    found = np.stack([finished(frame, 40) for frame in frames])
    assert np.abs(found - expected).max() <= 1
    assert (found != expected).mean() < 0.02


@pytest.mark.parametrize(("count", "size"), [(50, 20), (21, 20), (7, 16), (3, 1), (1, 5), (400, 9)])
def test_bands_of_weights_against_loops(count, size):
    first, weights = triangle.band_weights(count, size)
    ratio = count / size
    for row in range(size):
        band, own = divmod(row, triangle.BAND)
        found = np.zeros(count)
        found[first[band] : first[band] + weights.shape[2]] = weights[band, own]
        centre = (row + 0.5) * ratio
        expected = [max(0, 1 - abs(i + 0.5 - centre) / max(1, ratio)) for i in range(count)]
        np.testing.assert_allclose(found, np.array(expected) / sum(expected), atol=1e-6)


# --- flip, colours, erasing


@pytest.mark.parametrize("shape", [(20, 20), (12, 15)])
def test_a_mirrored_frame_is_the_mirrored_resized_frame(shape):
    frame = pictures(*shape)
    mirrored = finished(frame, 20, flip=True).astype(int)
    assert np.abs(mirrored - finished(frame, 20)[:, ::-1]).max() <= 1


def test_a_mirrored_box_moves_with_the_pixels():
    picture = np.zeros((10, 10, 3), np.uint8)
    picture[2:5, 1:4] = 255
    x1, y1, x2, y2 = augment.flip_boxes(tf.constant([0.1, 0.2, 0.4, 0.5])).numpy() * 10
    inside = np.zeros((10, 10), bool)
    inside[round(y1) : round(y2), round(x1) : round(x2)] = True
    np.testing.assert_array_equal(finished(picture, 10, flip=True)[..., 0] == 255, inside)


def test_flip_against_the_flow_of_mirrored_frames():
    """By the convention 255 - v one level under it, but where it is clipped."""
    flow = np.random.default_rng(0).uniform(-10, 10, (7, 7, 2)).astype(np.float32)
    found = finished(encode_flow(flow), 7, kind="flow", flip=True).astype(int)
    mirrored = encode_flow(flow[:, ::-1] * np.float32([-1, 1])).astype(int)
    np.testing.assert_array_equal(found[..., 1:], mirrored[..., 1:])
    below = mirrored[..., 0] - found[..., 0]
    assert set(below.ravel()) == {0, 1}
    assert (mirrored[..., 0][below == 0] % 255 == 0).all()


def test_colours_against_numpy():
    frame = pictures(16, 16)
    colours = np.array([[1.2, -0.1, 0, 9], [0.1, 0.8, 0.1, -40], [0, 0.2, 1.3, 20]], np.float32)
    expected = (frame @ colours[:, :3].T + colours[:, 3]).round().clip(0, 255)
    found = finished(frame, 16, colours=colours).astype(int)
    assert np.abs(found - expected).max() <= 1
    assert {0, 255} <= set(found.ravel().tolist())
    np.testing.assert_array_equal(finished(frame, 16, kind="flow", colours=colours), frame)


def test_what_is_covered_are_the_pixels_whose_centre_is_inside():
    random = np.random.default_rng(1)
    centres = (np.arange(11) + 0.5) / 11
    for _ in range(50):
        x1, y1, x2, y2 = np.sort(random.random((2, 2)), axis=0).ravel()
        covered = np.zeros((11, 11), bool)
        covered[covered_pixels(np.float32([x1, y1, x2, y2]), 11)] = True
        rows, columns = ((low <= centres) & (centres < high) for low, high in ((y1, y2), (x1, x2)))
        np.testing.assert_array_equal(covered, rows[:, None] & columns)
    assert covered_pixels(np.zeros(4, np.float32), 11) is None
    found = finished(pictures(11, 11), 11, covered=(slice(2, 4), slice(3, 9)))
    assert (found[2:4, 3:9] == 128).all()
    assert (found == 128).all(axis=-1).sum() == 12


def test_contrast_turns_about_the_grey_of_every_fourth_picture():
    frames = pictures(6, 4, 5)
    grey = frames[::4].mean(axis=(0, 1, 2)) @ np.array(augment.LUMA)
    drawn = np.arange(15, dtype=np.float32).reshape(3, 5)
    found = colours_about(drawn, frames)
    np.testing.assert_array_equal(found[:, :3], drawn[:, :3])
    np.testing.assert_allclose(found[:, 3], drawn[:, 3] * grey + drawn[:, 4], rtol=1e-5)


# --- clips


@pytest.mark.parametrize("reads", [{"frames": 1}, {"flow": 3}, {"frames": 1, "flow": 2}])
def test_frames_read_their_images(reads):
    """Each its own, some twice at the video's edge."""
    finisher = ClipFinisher(reads, side=8)
    own = {kind: pictures(4, 8, 8, seed=number) for number, kind in enumerate(reads)}
    frame = np.array([0, 0, 1, 2, 3])[:, None]
    places = {kind: np.minimum(frame + np.arange(count), 3) for kind, count in reads.items()}
    clip = finisher(np.bool_(False), UNCHANGED, NOTHING, *own.values(), *places.values())
    images = [own[k][places[k][:, number]] for k, count in reads.items() for number in range(count)]
    np.testing.assert_array_equal(clip, np.concatenate(images, axis=-1))


def test_a_clip_gets_one_draw():
    finisher = ClipFinisher({"frames": 1}, side=6)
    colours = np.eye(3, 5, dtype=np.float32)
    colours[0, 4] = 10
    frames = pictures(3, 6, 6) // 2
    clip = finisher(np.bool_(True), colours, NOTHING, frames, np.arange(3)[:, None])
    np.testing.assert_array_equal(clip, frames[:, :, ::-1] + np.uint8([10, 0, 0]))


def decode_few(jpegs, most, crop=None) -> tf.Tensor:
    """In a graph that does not know how many there are, as the pipeline does it."""
    signature = [tf.TensorSpec([None], tf.string)]
    return tf.function(lambda some: pixels.decode_few(some, most, crop), signature)(jpegs)


@pytest.mark.parametrize("most", [3, 5])
def test_a_few_are_decoded_as_many_are(most):
    jpegs = tf.stack([tf.io.encode_jpeg(picture) for picture in pictures(3, 24, 32)])
    crop = tf.constant([5, 9, 10, 20])
    whole = pixels.decode_whole(jpegs)
    np.testing.assert_array_equal(decode_few(jpegs, most), whole)
    np.testing.assert_array_equal(decode_few(jpegs, most, crop), whole[:, 5:15, 9:29])


@pytest.mark.parametrize("size", [(25, 32), (24, 31), (32, 24)])
def test_a_few_of_different_sizes(size):
    jpegs = tf.stack([tf.io.encode_jpeg(pictures(*size)) for size in ((24, 32), size)])
    for most in (2, 4):
        with pytest.raises(tf.errors.InvalidArgumentError):
            decode_few(jpegs, most)


def test_resize_into_part_of_a_larger_array():
    """The clip is one array, which pictures are resized into in their places."""
    clip = np.zeros((2, 30, 30, 3), np.uint8)
    for picture, out in zip([pictures(12, 15), pictures(60, 20)], clip, strict=True):
        resize(picture, out)
        np.testing.assert_array_equal(out, finished(picture, 30))
    assert clip.any(axis=(1, 2, 3)).all()
