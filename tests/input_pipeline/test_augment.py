import colorsys

import numpy as np
import pytest
import tensorflow as tf

from input_pipeline import augment, pixels
from input_pipeline.augment import Augment
from step_jax.errors import InputError

SIZE = (48, 64)  # height, width


def seed(number: int) -> tf.Tensor:
    return tf.constant([7, number], tf.int64)


def random_boxes(random, *shape) -> np.ndarray:
    corners = np.sort(random.random((*shape, 2, 2)), axis=-2)  # [..., low/high, x/y]
    return corners.reshape(*shape, 4).astype(np.float32)


# --- flip


def test_flip_permutation():
    classes = ("walk", "left", "right", "spin")
    np.testing.assert_array_equal(
        augment.flip_permutation(classes, [("right", "left")]), [0, 2, 1, 3]
    )
    for swaps, message in (
        ([("left", "up")], "no class 'up'; the classes are: walk, left"),
        ([("left", "right"), ("left", "spin")], "exchanges a class a second time"),
        ([("left", "left")], "exchanges a class a second time"),
    ):
        with pytest.raises(InputError, match=message):
            augment.flip_permutation(classes, swaps)


# --- crop


def crops(options: Augment, boxes, mask, count=200) -> np.ndarray:
    @tf.function  # eager, the loop takes a minute
    def draw_all(boxes, mask):
        def draw(number):
            drawn_seed = tf.stack([tf.constant(7, tf.int64), number])
            return augment.draw_crop(drawn_seed, boxes, mask, tf.constant(SIZE), options)

        return tf.map_fn(draw, tf.range(count, dtype=tf.int64), fn_output_signature=tf.int32)

    return draw_all(tf.constant(boxes, tf.float32), tf.constant(mask)).numpy()


@pytest.mark.parametrize("keep", [0.0, 0.8, 1.0])
def test_crops_keep_the_target_boxes(keep):
    random = np.random.default_rng(0)
    options = Augment(crop=1.0, crop_min_scale=0.1, crop_keep=keep)
    for _ in range(4):
        boxes = random_boxes(random, 2, 3) * 0.5 + 0.3
        mask = random.random((2, 3)) < 0.7
        for top, left, height, width in crops(options, boxes, mask, count=40):
            assert top >= 0
            assert left >= 0
            assert top + height <= SIZE[0]
            assert left + width <= SIZE[1]
            for x1, y1, x2, y2 in boxes[mask]:
                for low, high, first, side, full in (
                    (x1, x2, left, width, SIZE[1]),
                    (y1, y2, top, height, SIZE[0]),
                ):
                    centre, half = (low + high) / 2 * full, (high - low) / 2 * full * keep
                    assert first - 1e-3 <= centre - half
                    assert centre + half <= first + side + 1e-3


def test_crops_without_boxes_have_the_area_and_reach_every_side():
    options = Augment(crop=1.0, crop_min_scale=0.3, crop_max_aspect=1.5)
    top, left, height, width = crops(options, np.zeros((0, 4)), np.zeros(0, bool), 400).T
    area = height * width / (SIZE[0] * SIZE[1])
    assert 0.28 < area.min() < 0.35
    assert area.max() > 0.95
    stretch = (width / SIZE[1]) / (height / SIZE[0])
    assert 1.3 < stretch.max() < 1.6
    assert 1.3 < (1 / stretch).max() < 1.6
    assert top.min() == left.min() == 0
    assert (top + height).max() == SIZE[0]
    assert (left + width).max() == SIZE[1]


