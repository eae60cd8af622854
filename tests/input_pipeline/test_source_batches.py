"""Clips in the frames' own size, resized by the device, against those that the host resizes."""

import itertools

import cv2
import jax
import numpy as np
import pytest
import tensorflow as tf

from input_pipeline import pipeline
from input_pipeline.accelerators import hide_accelerators
from input_pipeline.augment import Augment
from input_pipeline.prepare import RecordOptions, prepare
from input_pipeline.source_clips import centres, fit
from step_jax.annotations import Annotations, Tube, Video
from step_jax.source_clips import KEYS, with_clips

WINDOWS = {"split": "a", "clip_frames": 3, "input_frames": 7, "image_size": 24, "max_tubes": 1}
SIZE = HEIGHT, WIDTH = 36, 44


def smooth(random, *, side):
    """A picture whose neighbours are alike, so that half a pixel is a few levels."""
    coarse = random.integers(30, 220, (6, 7, 3)).astype(np.uint8)
    return cv2.resize(coarse, (side * WIDTH // HEIGHT, side), interpolation=cv2.INTER_CUBIC)


@pytest.fixture(scope="module")
def textured(tmp_path_factory):
    """Records of one video, with flow images of another size."""
    hide_accelerators()
    root, random = tmp_path_factory.mktemp("textured"), np.random.default_rng(0)
    for folder, side in (("v", HEIGHT), ("flow/v", 72)):
        (root / folder).mkdir(parents=True)
        for number in range(1, 13):
            cv2.imwrite(str(root / folder / f"{number:05d}.png"), smooth(random, side=side))
    boxes = np.tile(np.float32([10, 8, 30, 28]), (12, 1))
    tube = Tube(labels=(0,), frames=range(12), boxes=boxes)
    video = Video("v", "v", "a", 25.0, 12, WIDTH, HEIGHT, (tube,))
    options = RecordOptions(core_frames=2, halo_before=2, halo_after=4)
    annotations = Annotations("one", ("a",), (video,), root)
    prepare(annotations, root / "records", options=options, workers=1, flow=root / "flow")
    return root / "records"


def train(folder, count=3, **options):
    options = {**WINDOWS, "batch_size": 2, "seed": 1, "num_threads": 2, **options}
    return list(itertools.islice(pipeline.train_batches(folder, **options), count))


def clips_of(batch):
    parts = {name: value for name, value in batch.items() if name in KEYS}
    return np.asarray(jax.jit(with_clips)(parts)["clips"]).astype(int)


@pytest.mark.parametrize(
    ("augment", "size"),
    [
        ({"flip": 0.5}, (72, 88)),
        ({"flip": 0.5, "crop": 1.0, "erase": 1.0}, (80, 90)),
        ({"photometric": 1.0}, (80, 90)),
    ],
)
def test_they_are_those_that_the_host_resizes(textured, augment, size):
    """Up to rounding: of a level, and in a crop of whole pixels of flow images.

    Half a pixel off would be four levels on average. More differ a little where the order tells:
    colours that are cut off at 0 or 255, and at a crop's edge chroma, which JPEG has half as fine.
    """
    options = {"modality": "early", "augment": Augment(**augment)}
    ours, theirs = train(textured, source_size=size, **options), train(textured, **options)
    for own, host in zip(ours, theirs, strict=True):
        assert own.keys() - set(KEYS) == host.keys() - {"clips"}
        difference = np.abs(clips_of(own) - host["clips"])
        assert difference[..., :3].mean() < 0.5
        assert difference[..., :3].max() <= (1 if augment.keys() == {"flip"} else 16)
        assert difference[..., 3:].mean() < (2 if "crop" in augment else 0.1)
        for name in own.keys() - set(KEYS):
            np.testing.assert_array_equal(own[name], host[name], err_msg=name)


@pytest.mark.parametrize("modality", ["rgb", "flow"])
def test_the_streams_are_parts_of_early_fusion(textured, modality):
    augment = Augment(flip=0.5, photometric=0.5)
    early, alone = (
        train(textured, 2, modality=name, augment=augment, source_size=SIZE)
        for name in ("early", modality)
    )
    for both, one in zip(early, alone, strict=True):
        channels = slice(0, 3) if modality == "rgb" else slice(3, None)
        assert np.abs(clips_of(both)[..., channels] - clips_of(one)).max() <= 1


def test_frames_that_are_larger_are_shrunk(textured):
    whole, shrunk = (clips_of(train(textured, 1, source_size=size)[0]) for size in (SIZE, (30, 40)))
    assert np.abs(whole - shrunk).mean() < 3


def test_pictures_of_other_sizes():
    pictures = np.random.default_rng(0).integers(1, 256, (2, 5, 8, 3)).astype(np.uint8)
    found = fit(pictures, np.array([6, 10]), 1)
    np.testing.assert_array_equal(found[:2, :5, :8], pictures)
    assert not found[2].any()
    assert not found[:, 5:].any()
    assert not found[:, :, 8:].any()
    narrow = fit(pictures, np.array([6, 4]))
    means = pictures.reshape(2, 5, 4, 2, 3).mean(axis=3)
    assert np.abs(narrow[:, :5] - means).max() < 64  # a triangle, which reads beyond the two
    assert not narrow[:, 5:].any()


def test_centres_are_those_of_the_crop():
    crop, size = tf.constant([10, 20, 30, 40]), tf.constant([100, 200])
    rows, columns = centres(crop, size, size, 4).numpy()
    np.testing.assert_allclose(rows, [13.75, 21.25, 28.75, 36.25])
    np.testing.assert_allclose(columns, [25, 35, 45, 55])
    np.testing.assert_allclose(centres(crop, size, size // 2, 4)[1], columns / 2)
