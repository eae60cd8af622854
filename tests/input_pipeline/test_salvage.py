"""Damaged record files, read as far as they can be, and the checksum that this needs."""

import functools
import os
import re
import shutil

import numpy as np
import pytest
import tensorflow as tf

from input_pipeline import records
from input_pipeline.crc32c import crc32c, masked_crc32c
from input_pipeline.reading import read_records
from input_pipeline.salvage import Salvage, scan_file
from tests import record_damage

PER_FILE = 4  # records; 12 in all
DAMAGE = [
    (record_damage.flip_data, [1], "its bytes and their checksum differ"),
    (record_damage.flip_length, [1, 2, 3], "the length of the file's record 1, at byte .* damaged"),
    (record_damage.cut_off, [1, 2, 3], "the file is cut off: it ends at byte .*, in its record 1"),
    (record_damage.drop_from, [1, 2, 3], "the file ends after 1 records"),
    (record_damage.remove, [0, 1, 2, 3], "the file is missing"),
]


@functools.cache
def byte_remainder(byte: int) -> int:
    for _ in range(8):
        byte = byte >> 1 ^ (0x82F63B78 if byte & 1 else 0)
    return byte


def slow_crc32c(data: bytes) -> int:
    register = 0xFFFFFFFF
    for byte in data:
        register = byte_remainder((register ^ byte) & 255) ^ register >> 8
    return register ^ 0xFFFFFFFF


def test_checksum():
    assert crc32c(b"123456789") == 0xE3069283  # the check value of every catalogue of CRCs
    random = np.random.default_rng(0)
    for size in (0, 1, 3, 4, 5, 8, 511, 512, 513, 4099, 70_001):
        data = random.bytes(size)
        assert crc32c(data) == slow_crc32c(data)


def test_checksum_is_that_of_the_files(tmp_path):
    path = tmp_path / "one.tfrecord"
    with tf.io.TFRecordWriter(os.fspath(path)) as writer:
        writer.write(b"some data")
    assert path.read_bytes()[-4:] == masked_crc32c(b"some data").to_bytes(4, "little")


@pytest.fixture
def copy(records_dir, tmp_path):
    return shutil.copytree(records_dir, tmp_path / "copy")


def read(folder, share=range(3 * PER_FILE), **options):
    shards = records.shard_paths(folder, "train", allow_missing=True)
    return list(read_records(shards, share, **options).as_numpy_iterator())


@pytest.mark.parametrize(("damage", "lost", "reason"), DAMAGE)
def test_damage_is_an_error_or_records_without_bytes(copy, damage, lost, reason):
    path = record_damage.shard(copy, 1)
    whole = read(copy)
    assert read(copy, salvage=Salvage()) == whole
    damage(path, 1)
    with pytest.raises(tf.errors.OpError):
        read(copy)
    salvage = Salvage()
    expected = [(record, b"" if record - PER_FILE in lost else data) for record, data in whole]
    assert read(copy, salvage=salvage) == expected
    assert sorted(salvage.reasons) == [PER_FILE + place for place in lost]
    assert all(re.fullmatch(f".*{reason}.*", told) for told in salvage.reasons.values())
    assert not salvage.surplus


def test_a_process_that_reads_the_part_after_the_damage(copy):
    whole = dict(read(copy, range(6, 12)))
    record_damage.flip_data(record_damage.shard(copy, 1), 1)
    assert dict(read(copy, range(6, 12), salvage=Salvage())) == whole
    record_damage.flip_byte(record_damage.shard(copy, 1), 1)  # of the first length
    salvage = Salvage()
    del whole[6]
    assert dict(read(copy, range(7, 12), salvage=salvage)) == whole | {7: b""}
    assert "the file's record 0" in salvage.reasons[7]


def test_a_file_with_more_records(copy):
    whole = read(copy)
    record_damage.repeat_last(record_damage.shard(copy, 1), None)
    with pytest.raises(tf.errors.InvalidArgumentError, match="another number of records"):
        read(copy)
    salvage = Salvage()
    assert read(copy, salvage=salvage) == whole
    assert salvage.surplus == {os.fspath(record_damage.shard(copy, 1)): 1}
    assert read(copy, range(7)) == [(number, data) for number, data in whole if number < 7]


def test_every_cut_is_noticed(copy):
    path = record_damage.shard(copy, 0)
    whole, places = path.read_bytes(), record_damage.offsets(path)
    for cut in (0, 1, 11, 12, places[1] - 1, places[1], places[1] + 11, len(whole) - 1):
        path.write_bytes(whole[:cut])
        intact = sum(end <= cut for end in places[1:])
        scan = scan_file(os.fspath(path))
        assert [len(data) for data in scan] == list(np.diff(places)[:intact] - 16)
