"""Damaged records: an error that names them, or blanks in the place of their windows."""

import itertools
import re
import shutil

import numpy as np
import pytest
import tensorflow as tf

from input_pipeline import clips, pipeline, records
from input_pipeline.augment import Augment
from input_pipeline.examination import Examination
from input_pipeline.identity import Identity
from input_pipeline.windows import WindowMaker
from step_jax.errors import InputError
from step_jax.modality import Modality
from tests import record_damage

WINDOWS = {"clip_frames": 6, "input_frames": 14, "image_size": 32, "max_tubes": 3}
EVERYTHING = Augment(flip=0.5, crop=0.7, photometric=0.7, erase=0.5)
PER_FILE = 4  # records; 12 in all
BATCHES = 6  # of five windows: two epochs and a half


def train(folder, *, start_step=0, tell=print, **options):
    batches = pipeline.train_batches(
        folder, split="train", start_step=start_step, batch_size=5, seed=1, num_threads=2,
        augment=EVERYTHING, tell=tell, **WINDOWS, **options,
    )  # fmt: skip
    return list(itertools.islice(batches, BATCHES - start_step)), batches.skipped


def evaluate(folder, *, tell=print, **options):
    batches = pipeline.eval_batches(
        folder, split="train", batch_size=7, stride=1, num_threads=2, tell=tell, **WINDOWS,
        **options,
    )  # fmt: skip
    return list(batches), batches.skipped


@pytest.fixture
def copy(records_dir, tmp_path):
    return shutil.copytree(records_dir, tmp_path / "copy")


# --- one record

RECORD_DAMAGE = [
    (record_damage.cut_image, r"the JPEG of frame \d+ does not decode \(\d+ bytes\)"),
    (record_damage.garbage_image, r"the JPEG of frame \d+ does not decode \(300 bytes\)"),
    (record_damage.odd_image, r"frame \d+ is 80 x 60, others 64 x 48"),
    (record_damage.drop_feature, r"another record .*its tubes have features of different lengths"),
    (record_damage.no_example, r"a record of another version, or none at all"),
    (record_damage.drop_frame, r"another record than the index says \(frames is 10, expected 11"),
    (record_damage.rename_video, r"another record .*video is 'z', expected 'a'"),
    (record_damage.add_label, r"another record .*its tubes have features of different lengths"),
]


@pytest.fixture(scope="module")
def look(records_dir):
    """Makes all windows of the record 0, of its bytes; and says what is wrong with it."""
    info, index = records.load_info(records_dir), records.load_index(records_dir, "train")
    identity = Identity(index, info)
    maker = WindowMaker(
        window=clips.WindowShape(6, 14), modality=Modality("rgb", 5), image_size=32, max_tubes=3,
        min_target_frames=6, augment=Augment(), classes=info.classes, identity=identity,
    )  # fmt: skip
    last = index.num_frames[index.record_video[0]] - 6
    starts = np.arange(index.core_start[0], min(index.core_end[0], last + 1), dtype=np.int32)

    @tf.function
    def decode(serialized):
        return maker.decode_record(tf.constant(0, tf.int64), serialized, tf.constant(starts))

    return decode, lambda data: Examination(info, identity).find(0, data)


@pytest.mark.parametrize(("damage", "reason"), RECORD_DAMAGE)
def test_damage_of_a_record(copy, look, damage, reason):
    decode, find = look
    path = record_damage.shard(copy, 0)
    whole = record_damage.contents(path)[0]
    damage(path, 0)
    damaged = record_damage.contents(path)[0]
    decode(whole)
    with pytest.raises(tf.errors.InvalidArgumentError):
        decode(damaged)
    assert find(whole) == ""
    assert re.match(reason, find(damaged))


# --- batches


@pytest.fixture(scope="module")
def trained(records_dir):
    return train(records_dir)[0]


@pytest.fixture(scope="module")
def evaluated(records_dir):
    return evaluate(records_dir)[0]


def damage_much(folder) -> set[int]:
    """Every kind of damage at once; returns the records that are lost as a whole."""
    first, second, third = (record_damage.shard(folder, number) for number in range(3))
    record_damage.drop_frame(first, 3)
    record_damage.odd_image(first, 2)
    record_damage.cut_image(first, 1)
    record_damage.flip_data(first, 0)
    record_damage.cut_off(second, 2)
    record_damage.remove(third, 0)
    return {0, 3, 6, 7, 8, 9, 10, 11}


