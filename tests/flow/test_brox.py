import numpy as np
import pytest

from benchmarks import flow_scenes
from step_jax.errors import InputError
from step_jax.flow.brox import BroxFlow, pyramid_sizes
from step_jax.flow.brox_options import BroxOptions

SIZE = (64, 80)


def scene(x, y):
    return flow_scenes.moved("", np.array([[1, 0, x], [0, 1, y]], float), size=SIZE)


def pairs():
    shifted, small = scene(3, -2), scene(0.3, -0.2)
    mirrored = shifted._replace(first=shifted.first[:, ::-1], second=shifted.second[:, ::-1])
    grey = np.full(SIZE, 90, np.uint8)
    rng = np.random.default_rng(0)
    noise = [rng.normal(90, 3, SIZE).astype(np.uint8) for _ in range(2)]
    return {
        "shifted": shifted[1:3],
        "small": small[1:3],
        "mirrored": mirrored[1:3],
        "constant": (grey, grey),
        "noise": noise,
        "far": scene(6, -4)[1:3],
        "same": (shifted.first, shifted.first),
        "brighter": (shifted.first, (shifted.second * 0.9 + 15).astype(np.uint8)),
        "shifted again": shifted[1:3],
    }


@pytest.fixture(scope="module")
def flows():
    """The flow of every pair: nine in batches of four, one on each of four devices."""
    first, second = (np.stack(frames) for frames in zip(*pairs().values(), strict=True))
    compute = BroxFlow(BroxOptions(), batch=4)
    assert compute.batch == 4
    found = compute(first, second)
    assert found.shape == (9, *SIZE, 2)
    assert found.dtype == np.float32
    return dict(zip(pairs(), found, strict=True))


def inside(flow, margin=14):
    return flow[margin:-margin, margin:-margin]


@pytest.mark.parametrize(
    ("name", "motion", "tolerance"),
    [("shifted", (3, -2), 0.05), ("far", (6, -4), 0.1), ("same", (0, 0), 1e-3)],
)
def test_whole_pixels_are_recovered(flows, name, motion, tolerance):
    error = np.linalg.norm(inside(flows[name]) - motion, axis=-1)
    assert error.mean() < tolerance


def test_parts_of_a_pixel_are_recovered(flows):
    error = np.linalg.norm(inside(flows["small"]) - (0.3, -0.2), axis=-1)
    assert error.mean() < 0.08


def test_the_border_follows_where_the_second_frame_has_nothing(flows):
    error = np.linalg.norm(flows["far"] - (6, -4), axis=-1)
    assert error[:, -6:].mean() < 1
    assert error[:4].mean() < 1


def test_constant_frames_do_not_move(flows):
    np.testing.assert_allclose(flows["constant"], 0, atol=1e-6)


def test_noise_without_texture_stays_small(flows):
    assert np.linalg.norm(flows["noise"], axis=-1).mean() < 1


def test_another_brightness_does_not_matter(flows):
    error = np.linalg.norm(inside(flows["brighter"]) - (3, -2), axis=-1)
    assert error.mean() < 0.1


def test_mirrored_frames_have_the_mirrored_flow(flows):
    expected = flows["shifted"][:, ::-1] * np.float32([-1, 1])
    np.testing.assert_allclose(inside(flows["mirrored"]), inside(expected), atol=0.02)


def test_neither_batch_nor_device_matters(flows):
    np.testing.assert_allclose(flows["shifted again"], flows["shifted"], atol=1e-4)


def test_pyramid_of_the_distributed_images():
    sizes = pyramid_sizes(240, 320, options=BroxOptions())
    assert sizes[:3] == [(240, 320), (192, 256), (154, 205)]
    assert sizes[-2:] == [(17, 22), (14, 18)]
    assert len(sizes) == 14


def test_pyramid_is_bounded():
    assert pyramid_sizes(240, 320, options=BroxOptions(outer_iterations=1)) == [(240, 320)]
    assert pyramid_sizes(10, 300, options=BroxOptions()) == [(10, 300)]


def test_frames_of_a_single_row():
    with pytest.raises(InputError, match="1x20 pixels"):
        BroxFlow(BroxOptions())(*np.zeros((2, 1, 20, 1), np.uint8))
