"""From clips to scored tubelets of every step; a trained detector from its working directory."""

from __future__ import annotations

import copy
import dataclasses
import functools
import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from etils import epath

from step_jax import boxes as box_ops
from step_jax import hosts, parallel, proposals
from step_jax.checkpoint import Checkpoints
from step_jax.detector_loss import normalise_clips
from step_jax.modality import RGB, Modality
from step_jax.models.factory import build_detector, input_frames
from step_jax.models.step import StepDetector
from step_jax.train_state import init_variables

Array = jax.Array
PyTree = Any


class Tubelets(NamedTuple):
    """One step's result for a batch of clips, on the K input frames of the target clip.

    Attributes:
      scores: `[B, M, C]`, probabilities of the actions, without the background.
      tubes: `[B, M, R, K, 4]`, boxes of each class (R = C) or of all (R = 1), as shares of the
        image's sides, unclipped.
      fed: `[B, M, K, 4]`, the tubes that went into the step.
    """

    scores: Array
    tubes: Array
    fed: Array


def make_predict_step(
    detector: StepDetector, *, initial_tubes: Array
) -> Callable[[PyTree, Array], list[Tubelets]]:
    """`(variables, clips uint8 [B, T_in, S, S, channels]) -> Tubelets of each step`.

    `initial_tubes` are `[M, K, 4]` in input pixels.
    """

    def predict(variables: PyTree, clips: Array) -> list[Tubelets]:
        height, width = clips.shape[2:4]
        side = np.array([width, height, width, height], np.float32)
        steps = []
        for output in detector.apply(variables, normalise_clips(clips), initial_tubes):
            tubes = on_input_frames(detector, detector.class_tubes(output))
            fed = box_ops.clip_boxes(output.fed, height=height, width=width)
            fed = on_input_frames(detector, fed)
            scores = detector.class_scores(output)
            steps.append(Tubelets(scores, tubes.swapaxes(2, 3) / side, fed / side))
        return steps

    return predict


def on_input_frames(detector: StepDetector, tubes: Array) -> Array:
    """Boxes of feature frames `[B, M, L, ...]` at the input frames of the target clip, K for L.

    A feature frame's box is where the actor is in the middle of the input frames it stands for, the
    one it is trained on (`targets.targets_of`); between two of them boxes move on a straight line.
    """
    plan, stride = detector.plan, detector.backbone.temporal_stride
    target = plan.target(tubes.shape[2])
    if stride == 1:
        return tubes[:, :, target]
    middles = stride * np.arange(tubes.shape[2]) + stride // 2
    frames = np.arange(stride * target.start, stride * target.stop)
    shares = np.stack([np.interp(frames, middles, one) for one in np.eye(len(middles))], axis=1)
    shares = shares.astype(np.float32)
    return jnp.einsum("kl,bml...->bmk...", shares, tubes, precision=jax.lax.Precision.HIGHEST)


@dataclasses.dataclass(frozen=True)
class Predictor:
    """A detector with its parameters, ready for clips.

    Attributes:
      detector: the model.
      variables: its parameters and other variables.
      classes: names of the C actions.
      image_size: S, the side that clips must have.
      fps: frame rate that the detector was trained at; 0 if it took videos at their own.
      proposals: number or specification of the initial tubes.
      step: updates that the parameters have seen.
      modality: what the channels of a clip are.
      flow: how the flow that it was trained on was computed, "" if that is not known; flow_side: at
        which shorter side of the frames, in pixels, 0 if at their own.
    """

    detector: StepDetector
    variables: PyTree
    classes: tuple[str, ...]
    image_size: int
    fps: float
    proposals: Any
    step: int
    modality: Modality = RGB
    flow: str = ""
    flow_side: int = 0

    def __post_init__(self):
        predict = make_predict_step(self.detector, initial_tubes=self.initial_tubes)
        object.__setattr__(self, "_predict", parallel.data_parallel_map(predict))

    @functools.cached_property
    def initial_tubes(self) -> np.ndarray:
        """What the first step is fed: `[M, K, 4]` in input pixels, K in feature frames."""
        return proposals.initial_tubes(
            self.proposals,
            num_frames=self.detector.plan.chunk,
            height=self.image_size,
            width=self.image_size,
        )

    def with_variables(self, variables: PyTree, *, step: int) -> Predictor:
        """The same detector after other updates; what was compiled for this one serves it too."""
        other = copy.copy(self)
        object.__setattr__(other, "variables", variables)
        object.__setattr__(other, "step", step)
        return other

    @property
    def clip_frames(self) -> int:
        """K in input frames."""
        return self.detector.plan.chunk * self.detector.backbone.temporal_stride

    @property
    def input_frames(self) -> int:
        return input_frames(self.detector)

    @property
    def channels(self) -> int:
        """Of the clips."""
        return self.modality.channels

    @property
    def num_steps(self) -> int:
        return self.detector.plan.num_steps

    def __call__(self, clips: Array) -> list[Tubelets]:
        """Result of each step for `clips` uint8 `[B, T_in, S, S, channels]`, or from `prefetch`.

        B is a multiple of the devices. Returns as soon as the work is queued; `np.asarray` of a
        leaf waits for it.
        """
        on_devices = clips if clips.ndim == 6 else parallel.split_batch(clips)
        return self._predict(self.variables, on_devices)

    def prefetch(
        self, batches: Iterable[Mapping[str, np.ndarray]]
    ) -> Iterator[tuple[Mapping[str, np.ndarray], Array]]:
        """(batch, its clips for a call), the clips put on the devices ahead of use."""
        return parallel.prefetch(batches, lambda batch: batch["clips"])


