"""Damaged records: an error that names them, or blanks in the place of their windows."""

import itertools
import re
import shutil
import types

import numpy as np
import pytest
import tensorflow as tf

from input_pipeline import careful, clips, pipeline, records, salvage
from input_pipeline.augment import Augment
from input_pipeline.damage import Damage
from input_pipeline.examination import Examination
from input_pipeline.identity import Identity
from input_pipeline.keyframes import keyframe_windows, training_labels
from input_pipeline.windows import WindowMaker
from step_jax.annotations.ava_folder import open_ava_folder
from step_jax.errors import InputError
from step_jax.modality import Modality
from tests import ava_records, record_damage

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
    size = len(batches[0]["clips"])
    blanks = np.zeros((len(batches), size), bool)
    blanks.flat[: len(blank)] = blank
    for batch, whole, here in zip(batches, expected, blanks, strict=True):
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
    rest, _ = train(copy, max_damaged=10, start_step=4)  # as a run that was interrupted there
    assert_blanks(rest, trained[4:], blank[5 * 4 :])


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


@pytest.mark.parametrize("read", [pytest.param(train, marks=pytest.mark.slow), evaluate])
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


@pytest.fixture
def damage(records_dir):
    """Makes an account of a number of damaged records, each with its number's picture damaged."""
    index, shards = (
        records.load_index(records_dir, "train"),
        records.shard_paths(records_dir, "train"),
    )
    told = []

    def make(max_damaged):
        examination = types.SimpleNamespace(find=lambda record, _: f"picture {record} is damaged")
        return told, Damage(
            index=index, shards=shards, examination=examination, max_damaged=max_damaged,
            tell=told.append,
        )  # fmt: skip

    return make


def test_the_budget_is_of_records(damage):
    told, account = damage(2)
    for record, start in [(6, 20), (6, 21), (9, 3), (6, 20)]:
        account.skip(record, start, b"", error="")
    assert [(each.record, each.start) for each in account.skipped] == [
        (6, 20), (6, 21), (9, 3), (6, 20),
    ]  # fmt: skip
    assert account.skipped[2].reason == "picture 9 is damaged"
    assert len(told) == 2
    assert "00001-of-00003: record 2 of 4" in told[0]
    assert told[1].endswith("picture 9 is damaged; damaged record 2 of at most 2")
    with pytest.raises(InputError, match=r"is damaged record 3, data.max_damaged is 2: .*allow mo"):
        account.skip(0, 0, b"", error="")
    _, account = damage(0)
    with pytest.raises(InputError, match=r"picture 0 is damaged; copy .*, or set data.max_damaged"):
        account.skip(0, 0, b"", error="")
    with pytest.raises(InputError, match="max_damaged is -1; expected 0 or more"):
        damage(-1)


def test_a_file_with_more_records_counts_as_one(copy, evaluated):
    record_damage.repeat_last(record_damage.shard(copy, 2), None)
    told = []
    batches, skipped = evaluate(copy, max_damaged=1, tell=told.append)
    assert_blanks(batches, evaluated, [])
    assert not skipped
    assert len(told) == 1
    assert "00002-of-00003: the file holds 5 records, expected 4; damaged record 1" in told[0]


def test_a_missing_file_is_an_error_at_once(copy):
    record_damage.remove(record_damage.shard(copy, 1), None)
    for read in (train, evaluate):
        with pytest.raises(InputError, match="00001-of-00003: this record file, of 4 records, is"):
            read(copy)


@pytest.mark.slow
def test_the_share_of_a_process(copy, evaluated):
    """It meets the damage of its own records alone."""
    record_damage.flip_data(record_damage.shard(copy, 0), 0)
    shares = [evaluate(copy, process_index=i, process_count=2, max_damaged=1) for i in (0, 1)]
    assert shares[0][1]
    assert not shares[1][1]
    windows = [
        (str(video), int(start))
        for batch in [batch for batches, _ in shares for batch in batches]
        for video, start, real in zip(
            batch["video"], batch["start"], batch["example_mask"], strict=True
        )
        if real
    ]
    whole = sum(batch["example_mask"].sum() for batch in evaluated)
    assert len(set(windows)) == len(windows) == whole - len(shares[0][1])


class Interrupted:
    """A data set whose reading fails, in the manner of a file system that does not answer."""

    def __init__(self, batches, error):
        self.batches, self.error = batches, error

    def as_numpy_iterator(self):
        yield from self.batches
        raise self.error(None, None, "the server does not answer")


