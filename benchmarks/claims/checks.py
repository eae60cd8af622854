"""Where a comparison has not the paper's sign: are the rows trained as they should be?

    python -m benchmarks.claims.checks --output runs/claims --rows fig5_anticipate,fig5_k30

Short measurements of finished rows (RGB, one seed), as training would go on with them, on a window
of each test video, around the middle of its first tube: which parameters each step's losses reach,
whether every ground-truth tube has a positive, whether negatives are drawn by their scores (Section
3.4), and how near to the ground truth tubes are in the frames that they were extended by. They are
written to OUTPUT/checks.json.
"""

from __future__ import annotations

import argparse
import functools
import pathlib
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import tqdm

from benchmarks.claims.preparation import ANNOTATIONS
from benchmarks.claims.runs import planned, row_names
from step_jax import boxes as box_ops
from step_jax import detector_loss, run_folder, sampling, step_samples, training_targets
from step_jax.annotations import Annotations, Video, read_native
from step_jax.cli import run_command
from step_jax.errors import InputError
from step_jax.files import write_json
from step_jax.inference import Predictor, load_predictor
from step_jax.loss_options import LossOptions
from step_jax.models.step import StepDetector, StepPlan
from step_jax.training_targets import Targets
from step_jax.tree_paths import by_path
from step_jax.visualize.shot import read_shot

Array = jax.Array
PyTree = Any
Batch = dict[str, np.ndarray]
SumCount = tuple[Array, Array]

FILE = "checks.json"
_BATCH = 16
_DRAWS = 8  # times that the samples of a window are drawn


class Trained(NamedTuple):
    """A row's detector and how it was trained.

    Attributes:
      max_tubes: that ground truth is padded to.
    """

    predictor: Predictor
    options: LossOptions
    max_tubes: int

    @property
    def detector(self) -> StepDetector:
        return self.predictor.detector


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.claims.checks", description=__doc__.splitlines()[0]
    )
    parser.add_argument("--output", type=pathlib.Path, default=pathlib.Path("runs/claims"))
    parser.add_argument(
        "--rows", type=row_names, required=True, help="of the matrix, comma-separated; RGB alone"
    )
    parser.add_argument("--seed", type=int, default=0, help="of the runs (0)")
    parser.add_argument("--data", type=pathlib.Path, help="of the benchmark (OUTPUT/data)")
    arguments = parser.parse_args()
    data = arguments.data or arguments.output / "data"
    annotations = read_native(data / ANNOTATIONS)
    found = {}
    for run in planned(arguments.rows, [arguments.seed]):
        trained = load(run.folder(arguments.output))
        batches = list(tqdm.tqdm(read_batches(annotations, trained), desc=run.row))
        norms, unreached = gradients(trained, batches[0])
        found[run.row] = {
            "gradients": norms, "unreached": unreached, "steps": steps(trained, batches),
        }  # fmt: skip
        write_json(arguments.output / FILE, {"seed": arguments.seed, "rows": found})
    print(arguments.output / FILE)


def load(workdir: pathlib.Path) -> Trained:
    """A finished training. Raises InputError for others, and for those that read flow."""
    if run_folder.finished_step(workdir) is None:
        raise InputError(f"{workdir}: has no finished training; expected one that claims made")
    own = run_folder.read_config(workdir)
    if own["data"]["modality"] != "rgb":
        raise InputError(f"{workdir}: reads {own['data']['modality']}; expected RGB alone")
    return Trained(load_predictor(workdir), LossOptions(**own["loss"]), own["data"]["max_tubes"])


def read_batches(annotations: Annotations, trained: Trained) -> Iterator[Batch]:
    """What training would be fed of the test videos' windows."""
    videos = [video for video in annotations.videos if video.split == "test"]
    for first in range(0, len(videos) - len(videos) % _BATCH, _BATCH):
        examples = [
            _example(annotations, video, trained) for video in videos[first : first + _BATCH]
        ]
        yield {key: np.stack([one[key] for one in examples]) for key in examples[0]}


