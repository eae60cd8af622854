import dataclasses

import cv2
import numpy as np
import pytest

from step_jax.errors import InputError
from step_jax.flow import decode_flow, flow_images, make_estimator
from step_jax.flow.methods import encoded_flows


def pairs_at_once(batch):
    return dataclasses.replace(make_estimator("dis"), batch=batch)


@pytest.mark.parametrize("count", [1, 2, 3, 7])
@pytest.mark.parametrize("batch", [1, 3])
def test_as_many_images_as_frames(moving, count, batch):
    images = list(encoded_flows(moving(count), pairs_at_once(batch)))
    assert len(images) == count
    assert all(image.shape == (48, 64, 3) and image.dtype == np.uint8 for image in images)
    if count > 1:
        np.testing.assert_array_equal(images[-1], images[-2])


def test_no_frame_no_image():
    assert list(flow_images([], method="dis")) == []


def test_a_single_frame_has_zero_flow(moving):
    (image,) = flow_images(moving(1), method="dis")
    assert (image == 128).all()


def test_flow_goes_from_a_frame_to_the_next(moving):
    (start,) = moving(1)
    frames = [start, np.roll(start, 3, axis=1), np.roll(start, 1, axis=1)]
    flows = [decode_flow(image)[10:-10, 10:-10] for image in flow_images(frames, method="dis")]
    assert np.median(flows[0][..., 0]) == pytest.approx(3, abs=0.1)
    assert np.median(flows[1][..., 0]) == pytest.approx(-2, abs=0.1)
    assert np.median(flows[0][..., 1]) == pytest.approx(0, abs=0.1)


def test_batches_do_not_matter(moving):
    one = list(flow_images(moving(6), method="dis"))
    np.testing.assert_array_equal(list(encoded_flows(moving(6), pairs_at_once(4))), one)


def test_frames_are_read_as_images_are_taken(moving):
    taken = []

    def frames():
        for number, frame in enumerate(moving(20)):
            taken.append(number)
            yield frame

    images = encoded_flows(frames(), pairs_at_once(2))
    next(images)
    assert len(taken) == 3


def test_frames_of_two_sizes(moving):
    frames = moving(1) + moving(1, width=70)
    with pytest.raises(InputError, match="frame 1 is 70x48 pixels, those before it are 64x48"):
        list(flow_images(frames, method="dis"))


def test_frames_too_small_for_opencv(moving):
    with pytest.raises(InputError, match="6x4 pixels"):
        list(flow_images(moving(2, height=4, width=6), method="dis"))


@pytest.mark.parametrize(
    ("method", "parameters", "message"),
    [
        ("farneback", {}, "expected one of dis, tvl1, brox"),
        ("dis", {"preset": "slow"}, "expected one of ultrafast, fast, medium"),
        ("dis", {"alpha": 1}, "alpha"),
        ("dis", {"batch": 0}, "batch is 0"),
        ("brox", {"alpha": -1}, "alpha is -1"),
        ("brox", {"scale_factor": 1.0}, "scale_factor is 1.0"),
    ],
)
def test_bad_parameters(method, parameters, message):
    with pytest.raises(InputError, match=message):
        make_estimator(method, **parameters)


def test_tvl1_without_contrib_says_what_to_install(monkeypatch):
    monkeypatch.delattr(cv2, "optflow", raising=False)
    with pytest.raises(InputError, match="only one OpenCV package can live in an environment"):
        make_estimator("tvl1")


def test_parameters_are_recorded():
    parameters = make_estimator("dis", preset="fast").parameters
    assert parameters["preset"] == "fast"
    assert parameters["PatchSize"] == 8


def test_brox_parameters_are_those_of_the_distributed_images():
    from step_jax.flow.brox_options import BroxOptions

    options = BroxOptions()
    assert (options.alpha, options.gamma, options.scale_factor) == (0.197, 50, 0.8)
    counts = (options.inner_iterations, options.outer_iterations, options.solver_iterations)
    assert counts == (10, 77, 10)
