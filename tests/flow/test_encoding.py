import subprocess
import sys

import numpy as np
import pytest

from step_jax.flow.encoding import decode_flow, encode_flow


def encode(x, y):
    return encode_flow(np.array([[[x, y]]], np.float32))[0, 0].tolist()


def test_channels_are_x_y_and_magnitude():
    assert encode(0, 0) == [128, 128, 128]
    assert encode(3, -4) == [128 + 48, 128 - 64, 128 + 80]


def test_clips_at_8_pixels():
    assert encode(8, -8) == [255, 0, 255]
    assert encode(100, -9) == [255, 0, 255]
    assert encode(7.9, -7.9) == [254, 2, 255]


def test_rounds_to_the_nearest_level_and_halves_to_even():
    assert encode(0.9 / 16, -0.9 / 16)[:2] == [129, 127]
    assert encode(0.5 / 16, 1.5 / 16)[:2] == [128, 130]
    assert encode(-0.5 / 16, -1.5 / 16)[:2] == [128, 126]


def test_equals_the_formula_one_by_one():
    rng = np.random.default_rng(0)
    flow = rng.uniform(-10, 10, (2, 3, 5, 2)).astype(np.float32)
    image = encode_flow(flow)
    assert image.dtype == np.uint8
    for index in np.ndindex(2, 3, 5):
        x, y = map(float, flow[index])
        expected = [round(min(max(16 * v + 128, 0), 255)) for v in (x, y, (x * x + y * y) ** 0.5)]
        assert image[index].tolist() == expected


def test_decoding_is_within_half_a_level():
    flow = np.random.default_rng(0).uniform(-7.9, 7.9, (6, 7, 2)).astype(np.float32)
    decoded = decode_flow(encode_flow(flow))
    assert decoded.dtype == np.float32
    assert np.abs(decoded - flow).max() <= 1 / 32 + 1e-6


def test_mirrored_image_is_within_one_level_of_mirrored_flow():
    flow = np.random.default_rng(0).uniform(-9, 9, (6, 7, 2)).astype(np.float32)
    image = encode_flow(flow)[:, ::-1].astype(int)
    image[..., 0] = 255 - image[..., 0]
    mirrored = encode_flow(flow[:, ::-1] * np.float32([-1, 1])).astype(int)
    assert np.abs(image - mirrored).max() == 1


@pytest.mark.parametrize("flow", [np.zeros((4, 2)), np.zeros((4, 4, 3))])
def test_another_shape(flow):
    with pytest.raises(ValueError, match="expected"):
        encode_flow(flow)


def test_flow_that_is_not_finite():
    with pytest.raises(ValueError, match="not finite"):
        encode_flow(np.full((2, 2, 2), np.nan))


def test_decoding_of_another_type():
    with pytest.raises(ValueError, match="float64"):
        decode_flow(np.zeros((2, 2, 3)))


def test_needs_no_jax():
    code = "import sys, step_jax.flow, step_jax.flow.encoding; sys.exit('jax' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)