def test_a_read_error_is_no_damage():
    batch = {"boxes": np.zeros(2)}
    dataset = Interrupted([batch], tf.errors.UnavailableError)
    found = careful.iterate(dataset, pytest.fail, None, where="records")
    assert next(found)["example_mask"].all()
    message = r"records: reading failed \(UnavailableError: the server .*\); this is no damage"
    with pytest.raises(InputError, match=message):
        next(found)


def test_a_read_error_while_reading_with_care(copy, monkeypatch):
    record_damage.flip_data(record_damage.shard(copy, 0), 0)

    def fail(path, *, skip):
        raise tf.errors.AbortedError(None, None, "stale file handle")

    monkeypatch.setattr(salvage, "scan_file", fail)
    with pytest.raises(InputError, match=r"reading failed \(AbortedError: stale file handle\)"):
        evaluate(copy, max_damaged=3)


# --- AVA's records, and flow


def test_a_keyframes_picture(tmp_path):
    """Neighbouring keyframes share pictures: those that need a damaged one are blank."""
    folder = ava_records.write_records(tmp_path / "records")
    ava_records.write_annotations(tmp_path / "csv")
    labels = training_labels(open_ava_folder(tmp_path / "csv", "2.2"), "train")
    options = {
        "split": "train", "keyframes": labels, "batch_size": 4, "seed": 1, "num_threads": 2,
        "clip_frames": 12, "input_frames": 36, "image_size": 24, "max_tubes": 3,
        "max_damaged": 2,
    }  # fmt: skip
    whole = list(itertools.islice(pipeline.train_batches(folder, **options), 9))
    cut_image = record_damage.change_image(lambda jpeg: jpeg[: len(jpeg) // 2], place=30)
    cut_image(folder / "clip_records" / "a.tfrecord", 1)
    record_damage.flip_data(folder / "clip_records" / "b.tfrecord", 1)  # the sixth of all records
    batches = pipeline.train_batches(folder, **options)
    found = list(itertools.islice(batches, 9))
    assert {each.record for each in batches.skipped} == {1, 5}

    index = records.load_index(folder, "train")
    plan = keyframe_windows(
        labels, index, records.load_info(folder), clip_frames=12, where=folder
    ).plan
    owner = np.repeat(np.arange(index.num_records), plan.count)
    lost = set()
    for record, start in zip(owner.tolist(), plan.starts.tolist(), strict=True):
        frames = range(start - 12, start + 24)
        if record == 5 or (record == 1 and index.first_frame[1] + 30 in frames):
            lost.add(("ab"[record // 4], start + 6))
    assert len(lost) >= 4
    for batch, expected in zip(found, whole, strict=True):
        keyframes = [ava_records.identify(clip[18]) for clip in expected["clips"]]
        real = np.array([keyframe not in lost for keyframe in keyframes])
        np.testing.assert_array_equal(batch["example_mask"], real)
        np.testing.assert_array_equal(
            batch["clips"], expected["clips"] * real[:, None, None, None, None]
        )
        np.testing.assert_array_equal(batch["labels"], expected["labels"] * real[:, None, None])


@pytest.mark.slow
def test_a_picture_of_flow(flow_records_dir, tmp_path):
    """It is missed where flow is read, and not where frames are."""
    copy = shutil.copytree(flow_records_dir, tmp_path / "copy")
    change = record_damage.change_image(lambda jpeg: jpeg[:100], kind="flow")
    change(record_damage.shard(copy, 0), 0)
    for modality, flow_frames in (("rgb", 5), ("flow", 1), ("early", 2)):
        options = {"modality": modality, "flow_frames": flow_frames}
        whole, _ = evaluate(flow_records_dir, **options)
        batches, skipped = evaluate(copy, max_damaged=1, **options)
        index = records.load_index(copy, "train")
        bad, last = index.first_frame[0] + 5, index.num_frames[index.record_video[0]] - 1
        starts = []
        for start in range(index.core_start[0], min(index.core_end[0], last - 4)):
            frames = np.clip(np.arange(start - 4, start + 10), 0, last)
            reads = np.minimum(frames[:, None] + np.arange(flow_frames), last)
            starts += [start] if modality != "rgb" and bad in reads else []
        assert [each.start for each in skipped] == starts
        lost = {(each.video, each.start) for each in skipped}
        for batch, expected in zip(batches, whole, strict=True):
            named = zip(expected["video"].tolist(), expected["start"].tolist(), strict=True)
            real = expected["example_mask"] & [name not in lost for name in named]
            np.testing.assert_array_equal(batch["example_mask"], real)
            np.testing.assert_array_equal(batch["clips"][real], expected["clips"][real])
