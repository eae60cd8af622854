"""From a detector to the table: every window once, padding never, all or nothing."""

import errno
import os
import types

import numpy as np
import pytest

from step_jax.detections import read_detections
from step_jax.errors import InputError
from step_jax.evaluation import DetectionLimits, write_table
from step_jax.inference import Tubelets

CLIP_FRAMES, PROPOSALS, CLASSES = 3, 2, ("walk", "run")
LENGTHS = {"long": 8, "short": 2}


def windows(stride):
    """(video, start, number in the video) of every window."""
    for video, frames in LENGTHS.items():
        starts = list(range(0, max(frames - CLIP_FRAMES, 0) + 1, stride))
        if frames > CLIP_FRAMES and starts[-1] != frames - CLIP_FRAMES:
            starts.append(frames - CLIP_FRAMES)
        for number, start in enumerate(starts):
            yield video, start, number


def batches(stride, *, batch_size):
    """As the input pipeline makes them: the last one is padded with repeated zeros."""
    todo = list(windows(stride))
    while todo:
        now, todo = todo[:batch_size], todo[batch_size:]
        padding = [("long", 0, 0)] * (batch_size - len(now))
        clips = [window_code(video, start) for video, start, _ in now] + [0] * len(padding)
        yield {
            "clips": np.array(clips, np.uint8),
            "video": np.array([video for video, _, _ in now + padding]),
            "start": np.array([start for _, start, _ in now + padding]),
            "num_frames": np.array([LENGTHS[video] for video, _, _ in now + padding]),
            "example_mask": np.arange(batch_size) < len(now),
        }


def window_code(video, start):
    return 1 + start + 20 * list(LENGTHS).index(video)


class FakePredictor(types.SimpleNamespace):
    """Its scores and boxes say which clip they were made from."""

    def __init__(self, *, fails_at=None, second=(0.5, 0.5, 0.9, 0.9)):
        super().__init__(classes=CLASSES, clip_frames=CLIP_FRAMES, num_steps=2, image_size=20)
        self.calls, self.fails_at = 0, fails_at
        self.corners = np.array([[0.0, 0.0, 0.4, 0.4], second], np.float32)

    def prefetch(self, batches):
        return ((batch, batch["clips"]) for batch in batches)

    def __call__(self, clips):
        self.calls += 1
        if self.calls == self.fails_at:
            raise KeyboardInterrupt
        code = clips[:, None, None] / 100
        scores = np.broadcast_to(code, (len(clips), PROPOSALS, len(CLASSES))).astype(np.float32)
        tubes = np.broadcast_to(
            self.corners[None, :, None, None], (len(clips), PROPOSALS, 1, CLIP_FRAMES, 4)
        )
        return [Tubelets(scores, tubes, None), Tubelets(scores / 2, tubes, None)]


def write(path, *, stride=2, batch_size=3, predictor=None, source=None, **limits):
    return write_table(
        path,
        predictor or FakePredictor(),
        source if source is not None else batches(stride, batch_size=batch_size),
        stride=stride,
        limits=DetectionLimits(score_threshold=0.0, **limits),
        provenance={"checkpoint": "7"},
    )


@pytest.mark.parametrize("stride", [1, 2, 4])
def test_every_window_once(tmp_path, stride):
    expected = list(windows(stride))
    assert write(tmp_path / "table.parquet", stride=stride) == len(expected)
    table = read_detections(tmp_path / "table.parquet")
    found = {}
    for row in range(len(table)):
        video, number = table.videos[table.video[row]], table.tubelet[row] // PROPOSALS
        key = (table.step[row], video, number, table.tubelet[row] % PROPOSALS, table.label[row])
        found.setdefault(key, []).append((table.frame[row], round(float(table.score[row]), 4)))
    assert len(found) == 2 * len(expected) * PROPOSALS * len(CLASSES)
    for (step, video, number, _, _), rows in found.items():
        start = next(s for v, s, n in expected if (v, n) == (video, number))
        score = round(window_code(video, start) / 100 / step, 4)
        frames = range(start, min(start + CLIP_FRAMES, LENGTHS[video]))
        assert sorted(rows) == [(frame, score) for frame in frames]


