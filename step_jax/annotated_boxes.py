"""A classifier of annotated people, evaluated on the boxes that it is trained on.

The pre-training for AVA has no proposals: asked about those it would be asked something it never
saw. Its detections are the annotated boxes of the keyframes, each with the scores of all classes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import jax
import numpy as np
from etils import epath

from step_jax import parallel, training_targets
from step_jax.detections import DetectionsWriter
from step_jax.detector_loss import normalise_clips
from step_jax.errors import InputError
from step_jax.files import not_written
from step_jax.inference import Predictor
from step_jax.models.step import StepDetector
from step_jax.windows import window_index

Array = jax.Array
PyTree = Any

_USED = ("clips", "boxes", "box_mask", "labels", "tube_mask")


def make_classify(detector: StepDetector) -> Callable[[PyTree, PyTree], Array]:
    """`(variables, batch) -> scores [B, G, C]` of the annotated tubes, fed as in training.

    The batch has the keys of `pipeline.train_batches`. Padded tubes have scores that mean nothing.
    """

    def classify(variables: PyTree, batch: PyTree) -> Array:
        stride = detector.backbone.temporal_stride
        targets = training_targets.targets_of(batch, temporal_stride=stride)
        tubes = training_targets.nearest_boxes(targets.boxes, targets.box_mask)
        features = detector.apply(variables, normalise_clips(batch["clips"]), method="features")
        output = detector.apply(variables, 0, features, tubes, method="refine")
        return detector.class_scores(output)

    return classify


def write_annotated(
    path: epath.PathLike,
    predictor: Predictor,
    batches: Iterable[Mapping[str, np.ndarray]],
    *,
    stride: int,
    provenance: Mapping[str, str],
) -> int:
    """Writes a detections table of the annotated boxes in the windows' middle frames.

    Args:
      path: of the Parquet table.
      predictor: a detector of one step.
      batches: as `input_pipeline.pipeline.eval_batches` makes them.
      stride: frames between the windows of a video.
      provenance: texts for the table's metadata.

    Returns the number of windows. Raises InputError for a detector of several steps, and where the
    table cannot be written.
    """
    if predictor.num_steps != 1:
        raise InputError(
            f"eval.boxes 'annotated': the detector has {predictor.num_steps} steps, which refine "
            "boxes; expected the classification pre-training's one"
        )
    classify = parallel.data_parallel_map(make_classify(predictor.detector))
    windows = 0
    try:
        with DetectionsWriter(
            path,
            classes=predictor.classes,
            clip_frames=predictor.clip_frames,
            stride=stride,
            num_steps=1,
            frames="middle",
            provenance=dict(provenance),
        ) as writer:
            for batch, used in parallel.prefetch(batches, _used):
                scores = np.asarray(classify(predictor.variables, used))
                writer.append(_rows(batch, scores, predictor, stride=stride))
                windows += int(batch["example_mask"].sum())
    except OSError as error:
        raise not_written(path, error) from error
    return windows


def _used(batch: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    return {name: batch[name] for name in _USED}


def _rows(
    batch: Mapping[str, np.ndarray], scores: np.ndarray, predictor: Predictor, *, stride: int
) -> dict[str, Any]:
    """One row for each annotated box and class."""
    num_tubes, num_classes = scores.shape[1:]
    clip, tube = np.nonzero(batch["tube_mask"] & np.asarray(batch["example_mask"])[:, None])
    middle = predictor.input_frames // 2
    boxes = batch["boxes"][clip, tube, middle] / np.float32(predictor.image_size)
    starts = np.asarray(batch["start"])[clip]
    tubelets = window_index(starts, stride=stride) * num_tubes + tube
    columns = {
        "video": np.asarray(batch["video"], object)[clip],
        "frame": starts + predictor.clip_frames // 2,
        "step": np.ones(len(clip), int),
        "tubelet": tubelets,
        **dict(zip(("x1", "y1", "x2", "y2"), boxes.T, strict=True)),
    }
    return {name: np.repeat(column, num_classes) for name, column in columns.items()} | {
        "class": np.tile(np.arange(num_classes), len(clip)),
        "score": scores[clip, tube].reshape(-1),
    }
