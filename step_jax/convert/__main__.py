"""Converts foreign weights into a run's folder, and a run's checkpoint into the released format.

    python -m step_jax.convert released --input ava_step.pth --output runs/ava_released
    python -m step_jax.convert kinetics_i3d --input rgb_imagenet.pth --output runs/kinetics
    python -m step_jax.convert imagenet_vgg16 --input vgg16.pth --input_type early --output runs/vgg
    python -m step_jax.convert export --input runs/ava --output ava_step.pth

docs/weights.md tells what each source is, and under which licence. Reading and writing .pth files
needs PyTorch (pip install 'torch>=2.6').
"""

from __future__ import annotations

import argparse
import copy
import re
import sys
from collections.abc import Mapping, Sequence
from typing import Any

from configs import ava, ava_classification, ucf101_24
from step_jax import inference
from step_jax.annotations.ucf101_24 import CLASSES as UCF101_24_CLASSES
from step_jax.cli import run_command
from step_jax.convert.conversion import Converted, write_run
from step_jax.convert.export import export_run
from step_jax.convert.imagenet import read_vgg16
from step_jax.convert.kinetics import read_kinetics
from step_jax.convert.released import read_released
from step_jax.modality import Modality
from step_jax.storage import local_path
from step_jax.transfer import DifferentKeysError

AVA_CLASSES = 60


def main() -> None:
    arguments = parse_arguments()
    if arguments.source == "export":
        step = export_run(arguments.input, arguments.output, checkpoint=arguments.checkpoint)
        print(f"wrote step {step} of {arguments.input} to {arguments.output}")
        return
    try:
        converted, config = convert(arguments)
    except DifferentKeysError as error:
        print("\n".join(error.report.listing()), file=sys.stderr)
        raise
    print_initial(converted.initial)
    if write_run(arguments.output, converted, config):
        print(f"wrote {arguments.output}, checkpoint {converted.step}")
    else:
        print(f"{arguments.output} holds this conversion already")


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m step_jax.convert", description=__doc__.splitlines()[0]
    )
    commands = parser.add_subparsers(dest="source", required=True, metavar="SOURCE")
    helps = {
        "released": "a checkpoint of the public STEP code",
        "kinetics_i3d": "an I3D in PyTorch, trained on Kinetics",
        "imagenet_vgg16": "torchvision's VGG16, trained on ImageNet",
        "export": "a run of ours, written as a checkpoint of the public STEP code",
    }
    for name, text in helps.items():
        command = commands.add_parser(name, help=text, description=text)
        exports = name == "export"
        command.add_argument(
            "--input",
            type=local_path,
            required=True,
            help="folder of the run" if exports else "the .pth file",
        )
        command.add_argument(
            "--output",
            type=local_path,
            required=True,
            help="the .pth file" if exports else "folder of the run, made",
        )
        if exports:
            command.add_argument("--checkpoint", default="latest", help="latest, best or a step")
        if name == "imagenet_vgg16":
            command.add_argument("--input_type", choices=list(ucf101_24.INPUTS), default="rgb")
    return parser.parse_args()


def convert(arguments: argparse.Namespace) -> tuple[Converted, dict[str, Any]]:
    """The detector, and the configuration of its run."""
    if arguments.source == "released":
        converted = read_released(arguments.input)
        local = converted.description["model"]["head_options"]["local_branch"]
        preset = ava.get_config("released") if local else ava_classification.get_config()
    elif arguments.source == "kinetics_i3d":
        preset = ava.get_config()
        names = [f"action {number}" for number in range(1, AVA_CLASSES + 1)]
        converted = read_kinetics(arguments.input, describe(preset.to_dict(), names))
    else:
        preset = ucf101_24.get_config(arguments.input_type)
        description = describe(preset.to_dict(), UCF101_24_CLASSES)
        converted = read_vgg16(arguments.input, description)
    return converted, configuration(preset.to_dict(), converted.description)


def describe(config: Mapping[str, Any], classes: Sequence[str]) -> dict[str, Any]:
    """The description of a configuration's detector."""
    return inference.describe(
        model=config["model"],
        classes=tuple(classes),
        image_size=config["data"]["image_size"],
        fps=config["data"]["fps"],
        proposals=config["proposals"],
        modality=Modality(config["data"]["modality"], config["data"]["flow_frames"]),
    )


def configuration(preset: Mapping[str, Any], description: Mapping[str, Any]) -> dict[str, Any]:
    """A preset with the detector of a description, for evaluate.py to find in the run's folder."""
    config = copy.deepcopy(dict(preset))
    config["model"] = description["model"]
    config["proposals"] = description["proposals"]
    config["data"] |= {"image_size": description["image_size"], "fps": description["fps"]}
    if description["model"]["backbone"] == "i3d":
        config["eval"]["per_class_top"] = description["proposals"]  # of a keyframe all compete
    # By this key train.py sees that the run is not one to continue: it has no optimizer state.
    config["converted_from"] = description["source"]["file"]
    return config


def print_initial(paths: Sequence[str]) -> None:
    """Says which modules the file has nothing for, those of all heads together."""
    modules = {"/".join(re.sub(r"^heads_\d+", "heads_*", path).split("/")[:2]) for path in paths}
    if modules:
        print(f"not in the file, so at their initial values: {', '.join(sorted(modules))}")


if __name__ == "__main__":
    run_command(main)