def describe(
    *,
    model: Mapping[str, Any],
    classes: tuple[str, ...],
    image_size: int,
    fps: float,
    proposals: Any,
    modality: Modality = RGB,
    flow: str = "",
    flow_side: int = 0,
) -> dict[str, Any]:
    """What a checkpoint says of itself, JSON-ready; `load_predictor` builds from it.

    The modality is RGB unless told otherwise; of RGB nothing is said, as before there were others.
    """
    read = {
        "modality": modality.name,
        "flow_frames": modality.flow_frames,
        "flow": flow,
        "flow_side": flow_side,
    }
    return {
        "model": dict(model),
        "classes": list(classes),
        "image_size": image_size,
        "fps": fps,
        "proposals": proposals,
        **(read if modality.has_flow else {}),
    }


def load_predictor(workdir: epath.PathLike, checkpoint: str = "latest") -> Predictor:
    """The detector that a training run left in `workdir`.

    Args:
      workdir: the run's folder.
      checkpoint: "latest", "best" or a step.

    Raises:
      InputError: there is no such checkpoint, or it is damaged.
    """
    checkpoints = Checkpoints(workdir, read_only=True)
    step = checkpoints.find(checkpoint)
    predictor = restore_predictor(checkpoints, step)
    checkpoints.close()
    return predictor


def restore_predictor(checkpoints: Checkpoints, step: int) -> Predictor:
    """As `load_predictor`, for a known step of opened checkpoints.

    Checkpoints of one run share what is compiled.
    """
    template = abstract_predictor(checkpoints.describe(step))
    variables = checkpoints.restore_variables(step, template.variables)
    return template.with_variables(variables, step=step)


def predictor_for_all(predictor: Predictor | None, description: Mapping[str, Any]) -> Predictor:
    """The writer's predictor at all processes, of which it alone has read the checkpoint.

    `description` is the checkpoint's; both are None elsewhere.
    """
    description = hosts.writers("description", description)
    step = hosts.writers("step of predictor", predictor.step if predictor else None)
    template = predictor or abstract_predictor(description)
    variables = jax.tree.map(
        lambda leaf: leaf if predictor else np.zeros(leaf.shape, leaf.dtype), template.variables
    )
    return template.with_variables(parallel.replicate(hosts.broadcast(variables)), step=step)


def predictor_of(description: Mapping[str, Any], variables: PyTree, *, step: int) -> Predictor:
    """The predictor that a description tells of, with the variables of a running training."""
    return abstract_predictor(description).with_variables(variables, step=step)


def abstract_predictor(description: Mapping[str, Any]) -> Predictor:
    """The predictor that a description tells of, with the variables' shapes in their place."""
    return _template(json.dumps(description, sort_keys=True))


@functools.lru_cache(maxsize=1)
def _template(description: str) -> Predictor:
    told = json.loads(description)
    classes = tuple(told["classes"])
    detector = build_detector(num_classes=len(classes), **told["model"])
    spec = told["proposals"]
    spec = spec if isinstance(spec, int) else tuple(map(tuple, spec))
    shapes = jax.eval_shape(
        lambda: init_variables(
            detector,
            image_size=told["image_size"],
            num_proposals=len(proposals.initial_boxes(spec)),
            key=jax.random.key(0),
        )
    )
    return Predictor(
        detector=detector,
        variables=shapes,
        classes=classes,
        image_size=told["image_size"],
        fps=told["fps"],
        proposals=spec,
        step=0,
        modality=_modality(told),
        flow=told.get("flow", ""),
        flow_side=told.get("flow_side", 0),
    )


def _modality(told: Mapping[str, Any]) -> Modality:
    """What a description tells of it: nothing, where the detector reads RGB."""
    return Modality(told["modality"], told["flow_frames"]) if "modality" in told else RGB
