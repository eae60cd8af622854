"""Detectors' tables on AVA's keyframes: frames become seconds, classes action ids."""

import dataclasses
import json
import sys

import numpy as np
import pytest

from step_jax.annotations.ava_csv import AvaDetections, write_detections_csv
from step_jax.annotations.ava_labels import LabelMap
from step_jax.ava_table import read_ava_detections
from step_jax.clip_detections import clip_rows
from step_jax.detected_keyframes import (
    KeyframeLimits,
    keyframe_detections,
    read_tubelet_keyframes,
)
from step_jax.detections import DetectionsWriter, read_detections
from step_jax.errors import InputError
from step_jax.fusion import fuse
from step_jax.metrics.ava import __main__ as command
from step_jax.tubelet_writer import TubeletWriter

LABEL_MAP = LabelMap(ids=(3, 12, 79), names=("a", "b", "c"), kinds=("pose",) * 3)
MAP_TEXT = 'item { name: "a" id: 3 } item { name: "b" id: 12 } item { name: "c" id: 79 }'
K, M, SIDE = 12, 5, 64
SECONDS = {"v": [902, 903, 905, 1798], "u": [1000]}  # not in alphabetical order
HEADER = {"classes": LABEL_MAP.names, "clip_frames": K, "stride": 12, "num_steps": 2}


def random_windows(seed):
    """What a detector says of each window: scores [1, M, 3], tubes [1, M, 1, K, 4]."""
    rng = np.random.default_rng(seed)
    for video, seconds in SECONDS.items():
        for second in seconds:
            corner = rng.uniform(-0.1, 0.5, (1, M, 1, K, 2))
            tubes = np.concatenate([corner, corner + rng.uniform(0, 0.6, corner.shape)], axis=-1)
            scores = rng.choice([0.005, 0.2, 0.5, 0.9], (1, M, 3))
            yield video, 12 * (second - 900) - 6, np.float32(scores), np.float32(tubes)


def write_both(folder, seed, *, name=""):
    """The tables of tubelets and of detections of one detector, step 2 alone."""
    limits = {"score_threshold": 0.01, "per_class_top": M, "nms_threshold": 0.4, "top": 8}
    provenance = {"image_size": str(SIDE)}
    with (
        DetectionsWriter(folder / f"{name}d.parquet", frames="middle", **HEADER) as detections,
        TubeletWriter(
            folder / f"{name}t.parquet", num_boxes=1, steps=[2], provenance=provenance, **HEADER
        ) as tubelets,
    ):
        for video, start, scores, tubes in random_windows(seed):
            window = {"videos": [video], "starts": np.array([start]), "num_frames": [10800]}
            detections.append(
                clip_rows(
                    scores,
                    tubes,
                    **window,
                    stride=12,
                    step=2,
                    frames="middle",
                    inclusive_side=SIDE,
                    **limits,
                )
            )
            tubelets.append(
                {
                    "video": [video] * M,
                    "start": np.full(M, start),
                    "step": np.full(M, 2),
                    "proposal": np.arange(M),
                    "scores": scores[0],
                    "tubes": tubes[0],
                }
            )
    return folder / f"{name}d.parquet", folder / f"{name}t.parquet"


def as_set(found):
    return {
        (found.videos[v], int(t), int(a), float(s), *map(float, box))
        for v, t, a, s, box in zip(
            found.video, found.timestamp, found.action_id, found.score, found.boxes, strict=True
        )
    }


