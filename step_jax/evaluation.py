"""A detector over batches of windows: the tables of its detections and of its tubelets."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from etils import epath

from step_jax.clip_detections import clip_rows
from step_jax.detections import DetectionsWriter
from step_jax.files import not_written
from step_jax.inference import Predictor, Tubelets
from step_jax.tubelet_writer import TubeletWriter
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
    tubelets: epath.PathLike | None = None,
    tubelet_steps: Sequence[int] = (),
) -> int:
    """Runs the detector on every window and writes what it finds; returns the number of windows.

    Args:
      path: of the Parquet table.
      predictor: the detector.
      batches: as `input_pipeline.pipeline.eval_batches` makes them, padded with `example_mask`.
      stride: frames between the windows of a video.
      limits: of a clip's detections.
      provenance: texts for the tables' metadata.
      tubelets: path of another table, of all tubelets of some steps before any threshold; None:
        there is none.
      tubelet_steps: which steps; none given: the last.

    Raises InputError where a table cannot be written; then there is none.
    """
    windows = 0
    wanted = tuple(tubelet_steps) or (predictor.num_steps,)
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
        with contextlib.ExitStack() as stack:
            writer = stack.enter_context(table)
            raw = None
            for batch, steps in _predicted(predictor, batches):
                windows += int(batch["example_mask"].sum())
                if tubelets is not None and raw is None:
                    raw = stack.enter_context(
                        _tubelet_writer(
                            tubelets,
                            predictor,
                            steps[0],
                            stride=stride,
                            steps=wanted,
                            provenance=provenance,
                        )
                    )
                for step, found in enumerate(steps, start=1):
                    writer.append(_rows(batch, found, step=step, stride=stride, **options))
                    if raw is not None and step in wanted:
                        raw.append(_tubelet_rows(batch, found, step=step))
    except OSError as error:
        raise not_written(path, error) from error
    return windows


def _predicted(predictor: Predictor, batches: Iterable[Mapping[str, np.ndarray]]):
    """(batch, tubelets of each step): the device works on a batch while the host reads the next."""
    waiting = None
    for batch, clips in predictor.prefetch(batches):
        steps = predictor(clips)
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


def _tubelet_writer(
    path: epath.PathLike, predictor: Predictor, found: Tubelets, **options: Any
) -> TubeletWriter:
    """For tubelets such as those `found`, which say how many boxes a tubelet has."""
    return TubeletWriter(
        path,
        classes=predictor.classes,
        clip_frames=predictor.clip_frames,
        num_steps=predictor.num_steps,
        num_boxes=found.tubes.shape[2],
        **options,
    )


def _tubelet_rows(
    batch: Mapping[str, np.ndarray], tubelets: Tubelets, *, step: int
) -> dict[str, Any]:
    """Columns for `TubeletWriter.append`: every proposal of every window."""
    real = np.asarray(batch["example_mask"])
    scores, tubes = np.asarray(tubelets.scores)[real], np.asarray(tubelets.tubes)[real]
    B, M = scores.shape[:2]
    return {
        "video": np.repeat(np.asarray(batch["video"], object)[real], M),
        "start": np.repeat(np.asarray(batch["start"])[real], M),
        "step": np.full(B * M, step),
        "proposal": np.tile(np.arange(M), B),
        "scores": scores.reshape(B * M, -1),
        "tubes": tubes.reshape(B * M, *tubes.shape[2:]),
    }
