"""The page of AVA's result."""

import numpy as np
from PIL import Image

from step_jax.annotations.ava_labels import KINDS, LabelMap
from step_jax.metrics.ava import PROTOCOLS, AvaMap
from step_jax.visualize.ava_page import draw_page


def made_up(ap):
    ids = tuple(range(1, len(ap) + 1))
    names = tuple(f"$action_{i}$ " + "long " * (i % 9) for i in ids)  # no formula, and cut off
    return AvaMap(
        label_map=LabelMap(ids, names, tuple(KINDS[i % 3] for i in ids)),
        ap=np.array(ap),
        mean=float(np.nanmean(ap)),
        num_ground_truth=np.array(ids) * 1000,
        num_detections=np.array(ids) * 100_000,
        num_true_positives=np.array(ids),
        ground_truth_rows={},
        detection_rows={},
        remarks={},
        protocol="protocol, " * 20,
        options=PROTOCOLS["2018"],
    )


def bars(path):
    """How many pixels of each bar color the page has."""
    picture = np.asarray(Image.open(path).convert("RGB"))
    assert picture.shape[0] > 1.3 * picture.shape[1] > 1000
    colors = ((0x44, 0x77, 0xAA), (0xEE, 0x88, 0x66), (0x44, 0xAA, 0x77))
    return np.array([(picture == color).all(axis=-1).sum() for color in colors])


def test_bars_are_as_long_as_the_aps(tmp_path):
    draw_page(made_up([0.2, 0.4, 0.8, np.nan]), tmp_path / "page.png")
    pose, objects, persons = bars(tmp_path / "page.png")  # 3, 1, 2
    np.testing.assert_allclose([pose / objects, persons / objects], [4, 2], rtol=0.05)


def test_many_classes_and_one_ap(tmp_path):
    draw_page(made_up([0.5] + [np.nan] * 9), tmp_path / "page.png")
    assert (bars(tmp_path / "page.png") > 0).tolist() == [False, True, False]
