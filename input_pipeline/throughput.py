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

from input_pipeline import records
from input_pipeline.keyframes import KeyframeLabels, training_labels
from step_jax import cli
from step_jax.annotations.ava_folder import VERSIONS, open_ava_folder
from step_jax.modality import MODALITIES, Modality
from step_jax.replacing import replacing

AUGMENTS = {
    "none": {},
    "usual": {"flip": 0.5, "crop": 0.5, "photometric": 0.8},
    "all": {"flip": 1.0, "crop": 1.0, "photometric": 1.0, "erase": 1.0},
}


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
    next(batches)
    num_batches = -(-num_windows // options["batch_size"])
    pull = _pull(itertools.islice(batches, num_batches))
    decode = _decoding(records_dir, options, num_windows)
    decode()  # once before, to have the files in memory as the batches do
    timed = {"batches": _time(pull), "decoding": _time(decode)}
    return {
        "num_windows": num_batches * options["batch_size"],
        "augment": augment,
        "options": options,
        **{
            name: {
                "windows_per_second": round(count / seconds, 2),
                "cpu_seconds_per_window": round(cpu / count, 5),
            }
            for name, (count, seconds, cpu) in timed.items()
        },
        "peak_memory_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024,
    }


def _pull(batches) -> Callable[[], int]:
    return lambda: sum(len(batch["clips"]) for batch in batches)


def _decoding(records_dir, options: dict, num_windows: int) -> Callable[[], int]:
    """Decodes the images of one window of each record, in parallel, and throws them away.

    These are `input_frames` frames, and flow images, those after the last frame too.
    """
    import tensorflow as tf

    from input_pipeline import builders, pixels
    from input_pipeline.reading import read_records

    shards = records.shard_paths(records_dir, options["split"])
    info = records.load_info(records_dir)
    modality = Modality(options["modality"], options["flow_frames"])
    spec = builders.pixel_features(flow=modality.has_flow).tf_example_spec
    counts = {"frames": options["input_frames"]} if modality.has_rgb else {}
    if modality.has_flow:
        counts["flow"] = options["input_frames"] + modality.lookahead

    def decode_images(jpegs):
        whole = tf.concat([[0, 0], pixels.frame_size(jpegs)], axis=0)
        return tf.reduce_max(pixels.decode_crop(jpegs, whole))

    def decode(_, data):
        example = tf.io.parse_single_example(data, spec)
        return [decode_images(example[kind][:count]) for kind, count in counts.items()]

    threads = options["num_threads"] or os.cpu_count() or 1
    num_records = info.splits[options["split"]].num_records
    dataset = read_records(shards, range(num_records)).repeat().take(num_windows)
    dataset = dataset.map(decode, num_parallel_calls=threads)
    return lambda: sum(1 for _ in dataset)


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
