"""What a conversion gives, and the run folder that it is written to."""

from __future__ import annotations

import hashlib
import json
import os
import pathlib
import shutil
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from step_jax import inference, proposals, run_folder
from step_jax.checkpoint import VERSION, Checkpoints
from step_jax.errors import InputError
from step_jax.train_state import TrainState, init_variables
from step_jax.transfer import transfer

PyTree = Any
SEED = 0  # of the values that a file does not have


class Converted(NamedTuple):
    """Foreign weights as one of our detectors.

    Attributes:
      description: what builds it (`inference.describe`); "source" tells where it is from.
      variables: its parameters and other variables.
      step: updates that the weights have seen; 0 where the file does not say.
      initial: paths of the variables that the file does not have, at their initial values.
    """

    description: dict[str, Any]
    variables: PyTree
    step: int = 0
    initial: tuple[str, ...] = ()


def start_detector(description: dict[str, Any], arrays: Mapping[str, Any]) -> Converted:
    """A new detector whose variables are `arrays` where these have them, by path."""
    predictor = inference.abstract_predictor(description)
    variables = init_variables(
        predictor.detector,
        image_size=predictor.image_size,
        num_proposals=len(proposals.initial_boxes(predictor.proposals)),
        key=jax.random.key(SEED),
    )
    variables, report = transfer(variables, {"params": dict(arrays)})
    assert not report.surplus, report.summary()
    assert not report.misshapen, report.summary()
    return Converted(description, variables, initial=report.missing)


def source(kind: str, path: str | pathlib.Path) -> dict[str, Any]:
    """Where a conversion is from: by its digest the same one is recognised."""
    with pathlib.Path(path).open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    return {"format": kind, "file": pathlib.Path(path).name, "sha256": digest}


def write_run(output: str | pathlib.Path, converted: Converted, config: Mapping[str, Any]) -> bool:
    """Writes the folder of a run, as training leaves it, completely or not at all.

    Returns whether it was written: a folder that holds this very conversion is left as it is.

    Raises:
      InputError: the folder holds something else, or cannot be written.
    """
    output = pathlib.Path(output)
    if output.exists():
        _check_same(output, converted)
        return False
    temporary = output.with_name(f".{output.name}.{os.getpid()}.tmp")
    try:
        temporary.mkdir(parents=True)
    except OSError as error:
        raise InputError(f"--output {output}: cannot be made: {error.strerror}") from error
    try:
        run_folder.open_for_training(temporary, config)
        _save(temporary, converted)
        temporary.rename(output)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise
    run_folder.write_parameters(output, converted.variables)
    return True


def _save(workdir: pathlib.Path, converted: Converted) -> None:
    others = {name: tree for name, tree in converted.variables.items() if name != "params"}
    state = TrainState(
        step=jnp.int32(converted.step),
        params=converted.variables["params"],
        model_state=others,
        opt_state={},  # the file's optimizer is another one
    )
    checkpoints = Checkpoints(workdir)
    try:
        checkpoints.save(state, converted.description)
        checkpoints.wait()
    finally:
        checkpoints.close()


def _check_same(output: pathlib.Path, converted: Converted) -> None:
    """Raises unless the folder holds what would be written."""
    if not (output / run_folder.CHECKPOINTS).is_dir():
        raise InputError(f"--output {output}: is there already; choose another folder")
    # Tuples come back from the disk as lists.
    expected = json.loads(json.dumps({"version": VERSION, **converted.description}))
    checkpoints = Checkpoints(output, read_only=True)
    try:
        same = checkpoints.steps() == [converted.step]
        same = same and checkpoints.describe(converted.step) == expected
    finally:
        checkpoints.close()
    if not same:
        raise InputError(
            f"--output {output}: holds another run or conversion; choose another folder"
        )
