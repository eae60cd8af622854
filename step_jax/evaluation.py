"""A detector over batches of windows: the detections table and the numbers made from it."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
from etils import epath

from step_jax.clip_detections import clip_rows
from step_jax.detections import DetectionsWriter
from step_jax.files import not_written
from step_jax.inference import Predictor, Tubelets
from step_jax.windows import check_frames


@dataclasses.dataclass(frozen=True)
class DetectionLimits:
    """What of a clip's scores becomes a detection; see `clip_detections.clip_detections`.

    frames: "all" or "middle", see `windows.reported`.
    inclusive_nms: boxes as the released model's, in pixels of the network's input.

    Raises InputError for an unknown `frames`.
    """

    score_threshold: float = 0.01
    per_class_top: int = 400
    nms_threshold: float = 0.45
    top: int = 200
    frames: str = "all"
    inclusive_nms: bool = False

    def __post_init__(self):
        check_frames(self.frames, where="eval.frames")

    def options(self, image_size: int) -> dict[str, Any]:
        """Keyword arguments of `clip_rows` for a detector with that side."""
        options = dataclasses.asdict(self)
        inclusive = options.pop("inclusive_nms")
        return options | {"inclusive_side": image_size if inclusive else None}


def write_table(
    path: epath.PathLike,
    predictor: Predictor,
    batches: Iterable[Mapping[str, np.ndarray]],
    *,
    stride: int,
    limits: DetectionLimits,
    provenance: Mapping[str, str],
) -> int:
    """Runs the detector on every window and writes what it finds; returns the number of windows.

    Args:
      path: of the Parquet table.
      predictor: the detector.
      batches: as `input_pipeline.pipeline.eval_batches` makes them, padded with `example_mask`.
      stride: frames between the windows of a video.
      limits: of a clip's detections.
      provenance: texts for the table's metadata.

    Raises InputError where the table cannot be written; then there is none.
    """
    windows = 0
    options = limits.options(predictor.image_size)
    table = DetectionsWriter(
        path,
        classes=predictor.classes,
        clip_frames=predictor.clip_frames,
        stride=stride,
        num_steps=predictor.num_steps,
        frames=limits.frames,
        provenance=dict(provenance),
    )
    try:
        with table as writer:
            for batch, steps in _predicted(predictor, batches):
                windows += int(batch["example_mask"].sum())
                for step, tubelets in enumerate(steps, start=1):
                    rows = _rows(batch, tubelets, step=step, stride=stride, **options)
                    writer.append(rows)
    except OSError as error:
        raise not_written(path, error) from error
    return windows


def _predicted(predictor: Predictor, batches: Iterable[Mapping[str, np.ndarray]]):
    """(batch, tubelets of each step): the device works on a batch while the host reads the next."""
    waiting = None
    for batch in batches:
        steps = predictor(batch["clips"])
        if waiting is not None:
            yield waiting
        waiting = (batch, steps)
    if waiting is not None:
        yield waiting


def _rows(
    batch: Mapping[str, np.ndarray],
    tubelets: Tubelets,
    *,
    step: int,
    stride: int,
    **options: Any,
) -> dict[str, Any]:
    real = np.asarray(batch["example_mask"])
    return clip_rows(
        np.asarray(tubelets.scores)[real],
        np.asarray(tubelets.tubes)[real],
        videos=np.asarray(batch["video"])[real],
        starts=np.asarray(batch["start"])[real],
        num_frames=np.asarray(batch["num_frames"])[real],
        stride=stride,
        step=step,
        **options,
    )
