import numpy as np
import pytest

from benchmarks import flow, flow_scenes

SIZE = (60, 80)


def test_the_stated_flow_of_a_scene_is_its_motion():
    turn = np.array([[1.02, -0.03, 2], [0.03, 1.02, -1]])
    scene = flow_scenes.moved("", turn, size=SIZE)
    true = flow.photometric_error(scene.first, scene.second, scene.flow)
    wrong = flow.photometric_error(scene.first, scene.second, -scene.flow)
    assert true < 2
    assert wrong > 4 * true
    assert 0.8 < scene.visible.mean() < 1


def test_the_square_hides_what_was_before_it():
    scene = flow_scenes.square_over_background()
    assert scene.flow[120, 160].tolist() == [8, -4]
    assert scene.flow[0, 0].tolist() == [-2, 0]
    y, x = 100, 203  # of the background: goes to 201, which the square covers up to 207
    assert not scene.visible[y, x]
    assert abs(int(scene.second[y, 201]) - int(scene.first[y, x])) > 2
    height, width = scene.first.shape
    ys, xs = np.nonzero(scene.visible)
    dx, dy = scene.flow[ys, xs].astype(int).T
    inside = (xs + dx >= 0) & (xs + dx < width) & (ys + dy >= 0) & (ys + dy < height)
    assert inside.all()
    np.testing.assert_array_equal(scene.second[ys + dy, xs + dx], scene.first[ys, xs])


def test_disturbed_frames():
    scene = flow_scenes.moved("", np.array([[1.0, 0, 1], [0, 1, 0]]), size=SIZE)
    noisy = flow_scenes.disturbed(scene, noise=4, brighter=20)
    difference = noisy.second.astype(float) - scene.second
    assert difference.mean() == pytest.approx(20, abs=1)
    assert difference.std() == pytest.approx(4, abs=1)


def test_errors_by_hand():
    zero = np.zeros((4, 5), np.uint8)
    scene = flow_scenes.Scene("", zero, zero, np.zeros((4, 5, 2)), np.eye(4, 5) > 0)
    estimate = np.zeros((4, 5, 2))
    estimate[0, 0] = 3, 4
    assert flow.endpoint_error(scene, estimate) == {"visible": 5 / 4, "all": 5 / 20}
    ramp = np.tile(np.arange(5, dtype=np.uint8), (4, 1))
    right = np.zeros((4, 5, 2), np.float32) + np.float32([1, 0])
    assert flow.photometric_error(ramp, ramp + 1, right) == pytest.approx(2)