def test_crop_boxes_against_loops():
    random = np.random.default_rng(1)
    boxes, mask = random_boxes(random, 5, 6), random.random((5, 6)) < 0.8
    crop = (10, 7, 30, 41)  # top, left, height, width
    found, found_mask = augment.crop_boxes(
        tf.constant(boxes), tf.constant(mask), tf.constant(crop), tf.constant(SIZE)
    )
    some_gone = False
    for place in np.ndindex(5, 6):
        x1, y1, x2, y2 = boxes[place] * [64, 48, 64, 48]
        inside = 7 <= (x1 + x2) / 2 <= 48 and 10 <= (y1 + y2) / 2 <= 40
        assert found_mask[place] == (mask[place] and inside)
        some_gone |= bool(mask[place] and not inside)
        expected = np.zeros(4)
        if mask[place] and inside:
            expected = [(x1 - 7) / 41, (y1 - 10) / 30, (x2 - 7) / 41, (y2 - 10) / 30]
        np.testing.assert_allclose(found[place], np.clip(expected, 0, 1), atol=1e-6)
    assert some_gone


def test_crop_and_resize_move_boxes_with_the_pixels():
    """A white rectangle's edges, found in the resized crop, are its transformed box's."""
    picture = np.zeros((1, *SIZE, 3), np.uint8)
    picture[0, 12:36, 16:40] = 255
    crop = np.array([8, 10, 32, 40])
    cut = tf.constant(picture[:, 8:40, 10:50])
    resized = pixels.to_uint8(pixels.resize(cut, 80)).numpy()[0, ..., 0] / 255
    box = tf.constant([[16 / 64, 12 / 48, 40 / 64, 36 / 48]])
    moved, _ = augment.crop_boxes(box, tf.constant([True]), tf.constant(crop), tf.constant(SIZE))
    x1, y1, x2, y2 = moved.numpy()[0] * 80
    assert resized.mean(axis=0).max() * 80 == pytest.approx(y2 - y1, abs=0.2)
    assert resized.mean(axis=1).max() * 80 == pytest.approx(x2 - x1, abs=0.2)
    assert np.argmax(resized[40] > 0.5) == pytest.approx(x1, abs=0.5)
    assert np.argmax(resized[:, 40] > 0.5) == pytest.approx(y1, abs=0.5)


# --- resize


def triangle_resize(line: np.ndarray, size: int) -> np.ndarray:
    """Linear interpolation of one axis, the triangle as wide as an output pixel when shrinking."""
    ratio = len(line) / size
    support = max(1.0, ratio)
    result = []
    for out in range(size):
        centre = (out + 0.5) * ratio
        weights = [max(0.0, 1 - abs(i + 0.5 - centre) / support) for i in range(len(line))]
        result.append(np.dot(weights, line) / sum(weights))
    return np.array(result)


@pytest.mark.parametrize("shape", [(9, 7), (20, 31), (12, 12), (7, 30)])
def test_resize_against_loops(shape):
    frames = np.random.default_rng(2).integers(0, 256, (2, *shape, 3)).astype(np.uint8)
    expected = np.apply_along_axis(triangle_resize, 1, frames.astype(float), 12)
    expected = np.apply_along_axis(triangle_resize, 2, expected, 12)
    np.testing.assert_allclose(pixels.resize(tf.constant(frames), 12), expected, atol=0.01)


def test_a_crop_is_a_part_of_the_whole_picture():
    picture = np.random.default_rng(3).integers(0, 256, (*SIZE, 3)).astype(np.uint8)
    jpegs = tf.stack([tf.io.encode_jpeg(picture), tf.io.encode_jpeg(picture[::-1])])
    np.testing.assert_array_equal(pixels.frame_size(jpegs), SIZE)
    whole = pixels.decode_whole(jpegs)
    np.testing.assert_array_equal(whole, tf.stack([tf.io.decode_jpeg(jpeg) for jpeg in jpegs]))
    found = pixels.decode_few(jpegs, 2, tf.constant([5, 9, 20, 30]))
    np.testing.assert_array_equal(whole[:, 5:25, 9:39], tf.stack(found))


# --- colours


def colours_of(colours, frames, mean=(0.0, 0.0, 0.0)):
    colours = colours.numpy()
    return (
        frames @ colours[:, :3].T + colours[:, 3] * (mean @ np.array(augment.LUMA)) + colours[:, 4]
    )


