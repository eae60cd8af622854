"""How fast the training batches come: against decoding the same JPEGs and nothing else.

python -m input_pipeline.throughput --records DIR --split train [--json FILE]
python -m input_pipeline.throughput --records DIR --annotations DIR --ava_version 2.1 \
    --clip_frames 12 --input_frames 36 --image_size 400
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import pathlib
import resource
import time
from collections.abc import Callable, Sequence

import numpy as np

from input_pipeline import records
from input_pipeline.keyframes import KeyframeLabels, training_labels
from step_jax import cli
from step_jax.annotations.ava_folder import VERSIONS, open_ava_folder
from step_jax.errors import InputError
from step_jax.modality import MODALITIES, Modality
from step_jax.replacing import replacing

AUGMENTS = {
    "none": {},
    "usual": {"flip": 0.5, "crop": 0.5, "photometric": 0.8},
    "all": {"flip": 1.0, "crop": 1.0, "photometric": 1.0, "erase": 1.0},
}


IN_MEMORY = 64  # windows whose JPEGs are decoded again and again


def measure(
    records_dir: str | os.PathLike,
    *,
    num_windows: int,
    augment: str,
    keyframes: KeyframeLabels | None = None,
    **options,
) -> dict:
    """Times training batches and bare decoding.

    Args:
      records_dir, keyframes, options: those of `pipeline.train_batches`, without augment and seed.
      num_windows: how many windows to time, after a first batch that is not timed.
      augment: a key of AUGMENTS.

    Returns windows a second and processor seconds a window, of the batches and of decoding alone.
    """
    from input_pipeline import pipeline  # imports TensorFlow
    from input_pipeline.augment import Augment

    batches = pipeline.train_batches(
        records_dir,
        seed=0,
        augment=Augment(**AUGMENTS[augment]),
        keyframes=keyframes,
        **options,
    )
    num_batches = -(-num_windows // options["batch_size"])
    decode = _decoding(records_dir, options, num_windows)
    decode()  # once before, to have what it needs
    timed = {"decoding": _time(decode)}
    # The first batch fills what is made ahead: from then on one is made for each that is taken.
    next(batches)
    timed["batches"] = _time(_pull(itertools.islice(batches, num_batches)))
    rows = {
        name: {
            "windows_per_second": round(count / seconds, 2),
            "cpu_seconds_per_window": round(cpu / count, 5),
        }
        for name, (count, seconds, cpu) in timed.items()
    }
    alone, whole = (rows[name]["cpu_seconds_per_window"] for name in ("decoding", "batches"))
    return {
        "num_windows": num_batches * options["batch_size"],
        "augment": augment,
        "options": options,
        **rows,
        "part_of_decoding": round(alone / whole, 3),
        "peak_memory_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024,
    }


def _pull(batches) -> Callable[[], int]:
    return lambda: sum(len(batch["boxes"]) for batch in batches)


def _decoding(records_dir, options: dict, num_windows: int) -> Callable[[], int]:
    """Decodes the images of windows, which are in memory, and throws each away.

    These are the first of a record: `input_frames` frames, and flow images, those after the last
    frame too.
    """
    import tensorflow as tf

    jpegs = _images_in_memory(records_dir, options, at_most=min(num_windows, IN_MEMORY))

    def decode(images):
        pictures = [tf.io.decode_jpeg(image, channels=3) for image in tf.unstack(images)]
        return tf.add_n([picture[0, 0, 0] // 255 for picture in pictures])

    threads = options["num_threads"] or os.cpu_count() or 1
    chosen = tf.data.Options()
    chosen.threading.private_threadpool_size = threads
    chosen.threading.max_intra_op_parallelism = 1
    dataset = tf.data.Dataset.from_tensor_slices(jpegs).repeat().take(num_windows)
    dataset = dataset.map(decode, num_parallel_calls=threads).with_options(chosen)
    return lambda: sum(1 for _ in dataset)


def _images_in_memory(records_dir, options: dict, *, at_most: int) -> np.ndarray:
    """JPEGs [windows, images] of the records that hold as many images as a window reads."""
    import tensorflow as tf

    from input_pipeline import builders
    from input_pipeline.reading import read_records

    modality = Modality(options["modality"], options["flow_frames"])
    spec = builders.pixel_features(flow=modality.has_flow).tf_example_spec
    counts = {"frames": options["input_frames"]} if modality.has_rgb else {}
    if modality.has_flow:
        counts["flow"] = options["input_frames"] + modality.lookahead
    num_records = records.load_info(records_dir).splits[options["split"]].num_records
    shards = records.shard_paths(records_dir, options["split"])
    windows = []
    for _, data in read_records(shards, range(num_records)):
        example = tf.io.parse_single_example(data, spec)
        if all(len(example[kind]) >= count for kind, count in counts.items()):
            own = [example[kind][:count].numpy() for kind, count in counts.items()]
            windows.append(np.concatenate(own))
        if len(windows) == at_most:
            break
    if not windows:
        raise InputError(f"{records_dir}: no record has the images of a whole window")
    return np.stack(windows)


def _time(work: Callable[[], int]) -> tuple[int, float, float]:
    """What the work counted, the seconds it took, and the processor's seconds."""
    start, cpu_start = time.perf_counter(), time.process_time()
    count = work()
    return count, time.perf_counter() - start, time.process_time() - cpu_start


def main(argv: Sequence[str] | None = None):
    """The command."""
    arguments = vars(_parser().parse_args(argv))
    records_dir, path = arguments.pop("records"), arguments.pop("json")
    records.load_info(records_dir)  # fail before TensorFlow's seconds
    from input_pipeline.accelerators import hide_accelerators

    hide_accelerators()
    annotations, version = arguments.pop("annotations"), arguments.pop("ava_version")
    if version:
        folder = open_ava_folder(annotations, version)
        arguments["keyframes"] = training_labels(folder, arguments["split"])
    result = measure(records_dir, **arguments)
    for name in ("batches", "decoding"):
        row = result[name]
        print(
            f"{name:10s}{row['windows_per_second']:10.1f} clips/s"
            f"{1000 * row['cpu_seconds_per_window']:10.2f} ms of processor a clip"
        )
    print(f"{result['part_of_decoding']:.0%} of the speed of decoding")
    print(f"peak memory {result['peak_memory_mb']} MB")
    if path:
        with replacing(pathlib.Path(path)) as temporary:
            temporary.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m input_pipeline.throughput", description="Time the training batches."
    )
    parser.add_argument("--records", required=True, help="folder of clip records")
    parser.add_argument("--split", default="train")
    parser.add_argument("--json", help="write the result here too")
    parser.add_argument("--augment", choices=AUGMENTS, default="usual")
    parser.add_argument("--annotations", default="", help="folder of AVA's files, for its records")
    parser.add_argument("--ava_version", choices=VERSIONS, help="of these annotations")
    parser.add_argument("--modality", choices=MODALITIES, default="rgb")
    parser.add_argument(
        "--source_size",
        nargs=2,
        type=int,
        metavar=("HEIGHT", "WIDTH"),
        help="of frames that the device resizes, as data.source_size; default: none does",
    )
    numbers = {
        "num_windows": 400,
        "batch_size": 8,
        "clip_frames": 6,
        "input_frames": 30,
        "image_size": 96,
        "max_tubes": 16,
        "flow_frames": 5,
        "num_threads": 0,
    }
    for name, default in numbers.items():
        parser.add_argument(f"--{name}", type=int, default=default, help=f"default: {default}")
    return parser


if __name__ == "__main__":
    cli.run_command(main)
