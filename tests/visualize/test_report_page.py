"""The page of an evaluation: its size, its panels, and input of every kind."""

import numpy as np
import pytest
from made_up import make_annotations, truth_as_tubelets
from PIL import Image

from step_jax.metrics.ucf101_24.report import make_report
from step_jax.metrics.ucf101_24.results import TubeOptions, evaluate_tubelets
from step_jax.tubelet_writer import write_tubelets
from step_jax.visualize import report_page
from step_jax.visualize.colors import class_colors


def evaluated(tmp_path, *, num_classes, tubes):
    """The ground truth: a tube of each of so many classes but the last, which is not drawn."""
    classes = tuple(f"$class_{label}$" for label in range(num_classes))
    truth = [
        (0, (c,), range(20), [[c % 30, 4, 30 + c % 30, 40]] * 20) for c in range(num_classes - 1)
    ]
    annotations = make_annotations(truth, classes=classes, num_frames=(20, 20))
    write_tubelets(tmp_path / "t.parquet", truth_as_tubelets(annotations))
    result = evaluate_tubelets(tmp_path / "t.parquet", annotations, "test", step=1, tubes=tubes)
    return make_report([result], ap="trapezoid", provenance={"checkpoint": "7"}), result


@pytest.mark.parametrize(("num_classes", "tubes"), [(2, TubeOptions()), (24, None), (80, None)])
def test_a_page(tmp_path, num_classes, tubes):
    report, result = evaluated(tmp_path, num_classes=num_classes, tubes=tubes)
    report_page.draw_report(tmp_path / "page.png", report, result)
    page = np.asarray(Image.open(tmp_path / "page.png").convert("RGB"))
    assert page.shape == (1753, 1240, 3)
    assert (page[[0, -1]] == 255).all()  # nothing runs off the page
    assert (page[:, [0, -1]] == 255).all()
    for color, wanted in ((3, True), (6, True), (0, tubes is not None)):
        assert (page == class_colors(7)[color]).all(axis=-1).any() == wanted


def test_curves_are_thinned_but_keep_their_corners():
    drawn = []

    class Axes:
        def plot(self, x, y, **_):
            drawn.append((x, y))

    hits = np.arange(10_000) % 3 != 1
    precision = np.cumsum(hits) / np.arange(1, 10_001)
    report_page._curve(Axes(), precision, np.cumsum(hits) / 8000, None)
    ((x, y),) = drawn
    assert len(x) <= 400
    assert (x[0], y[0]) == (0, 1)
    assert (np.diff(x) >= 0).all()
    assert x[-1] == pytest.approx(hits.sum() / 8000)
    report_page._curve(Axes(), np.zeros(0), np.zeros(0), None)
    assert len(drawn) == 1