def blank_windows(folder, windows, lost: set[int]) -> list[bool]:
    """Which of (record, start) need what is not there."""
    index = records.load_index(folder, "train")
    bad = {record: index.first_frame[record] + 5 for record in (1, 2)}
    needed = []
    for record, start in windows:
        last = index.num_frames[index.record_video[record]] - 1
        frames = np.clip(np.arange(start - 4, start + 10), 0, last)
        needed.append(record in lost or bad.get(record) in frames)
    return needed


def assert_blanks(batches, expected, blank):
    """The batches are the expected ones, with zeros where `blank` [windows] says so."""
    assert len(batches) == len(expected)
    for number, (batch, whole) in enumerate(zip(batches, expected, strict=True)):
        size = len(batch["clips"])
        here = np.pad(blank, (0, size))[number * size : (number + 1) * size].astype(bool)
        np.testing.assert_array_equal(batch["example_mask"], whole["example_mask"] & ~here)
        assert batch.keys() == whole.keys()
        for name in batch.keys() - {"example_mask"}:
            is_data = name in ("clips", "boxes", "box_mask", "labels", "tube_mask")
            value = np.where(batch["example_mask"].reshape(-1, *[1] * (whole[name].ndim - 1)),
                             whole[name], 0) if is_data else whole[name]  # fmt: skip
            np.testing.assert_array_equal(batch[name], value, err_msg=name)


def drawn_windows(folder):
    """(record, start) of the training windows, without reading what they are made of."""
    index = records.load_index(folder, "train")
    eligible = clips.window_table(index, clips.WindowShape(6, 14), min_target_frames=6).valid
    plan = pipeline.EpochPlan(index, eligible, range(index.num_records), 1)
    drawn = pipeline._drawn_records(
        plan, records.shard_paths(folder, "train"), position=0, shuffle_buffer=plan.num_drawn
    )
    return [(int(record), int(start)) for record, _, start, _ in drawn.take(5 * BATCHES)]


def test_training_with_blanks(records_dir, copy, trained):
    assert all(batch["example_mask"].all() for batch in trained)
    lost, told = damage_much(copy), []
    batches, skipped = train(copy, max_damaged=10, tell=told.append)
    windows = drawn_windows(records_dir)
    blank = blank_windows(copy, windows, lost)
    assert 0 < sum(blank) < len(blank)
    assert_blanks(batches, trained, blank)
    met = [window for window, is_blank in zip(windows, blank, strict=True) if is_blank]
    assert [(each.record, each.start) for each in skipped] == met
    assert len(told) == len({record for record, _ in met})
    assert told[0].endswith("; damaged record 1 of at most 10")
    for step in (1, 4):  # as a run that was interrupted there
        rest, _ = train(copy, max_damaged=10, start_step=step)
        assert_blanks(rest, trained[step:], blank[5 * step :])


def test_evaluation_with_blanks(copy, evaluated):
    lost, told = damage_much(copy), []
    batches, skipped = evaluate(copy, max_damaged=10, tell=told.append)
    index = records.load_index(copy, "train")
    owner = {}
    for record in range(index.num_records):
        video = str(index.video_ids[index.record_video[record]])
        owner |= {(video, start): record
                  for start in range(index.core_start[record], index.core_end[record])}  # fmt: skip
    windows = [
        (str(video), int(start))
        for batch in evaluated
        for video, start in zip(batch["video"], batch["start"], strict=True)
    ]
    windows = windows[: sum(batch["example_mask"].sum() for batch in evaluated)]
    blank = blank_windows(copy, [(owner[window], window[1]) for window in windows], lost)
    assert 0 < sum(blank) < len(blank)
    assert_blanks(batches, evaluated, blank)
    expected = [window for window, is_blank in zip(windows, blank, strict=True) if is_blank]
    assert [(each.video, each.start) for each in skipped] == expected
    assert len(told) == len({each.record for each in skipped})


@pytest.mark.parametrize("read", [train, evaluate])
def test_an_error_names_the_file_and_the_record(copy, read):
    record_damage.cut_image(record_damage.shard(copy, 1), 2)
    index = records.load_index(copy, "train")
    video = index.video_ids[index.record_video[PER_FILE + 2]]
    frame = index.first_frame[PER_FILE + 2] + 5
    message = (
        rf"train.tfrecord-00001-of-00003: record 2 of 4, counted from 0 \(video '{video}', frames "
        rf"\d+ to \d+\): the JPEG of frame {frame} does not decode \(\d+ bytes\); copy the file "
        r"again, or build the records again, or set data.max_damaged"
    )
    with pytest.raises(InputError, match=message):
        read(copy)
