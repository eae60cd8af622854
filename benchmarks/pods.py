"""What a pod of many devices would need from its disks, processors and network.

    python -m benchmarks.pods

prints the tables of docs/scaling.md, which tells the formulas. Nothing here was run on a pod: the
numbers follow from what was measured on two cores, from what is counted, and from assumptions, each
named as one below.
"""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Iterator, Sequence

import jax
from ml_collections import ConfigDict

from benchmarks import configuration
from step_jax import inference
from step_jax.cli import run_command
from step_jax.models.factory import input_frames

FLOAT_BYTES = 4


@dataclasses.dataclass(frozen=True)
class Workload:
    """A configuration and the data set that it is trained on.

    Attributes:
      name: of the table.
      config: FILE or FILE:VARIANT.
      train_gflop, forward_gflop: of one clip; counted by `benchmarks.training` and
        `benchmarks.inference`.
      pipeline_ms: processor milliseconds that the input pipeline takes for a clip; measured.
      decoding_ms: the same where the device resizes (`data.source_size`).
      source_size: (height, width) of the records' frames.
      record_bytes: of one record; measured, or from docs/ava.md.
      clips_a_record: windows that an epoch draws of a record; what is read is shared by them.
      train_records, train_files, eval_records, eval_files, eval_windows: of the data set.
      epochs: of the whole training.
    """

    name: str
    config: str
    train_gflop: float
    forward_gflop: float
    pipeline_ms: float
    decoding_ms: float
    source_size: tuple[int, int]
    record_bytes: float
    clips_a_record: float
    train_records: int
    train_files: int
    eval_records: int
    eval_files: int
    eval_windows: int
    epochs: float

    @property
    def epoch_clips(self) -> float:
        return self.train_records * self.clips_a_record

    @property
    def read_bytes(self) -> float:
        """Of a clip."""
        return self.record_bytes / self.clips_a_record