def drawn(number, **options):
    zero = {"brightness": 0.0, "contrast": 0.0, "saturation": 0.0, "hue": 0.0}
    return augment.draw_colours(seed(number), Augment(photometric=1.0, **{**zero, **options}))


def test_no_colour_change_is_the_identity():
    np.testing.assert_allclose(drawn(0), np.eye(3, 5), atol=1e-5)


def test_colour_changes_mean_what_they_say():
    frames = np.random.default_rng(4).uniform(40, 200, (2, 5, 6, 3)).astype(np.float32)
    mean = frames.mean(axis=(0, 1, 2))
    luma = frames @ augment.LUMA
    for number in range(5):
        shift = colours_of(drawn(number, brightness=0.2), frames) - frames
        np.testing.assert_allclose(shift, shift[0, 0, 0, 0], atol=1e-3)
        assert abs(shift[0, 0, 0, 0]) <= 0.2 * 255
        contrast = colours_of(drawn(number, contrast=0.4), frames, mean)
        grey = mean @ augment.LUMA
        factor = (contrast - grey) / (frames - grey)
        assert np.ptp(factor) < 1e-2
        assert 0.6 <= factor.mean() <= 1.4
        saturated = colours_of(drawn(number, saturation=0.5), frames)
        np.testing.assert_allclose(saturated @ augment.LUMA, luma, rtol=1e-4)
        factor = (saturated - luma[..., None]) / (frames - luma[..., None])
        assert np.ptp(factor) < 1e-2
        assert 0.5 <= factor.mean() <= 1.5
        turned = colours_of(drawn(number, hue=0.1), frames)
        np.testing.assert_allclose(turned.sum(-1), frames.sum(-1), rtol=1e-4)
        np.testing.assert_allclose(
            np.linalg.norm(turned, axis=-1), np.linalg.norm(frames, axis=-1), rtol=1e-4
        )


def test_hue_turns_by_as_much_as_it_says_and_the_right_way():
    turned = np.array([200.0, 100.0, 100.0]) @ augment._hue_rotation(2 / 3 * np.pi).numpy()
    hue, _, _ = colorsys.rgb_to_hsv(*turned / 255)
    assert hue == pytest.approx(1 / 3, abs=1e-3)  # red becomes green


# --- erase


def test_erase_covers_little_of_any_box():
    random = np.random.default_rng(5)
    boxes = random_boxes(random, 3, 4)
    mask = random.random((3, 4)) < 0.7
    options = Augment(erase=1.0, erase_max_cover=0.2)
    sizes = []
    for number in range(30):
        x1, y1, x2, y2 = augment.draw_rectangle(
            seed(number), tf.constant(boxes), tf.constant(mask), options
        ).numpy()
        sizes.append((x2 - x1) * (y2 - y1))
        for a1, b1, a2, b2 in boxes[mask]:
            shared = max(0, min(x2, a2) - max(x1, a1)) * max(0, min(y2, b2) - max(y1, b1))
            assert shared <= 0.2 * (a2 - a1) * (b2 - b1) + 1e-6
    sizes = np.array(sizes)[np.array(sizes) > 0]
    assert len(sizes) > 5
    assert sizes.min() >= 0.02 - 1e-6
    assert sizes.max() <= 0.2 + 1e-6


# --- options


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"flip": 1.5}, r"augment\.flip is 1\.5; expected a number from 0 to 1"),
        ({"erase_max_cover": -1}, r"augment\.erase_max_cover is -1"),
        ({"crop_min_scale": 0.0}, r"crop_min_scale is 0\.0"),
        ({"crop_max_aspect": 0.5}, r"crop_max_aspect 0\.5"),
        ({"erase_min_area": 0.5}, r"erase_min_area is 0\.5 and erase_max_area 0\.2"),
    ],
)
def test_options_are_checked(options, message):
    with pytest.raises(InputError, match=message):
        Augment(**options)