@pytest.mark.parametrize("batch_size", [1, 2, 5, 100])
def test_any_batch_size_gives_the_same_table(tmp_path, batch_size):
    write(tmp_path / "three.parquet", batch_size=3)
    write(tmp_path / "other.parquet", batch_size=batch_size)
    expected = read_detections(tmp_path / "three.parquet")
    table = read_detections(tmp_path / "other.parquet")
    order, expected_order = (
        np.lexsort((one.frame, one.label, one.tubelet, one.step, one.video))
        for one in (table, expected)
    )
    for name in ("video", "frame", "step", "tubelet", "label", "score", "boxes"):
        np.testing.assert_array_equal(
            getattr(table, name)[order], getattr(expected, name)[expected_order]
        )


def test_header(tmp_path):
    write(tmp_path / "table.parquet")
    header = read_detections(tmp_path / "table.parquet").header
    assert header.classes == CLASSES
    assert (header.clip_frames, header.stride, header.num_steps) == (CLIP_FRAMES, 2, 2)
    assert header.provenance == {"checkpoint": "7"}


def test_middle_frames_alone(tmp_path):
    """Frame 1 of 3; the short video ends with it."""
    write(tmp_path / "table.parquet", stride=4, frames="middle")
    table = read_detections(tmp_path / "table.parquet")
    assert table.header.frames == "middle"
    names = np.array(table.videos)[table.video]
    expected = {(video, start + 1) for video, start, _ in windows(4)}
    assert set(zip(names, table.frame, strict=True)) == expected
    assert len(table) == 2 * len(expected) * PROPOSALS * len(CLASSES)


def test_nms_as_the_released_models(tmp_path):
    """In pixels of 20 x 20 the two boxes, of 9 x 9 pixels with their borders, share one of 161."""
    touching = {"inclusive_nms": True, "nms_threshold": 1 / 161}
    for name, limits, tubelets in [
        ("one", touching, 1),
        ("both", touching | {"nms_threshold": 1.01 / 161}, 2),
        ("shares", {"nms_threshold": 1 / 161}, 2),
    ]:
        predictor = FakePredictor(second=(0.4, 0.4, 0.8, 0.8))
        write(tmp_path / name, predictor=predictor, **limits)
        assert len(set(read_detections(tmp_path / name).tubelet % PROPOSALS)) == tubelets


def test_unknown_frames():
    with pytest.raises(InputError, match=r"eval\.frames 'centre': expected one of all, middle"):
        DetectionLimits(frames="centre")


def test_the_device_works_while_the_host_reads(tmp_path):
    """A batch's results are looked at only after the next one was given to the device."""
    predictor, calls = FakePredictor(), []

    def source():
        for batch in batches(1, batch_size=2):
            calls.append(predictor.calls)
            yield batch

    write(tmp_path / "table.parquet", predictor=predictor, source=source(), stride=1)
    assert calls == [0, 1, 2, 3]


def test_interrupted_there_is_no_table(tmp_path):
    (tmp_path / "table.parquet").write_text("the one before")
    with pytest.raises(KeyboardInterrupt):
        write(tmp_path / "table.parquet", predictor=FakePredictor(fails_at=2))
    assert os.listdir(tmp_path) == ["table.parquet"]
    assert (tmp_path / "table.parquet").read_text() == "the one before"


def test_a_full_disk(tmp_path, monkeypatch):
    def no_space(*arguments, **options):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("pyarrow.parquet.ParquetWriter.write_table", no_space)
    with pytest.raises(InputError, match=r"table.parquet: cannot be written .No space left.*room"):
        write(tmp_path / "table.parquet")
    assert os.listdir(tmp_path) == []


def test_a_folder_that_is_missing(tmp_path):
    with pytest.raises(InputError, match=r"table.parquet: cannot be written"):
        write(tmp_path / "missing" / "table.parquet")