def by_size(stored_bytes: float, *, splits: int) -> int:
    """Record files of a split, as `input_pipeline.prepare` chooses their number."""
    return max(8, int(stored_bytes / splits) // (64 << 20))


# Records of docs/ucf101_24.md: 1,174,045 frames stored in both splits, 26.0 kB each.
_UCF_BYTES = 1_174_045 * 26.0e3
WORKLOADS = (
    Workload(
        name="UCF101-24, rgb",
        config="configs/ucf101_24.py",
        train_gflop=14_378,
        forward_gflop=3_716,
        pipeline_ms=22.6,
        decoding_ms=13.4,
        source_size=(256, 340),
        record_bytes=41.7e6 / 34,  # the five test videos'
        clips_a_record=1,
        train_records=17_494,
        train_files=by_size(_UCF_BYTES, splits=2),
        eval_records=7_041,
        eval_files=by_size(_UCF_BYTES, splits=2),
        eval_windows=154_739,
        epochs=35,
    ),
    Workload(
        name="AVA v2.1, released",
        config="configs/ava.py:released",
        train_gflop=1_775,
        forward_gflop=805,
        pipeline_ms=70.2,
        decoding_ms=32.2,
        source_size=(360, 640),
        record_bytes=(180 + 12 + 35) * 23e3,  # docs/ava.md, frames of 640x360
        clips_a_record=183_440 / (235 * 60),
        train_records=235 * 60,
        train_files=235,
        eval_records=64 * 60,
        eval_files=64,
        eval_windows=57_408,
        epochs=14,
    ),
)


@dataclasses.dataclass(frozen=True)
class Pod:
    """Assumptions about the machines; nothing of them was measured.

    Attributes:
      devices_a_host: as in the usual GPU node.
      tflops: that a device sustains on this model.
      clips_a_device: batch of one device.
      link_gbit: of a host's network, gigabits a second.
      inside_gbytes: between the devices of a host, gigabytes a second and device.
      disk_gbytes: that process 0 writes a checkpoint at, gigabytes a second.
    """

    devices_a_host: int = 8
    tflops: float = 50.0
    clips_a_device: int = 4
    link_gbit: float = 100.0
    inside_gbytes: float = 200.0
    disk_gbytes: float = 1.0


POD = Pod()
DEVICES = (8, 64, 512)
SUSTAINED_TFLOPS = (10.0, 50.0, 200.0)


# --- formulas -------------------------------------------------------------------------------------


def clips_per_second(gflop: float, tflops: float) -> float:
    """Of one device."""
    return 1e3 * tflops / gflop


def ring_bytes(nbytes: float, members: int) -> float:
    """That each of `members` sends in a ring all-reduce of `nbytes`: reduce-scatter, all-gather."""
    return 2 * (members - 1) / members * nbytes


def all_reduce_seconds(nbytes: float, devices: int, pod: Pod) -> float:
    """Inside the hosts first, then between them, one after the other.

    A host's devices share its network: together they send a ring's share of `nbytes` once.
    """
    inside = min(devices, pod.devices_a_host)
    seconds = ring_bytes(nbytes, inside) / (pod.inside_gbytes * 1e9)
    hosts = devices // inside
    return seconds + ring_bytes(nbytes, hosts) / (pod.link_gbit / 8 * 1e9)


def share_files(files: Sequence[int], share: range) -> Iterator[tuple[int, int]]:
    """(records read, records used) of every file that holds a part of `share`.

    files: records of each file. A file is read from its beginning to the part's end, because
    records have no index into their bytes (`input_pipeline.reading`).
    """
    before = 0
    for count in files:
        first, stop = max(share.start, before), min(share.stop, before + count)
        if first < stop:
            yield stop - before, stop - first
        before += count


def shares(records: int, processes: int) -> list[range]:
    """As `input_pipeline.plans.process_share`: consecutive records."""
    edges = [records * index // processes for index in range(processes + 1)]
    return [range(first, stop) for first, stop in itertools.pairwise(edges)]


def even_files(records: int, files: int) -> list[int]:
    """Records of each of `files` that are as good as equal."""
    return [len(share) for share in shares(records, files)]


def read_factor(files: Sequence[int], processes: int) -> float:
    """Bytes read over bytes used, by all processes together."""
    parts = [part for share in shares(sum(files), processes) for part in share_files(files, share)]
    return sum(read for read, _ in parts) / sum(used for _, used in parts)


def scaled_rate(rate: float, batch: int, base_batch: int) -> float:
    """Linear scaling of the learning rate."""
    return rate * batch / base_batch


# --- what is counted ------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class Counted:
    """Of a configuration: parameters, bytes of a checkpoint, frames and their sides, channels."""

    config: ConfigDict
    parameters: int
    checkpoint_bytes: int
    frames: int
    side: int
    channels: int

    @property
    def gradient_bytes(self) -> int:
        return FLOAT_BYTES * self.parameters

    def clip_bytes(self, size: tuple[int, int] | None = None) -> int:
        """Of a clip as the device gets it: of the network's size, or of frames of another."""
        height, width = size or (self.side, self.side)
        return self.frames * height * width * self.channels


def count(spec: str) -> Counted:
    """Of shapes alone, nothing is computed."""
    config = configuration.load_config(spec)
    predictor = inference.abstract_predictor(configuration.describe(spec, config))
    sizes = {
        name: sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(tree))
        for name, tree in predictor.variables.items()
    }
    return Counted(
        config,
        parameters=sizes["params"],
        # Adam keeps two numbers for each parameter.
        checkpoint_bytes=FLOAT_BYTES * (sum(sizes.values()) + 2 * sizes["params"]),
        frames=input_frames(predictor.detector),
        side=predictor.image_size,
        channels=predictor.detector.backbone.channels,
    )


# --- tables ---------------------------------------------------------------------------------------


def main() -> None:
    print(report())


def report(counted: Sequence[Counted] | None = None) -> str:
    """All tables, as they stand in docs/scaling.md."""
    counted = counted or [count(one.config) for one in WORKLOADS]
    pairs = list(zip(WORKLOADS, counted, strict=True))
    tables = [models_table(pairs), rates_table(pairs)]
    tables += [pod_table(*pair) for pair in pairs]
    return "\n\n".join(tables)


Pairs = Sequence[tuple[Workload, Counted]]


def models_table(pairs: Pairs) -> str:
    rows = [
        ("trained parameters", lambda w, c: f"{c.parameters:,}"),
        ("gradient", lambda w, c: _bytes(c.gradient_bytes)),
        ("checkpoint (variables, Adam's two moments)", lambda w, c: _bytes(c.checkpoint_bytes)),
        ("checkpoint written at {disk}", lambda w, c: _checkpoint_seconds(c)),
        ("TFLOP a clip: training step", lambda w, c: f"{w.train_gflop / 1e3:.2f}"),
        ("TFLOP a clip: forward", lambda w, c: f"{w.forward_gflop / 1e3:.2f}"),
        ("read of the records for a clip", lambda w, c: _bytes(w.read_bytes)),
        ("clip to the device, resized by the host", lambda w, c: _bytes(c.clip_bytes())),
        ("clip to the device, to be resized", lambda w, c: _bytes(c.clip_bytes(w.source_size))),
        ("core for a clip, resized by the host", lambda w, c: f"{w.pipeline_ms:.0f} ms"),
        ("core for a clip, to be resized", lambda w, c: f"{w.decoding_ms:.0f} ms"),
        ("clips of an epoch", lambda w, c: f"{w.epoch_clips:,.0f}"),
    ]
    disk = f"{POD.disk_gbytes:g} GB/s"
    return _table(
        ["", *(workload.name for workload, _ in pairs)],
        [[name.format(disk=disk), *(show(*pair) for pair in pairs)] for name, show in rows],
    )


def _checkpoint_seconds(counted: Counted) -> str:
    return f"{counted.checkpoint_bytes / (POD.disk_gbytes * 1e9):.1f} s"


def rates_table(pairs: Pairs) -> str:
    """One device and one host, at rates that are assumed."""
    rows = []
    for workload, counted in pairs:
        for tflops in SUSTAINED_TFLOPS:
            rate = clips_per_second(workload.train_gflop, tflops)
            of_host = rate * POD.devices_a_host
            rows.append([
                workload.name, f"{tflops:g}", f"{rate:.1f}",
                _cores(rate, workload), _cores(of_host, workload),
                f"{_bytes(rate * counted.clip_bytes())}/s",
                f"{_bytes(of_host * workload.read_bytes)}/s",
            ])  # fmt: skip
    return _table(
        ["", "assumed TFLOP/s", "clips/s a device", "cores a device",
         f"cores a host of {POD.devices_a_host}", "to a device", "read by a host"],
        rows,
    )  # fmt: skip


def _cores(rate: float, workload: Workload) -> str:
    """Where the host resizes, and where the device does."""
    cores = [rate * ms / 1e3 for ms in (workload.pipeline_ms, workload.decoding_ms)]
    return " / ".join(f"{one:,.0f}" if one >= 10 else f"{one:.2g}" for one in cores)


def pod_table(workload: Workload, counted: Counted) -> str:
    """One workload at every size of a pod."""
    columns = [_pod_column(workload, counted, devices) for devices in DEVICES]
    return _table(
        [workload.name, *(f"{devices} devices" for devices in DEVICES)],
        [[name, *(column[name] for column in columns)] for name in columns[0]],
    )


def _pod_column(workload: Workload, counted: Counted, devices: int) -> dict[str, str]:
    return {
        **_speed(workload, counted, devices),
        **_schedule(workload, counted.config, devices),
        **_reading(workload, devices),
    }


def _speed(workload: Workload, counted: Counted, devices: int) -> dict[str, str]:
    rate = clips_per_second(workload.train_gflop, POD.tflops)
    step = POD.clips_a_device / rate
    reduce = all_reduce_seconds(counted.gradient_bytes, devices, POD)
    total = devices * POD.clips_a_device / (step + reduce)
    forward = clips_per_second(workload.forward_gflop, POD.tflops)
    return {
        "hosts": f"{devices // POD.devices_a_host}",
        "step without the network": f"{1e3 * step:.0f} ms",
        "all-reduce: sent by a device": _bytes(ring_bytes(counted.gradient_bytes, devices)),
        "all-reduce: time": f"{1e3 * reduce:.1f} ms, {reduce / (step + reduce):.1%} of a step",
        "clips/s": f"{total:,.0f}",
        "cores for the input, all hosts": _cores(total, workload),
        "read, all hosts": f"{_bytes(total * workload.read_bytes)}/s",
        "evaluation, forward alone": _duration(workload.eval_windows / devices / forward),
    }


def _schedule(workload: Workload, config: ConfigDict, devices: int) -> dict[str, str]:
    batch = devices * POD.clips_a_device
    base, rate = config.train.batch_size, config.optimizer.learning_rate
    return {
        "batch": f"{batch}, {batch / base:g} times the preset's",
        "learning rate, scaled linearly": f"{scaled_rate(rate, batch, base):.2g}",
        "steps of an epoch": f"{workload.epoch_clips / batch:,.0f}",
        "updates of the whole training": f"{workload.epochs * workload.epoch_clips / batch:,.0f}",
    }


def _reading(workload: Workload, devices: int) -> dict[str, str]:
    """Of one process a host."""
    hosts = devices // POD.devices_a_host
    files = even_files(workload.train_records, workload.train_files)
    held = [len(list(share_files(files, share))) for share in shares(sum(files), hosts)]
    windows = workload.eval_windows / workload.eval_records
    records = [len(share) for share in shares(workload.eval_records, hosts)]
    return {
        "training records of a host": _span(
            [len(share) for share in shares(workload.train_records, hosts)]
        ),
        f"of {workload.train_files} files, a host reads": _span(held),
        "bytes read / bytes used": f"{read_factor(files, hosts):.2f}",
        "evaluation windows of a host, about": _span([round(windows * count) for count in records]),
    }


def _span(numbers: Sequence[int]) -> str:
    low, high = min(numbers), max(numbers)
    return f"{low:,}" if low == high else f"{low:,} to {high:,}"


def _bytes(number: float) -> str:
    for unit in ("B", "kB", "MB", "GB"):
        if number < 1000:
            break
        number, unit = number / 1000, {"B": "kB", "kB": "MB", "MB": "GB", "GB": "TB"}[unit]
    return f"{number:.3g} {unit}"


def _duration(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 120 else f"{seconds / 60:.0f} min"


def _table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(cells) + " |" for cells in lines)


if __name__ == "__main__":
    run_command(main)