def _example(annotations: Annotations, video: Video, trained: Trained) -> Batch:
    predictor = trained.predictor
    middle = int(np.median(video.tubes[0].frames))
    path = pathlib.Path(annotations.video_path(video))
    shot = read_shot(path, predictor, start=middle - predictor.clip_frames // 2)
    before = (predictor.input_frames - predictor.clip_frames) // 2
    return {"clips": shot.clip, **targets(video, trained, first=shot.start - before)}


def targets(video: Video, trained: Trained, *, first: int) -> Batch:
    """The video's tubes in the window that begins at frame `first`, in input pixels.

    As in training, those that act in the whole target clip are there to be found.
    """
    predictor, number = trained.predictor, trained.max_tubes
    length = predictor.input_frames
    found = {
        "boxes": np.zeros((number, length, 4), np.float32),
        "box_mask": np.zeros((number, length), bool),
        "labels": np.zeros((number, len(predictor.classes)), np.float32),
    }
    side = predictor.image_size / np.array([video.width, video.height] * 2, np.float32)
    for place, tube in enumerate(video.tubes[:number]):
        inside = (tube.frames >= first) & (tube.frames < first + length)
        found["boxes"][place, tube.frames[inside] - first] = tube.boxes[inside] * side
        found["box_mask"][place, tube.frames[inside] - first] = True
        found["labels"][place, list(tube.labels)] = 1
    start = (length - predictor.clip_frames) // 2
    acts = found["box_mask"][:, start : start + predictor.clip_frames].all(axis=1)
    return {**found, "tube_mask": acts}


def gradients(trained: Trained, batch: Batch) -> tuple[dict[str, dict[str, float]], list[str]]:
    """Norms of the gradient, and the parameters that no loss reaches.

    The norms are loss and step -> part of the detector -> norm.
    """
    variables = dict(trained.predictor.variables)
    params = variables.pop("params")

    def terms(params: PyTree) -> detector_loss.Terms:
        return _terms(trained, {"params": params, **variables}, batch)

    names = sorted(jax.eval_shape(terms, params))

    @jax.jit
    @jax.grad
    def gradient(params: PyTree, chosen: Array) -> Array:
        """Of the loss that `chosen` [terms] is one for."""
        found = terms(params)
        counts = {name: count for name, (_, count) in found.items()}
        kept = {name: (found[name][0] * chosen[names.index(name)], counts[name]) for name in names}
        return detector_loss.weighted_loss(kept, counts, trained.options)

    found, reached = {}, set()
    for name, chosen in zip(names, np.eye(len(names), dtype=np.float32), strict=True):
        own = gradient(params, chosen)
        found[name] = {part: float(optax.tree.norm(leaves)) for part, leaves in own.items()}
        reached |= {path for path, leaf in by_path(own).items() if np.any(leaf)}
    return found, sorted(by_path(params).keys() - reached)


def _terms(trained: Trained, variables: PyTree, batch: Batch) -> detector_loss.Terms:
    """The losses of all steps, `NAME_STEP` -> (sum, count)."""
    detector, options = trained.detector, trained.options
    clips = detector_loss.normalise_clips(batch["clips"])
    features, _ = detector_loss.training_features(detector, variables, clips)
    chosen, _ = detector_loss.choose_all(
        detector, variables, features, trained.predictor.initial_tubes, batch,
        jax.random.key(0), jnp.arange(len(clips)), options=options,
    )  # fmt: skip
    wanted = detector_loss.loss_targets(detector, batch, options)
    return detector_loss.step_terms(detector, variables, features, chosen, wanted, options=options)


def steps(trained: Trained, batches: Sequence[Batch]) -> list[dict[str, float]]:
    """Of each step, over all windows and _DRAWS draws of samples.

    positives, negatives: samples of a window; pool: proposals that negatives are drawn from.
    tubes_with_positive: share of the ground-truth tubes that have one.
    negative_score: mean of the drawn negatives; other_score: of all that they are drawn from.
    overlap: mean IoU of each ground-truth tube with its best input, over the frames that there
      were before the step; overlap_added: over those that it was extended by, if it was.
    """
    look = jax.jit(lambda batch: _look(trained, batch))
    found = [jax.tree.map(float, look(batch)) for batch in tqdm.tqdm(batches, desc="steps")]
    total = jax.tree.map(lambda *values: sum(values), *found)
    return [
        {name: value / count for name, (value, count) in step.items() if count} for step in total
    ]


def _look(trained: Trained, batch: Batch) -> list[dict[str, SumCount]]:
    """What `steps` tells, of a batch, as sums and counts over the draws."""
    detector, options, variables = trained.detector, trained.options, trained.predictor.variables
    wanted = detector_loss.loss_targets(detector, batch, options)
    real = detector_loss.example_mask(batch)
    clips = detector_loss.normalise_clips(batch["clips"])
    features, _ = detector_loss.training_features(detector, variables, clips)
    candidates = step_samples.infer_candidates(
        detector, variables, features, trained.predictor.initial_tubes, wanted,
        image_size=clips.shape[2:4], options=options,
    )  # fmt: skip
    index = jnp.arange(len(clips))

    def of_draw(key: Array) -> list[dict[str, SumCount]]:
        found = []
        for step, own in enumerate(candidates):
            overlaps = training_targets.overlaps(
                wanted, own.tubes, detector.plan, frames=options.frames
            )
            (_, samples, _), seen = step_samples.choose(
                step, own, wanted, real, key, index, detector=detector, options=options
            )
            threshold = options.thresholds[step]
            found.append(
                {
                    "positives": seen["positives"],
                    "negatives": seen["negatives"],
                    "tubes_with_positive": with_positive(samples, wanted.tube_mask),
                    **negative_scores(
                        samples,
                        own.scores,
                        overlaps,
                        wanted.tube_mask,
                        threshold=threshold,
                        claim_without_overlap=options.claim_without_overlap,
                    ),
                    **overlaps_by_frames(own.tubes, overlaps, wanted, detector.plan, step),
                }
            )
        return found

    drawn = jax.vmap(of_draw)(jax.random.split(jax.random.key(0), _DRAWS))
    return jax.tree.map(lambda values: values.sum(axis=0), drawn)


def with_positive(samples: sampling.Samples, tube_mask: Array) -> SumCount:
    """How many ground-truth tubes `[B, G]` there are, and how many of them have a positive."""
    owns = samples.tube[..., None] == jnp.arange(tube_mask.shape[1])
    found = (owns & samples.positive[..., None]).any(axis=1) & tube_mask
    return found.sum(dtype=jnp.float32), tube_mask.sum(dtype=jnp.float32)


def negative_scores(
    samples: sampling.Samples, scores: Array, overlaps: Array, tube_mask: Array, **rules: Any
) -> dict[str, SumCount]:
    """Mean scores of a clip's drawn negatives, and of all that could have been: the pool.

    `rules` are `sampling.roles`'.
    """
    roles = functools.partial(sampling.roles, **rules)
    _, eligible = jax.vmap(roles)(overlaps, tube_mask)
    allowed = ~eligible
    drawn = jnp.take_along_axis(scores, samples.index, axis=1)
    has = samples.negative.any(axis=1)
    clips = has.sum(dtype=jnp.float32)
    return {
        "pool": (jnp.where(has, allowed.sum(axis=1), 0).sum(dtype=jnp.float32), clips),
        "negative_score": (jnp.where(has, _mean(drawn, samples.negative), 0).sum(), clips),
        "other_score": (jnp.where(has, _mean(scores, allowed), 0).sum(), clips),
    }


def overlaps_by_frames(
    tubes: Array, overlaps: Array, wanted: Targets, plan: StepPlan, step: int
) -> dict[str, SumCount]:
    """Mean IoU of each ground-truth tube with its best input `tubes [B, M, L, 4]`, by frames."""
    best = overlaps.argmax(axis=2)[:, :, None, None]
    iou = box_ops.box_iou(
        jnp.take_along_axis(tubes, best, axis=1), wanted.boxes[:, :, plan.window(step)]
    )
    mask = wanted.box_mask[:, :, plan.window(step)] & wanted.tube_mask[..., None]
    before = plan.length(step - 1) if step else plan.length(0)
    side = (plan.length(step) - before) // 2
    added = np.ones(plan.length(step), bool)
    added[side : side + before] = False
    return {
        "overlap": _sum(iou, mask & ~added),
        "overlap_added": _sum(iou, mask & added),
    }


def _mean(values: Array, mask: Array) -> Array:
    """Over the last axis, of what is in the mask."""
    return jnp.where(mask, values, 0).sum(axis=-1) / jnp.maximum(mask.sum(axis=-1), 1)


def _sum(values: Array, mask: Array) -> SumCount:
    return jnp.where(mask, values, 0).sum(), mask.sum(dtype=jnp.float32)


if __name__ == "__main__":
    run_command(main)