def test_detections_table(tmp_path):
    path, _ = write_both(tmp_path, 0)
    table = read_detections(path, step=2)
    found = read_ava_detections([path], LABEL_MAP)
    assert found.videos == ("u", "v")
    expected = {
        (table.videos[v], 900 + f // 12, LABEL_MAP.ids[c], float(s), *map(float, box))
        for v, f, c, s, box in zip(
            table.video, table.frame, table.label, table.score, table.boxes, strict=True
        )
    }
    assert as_set(found) == expected
    assert {(name, second) for name, second, *_ in expected} == {
        (video, second) for video, seconds in SECONDS.items() for second in seconds
    }


@pytest.mark.parametrize("seed", range(3))
def test_tubelets_give_the_same_detections(tmp_path, seed):
    """With the same limits, and in the same order within a keyframe, which decides ties."""
    detections, tubelets = write_both(tmp_path, seed)
    limits = KeyframeLimits(top=8)
    ours, theirs = (
        read_ava_detections([path], LABEL_MAP, limits=limits) for path in (tubelets, detections)
    )
    for one in (ours, theirs):
        assert len(one) > 10
    key = [np.argsort(1e5 * np.array(o.videos == ("u", "v")) * o.video + o.timestamp, kind="stable")
           for o in (ours, theirs)]  # fmt: skip
    for name in ("video", "timestamp", "action_id", "score", "boxes"):
        a, b = (getattr(o, name)[k] for o, k in zip((ours, theirs), key, strict=True))
        np.testing.assert_array_equal(a, b, err_msg=name)


def test_limits_count(tmp_path):
    _, path = write_both(tmp_path, 0)
    everything = read_tubelet_keyframes(path, LABEL_MAP, limits=KeyframeLimits(nms=1.1))
    assert len(everything) == sum((s > 0.01).sum() for _, _, s, _ in random_windows(0))
    assert len(read_tubelet_keyframes(path, LABEL_MAP)) < len(everything)
    few = read_tubelet_keyframes(path, LABEL_MAP, limits=KeyframeLimits(top=2))
    assert len(few) == 2 * sum(map(len, SECONDS.values()))
    other_side = read_tubelet_keyframes(path, LABEL_MAP, limits=KeyframeLimits(image_size=8))
    assert as_set(other_side) != as_set(read_tubelet_keyframes(path, LABEL_MAP))


def truth(folder):
    """Some detections of another detector as ground truth, so that a part is found."""
    _, path = write_both(folder, 0, name="truth_")
    found = read_tubelet_keyframes(path, LABEL_MAP)
    box = np.clip(found.boxes, 0, 1)
    keep = found.score > 0.5
    columns = {name: getattr(found, name)[keep] for name in ("video", "timestamp", "action_id")}
    write_detections_csv(
        folder / "gt.csv",
        AvaDetections(found.videos, **columns, boxes=box[keep], score=np.arange(keep.sum())),
    )
    (folder / "map.pbtxt").write_text(MAP_TEXT)


def metric(folder, monkeypatch, table, *more):
    arguments = {"ground_truth": "gt.csv", "label_map": "map.pbtxt", "output": "out.json"}
    flags = [text for k, name in arguments.items() for text in (f"--{k}", str(folder / name))]
    monkeypatch.setattr(sys, "argv", ["ava", *flags, "--detections", str(table), *more])
    command.main()
    return json.loads((folder / "out.json").read_text())


@pytest.mark.parametrize("method", ["mean", "union"])
def test_command_on_tables_and_fused_tables(tmp_path, monkeypatch, capsys, method):
    """The number of a detector's tubelets is that of its detections; fusing it with a copy of
    itself changes nothing, with another one something."""
    truth(tmp_path)
    detections, tubelets = write_both(tmp_path, 0)
    _, copy = write_both(tmp_path, 0, name="copy_")
    _, other = write_both(tmp_path, 5, name="other_")
    alone = metric(tmp_path, monkeypatch, tubelets, "--top=8")
    assert alone == metric(tmp_path, monkeypatch, detections)
    assert 0.5 < alone["mAP"] <= 1
    fuse([tubelets, copy], tmp_path / "same.parquet", method=method)
    fuse([tubelets, other], tmp_path / "fused.parquet", method=method)
    same = metric(tmp_path, monkeypatch, tmp_path / "same.parquet", "--top=8")
    fused = metric(tmp_path, monkeypatch, tmp_path / "fused.parquet", "--top=8", "--step=2")
    assert same["mAP"] == pytest.approx(alone["mAP"], abs=0.1 if method == "union" else 1e-9)
    assert fused["mAP"] != alone["mAP"]
    capsys.readouterr()


def test_what_is_no_table_of_keyframes(tmp_path):
    path, tubelets = write_both(tmp_path, 0)
    table = read_detections(path)
    shifted = dataclasses.replace(table, frame=table.frame + 6)
    with pytest.raises(InputError, match=r"T: frame 30 of video 'v' is no keyframe.*of 12"):
        keyframe_detections(shifted, LABEL_MAP, where="T")
    everything = dataclasses.replace(table, header=dataclasses.replace(table.header, frames="all"))
    with pytest.raises(InputError, match=r"T: holds all frames.*eval.frames = 'middle'"):
        keyframe_detections(everything, LABEL_MAP, where="T")
    swapped = dataclasses.replace(LABEL_MAP, names=("a", "c", "b"))
    with pytest.raises(InputError, match=r"class 1 is 'b', in the label map 'c'"):
        read_ava_detections([path], swapped)
    more = LabelMap(ids=(3, 12, 79, 80), names=("a", "b", "c", "d"), kinds=("pose",) * 4)
    with pytest.raises(InputError, match=r"3 classes, the label map 4"):
        read_ava_detections([tubelets], more)
    with pytest.raises(InputError, match=r"reading it needs the label map"):
        read_ava_detections([path])
    with pytest.raises(InputError, match=r"step 1: the tubelet table has steps \[2\]"):
        read_ava_detections([tubelets], LABEL_MAP, step=1)
    with pytest.raises(InputError, match=r"top is 0; expected 1 or more"):
        KeyframeLimits(top=0)
