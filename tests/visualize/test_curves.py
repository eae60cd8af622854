import json
import math

import cv2
import numpy as np
import pytest

from step_jax import evaluations
from step_jax.errors import InputError
from step_jax.visualize import curves


def log(steps=30):
    return [
        {
            "step": 50 * n,
            "loss": 3 / n,
            "classification_1": 2 / n,
            "classification_2": 1 / n,
            "learning_rate": 0.1,
        }
        for n in range(1, steps + 1)
    ]


def read(path):
    picture = cv2.imread(str(path))
    assert picture.shape[1] == 1200
    return picture


def test_curves_of_a_quantity_share_a_panel():
    families = curves._families(log())
    assert list(families) == ["loss", "classification", "learning_rate"]
    assert list(families["classification"]) == ["step 1", "step 2"]
    steps, values = families["classification"]["step 2"]
    np.testing.assert_array_equal(steps, 50 * np.arange(1, 31))
    np.testing.assert_allclose(values, 1 / np.arange(1, 31))


@pytest.mark.parametrize("window", [0, 1, 3, 50])
def test_running_mean_against_a_loop(window):
    values = np.random.default_rng(0).normal(size=20)
    expected = []
    for i in range(20):
        reach = min(window, i, 19 - i)
        expected.append(np.mean(values[i - reach : i + reach + 1]))
    np.testing.assert_allclose(curves.running_mean(values, window), expected, atol=1e-12)


def test_pictures_have_curves(tmp_path):
    curves.plot_losses(log(), tmp_path / "losses.png")
    picture = read(tmp_path / "losses.png")
    for red, green, blue in ((0, 114, 178), (230, 159, 0)):
        assert (picture == [blue, green, red]).all(axis=2).any()
    scores = {100: [5.0, 8.0], 50: [math.nan, 2.0]}
    curves.plot_scores(scores, tmp_path / "map.png", title="frame-mAP on test")
    assert (read(tmp_path / "map.png") < 250).any()
    assert sorted(file.name for file in tmp_path.iterdir()) == ["losses.png", "map.png"]


def test_a_run_is_drawn_from_its_folder(tmp_path):
    text = "".join(json.dumps(line) + "\n" for line in log(3))
    (tmp_path / "train_log.jsonl").write_text(text + '{"step": 200, "lo')
    for step in (50, 100):
        folder = evaluations.folder(tmp_path, split="test", step=step)
        evaluations.write_metrics(folder, {"score": 2.0, "steps": [{"mean": 1.0}, {"mean": 2.0}]})
    written = curves.draw_run(tmp_path, tmp_path / "curves")
    assert [path.name for path in written] == ["losses.png", "frame_map_test.png"]
    for path in written:
        read(path)


def test_nothing_to_draw(tmp_path):
    with pytest.raises(InputError, match="nothing to draw"):
        curves.draw_run(tmp_path, tmp_path / "curves")
    assert list(tmp_path.iterdir()) == []
