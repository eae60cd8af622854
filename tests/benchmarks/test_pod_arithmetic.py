"""`benchmarks.pods`: its formulas against counting, and that docs/scaling.md has its tables."""

import numpy as np
import pytest
import tiny_run

from benchmarks import pods
from benchmarks.pods import POD


def test_ring_bytes_are_those_of_a_ring():
    """Played: every member sends one chunk in each of 2 (n - 1) rounds."""
    for members in (1, 2, 8):
        values = np.arange(members * 24.0).reshape(members, members, -1)  # member, chunk, value
        held, sent = values.copy(), 0
        for turn in range(2 * (members - 1)):
            for member in range(members):
                chunk, after = (member - turn) % members, (member + 1) % members
                adds = turn < members - 1
                held[after, chunk] = adds * held[after, chunk] + held[member, chunk]
                sent += held[member, chunk].nbytes if member == 0 else 0
        assert (held == values.sum(axis=0)).all()
        assert pods.ring_bytes(values[0].nbytes, members) == sent


def test_one_device_sends_nothing_and_one_host_nothing_outside():
    assert pods.all_reduce_seconds(1e9, 1, POD) == 0
    inside = pods.all_reduce_seconds(1e9, 8, POD)
    assert inside == pytest.approx(2 * 7 / 8 * 1e9 / (POD.inside_gbytes * 1e9))
    two = pods.all_reduce_seconds(1e9, 16, POD)
    assert two == pytest.approx(inside + 1e9 / (POD.link_gbit / 8 * 1e9))


@pytest.mark.parametrize(("records", "files", "processes"), [(40, 5, 3), (100, 7, 7), (12, 3, 12)])
def test_what_is_read_of_the_files_is_what_a_reader_reads(records, files, processes):
    counts = pods.even_files(records, files)
    owner = np.repeat(np.arange(files), counts)
    assert sum(counts) == records
    read = 0
    for share in pods.shares(records, processes):
        own = owner[share.start : share.stop]
        assert len(list(pods.share_files(counts, share))) == len(set(own))
        for file in set(own):
            last = max(index for index in share if owner[index] == file)
            read += 1 + last - np.flatnonzero(owner == file)[0]
    assert pods.read_factor(counts, processes) == read / records


def test_shares_are_those_of_the_pipeline():
    from input_pipeline.plans import process_share

    assert pods.shares(103, 8) == [process_share(103, index, 8) for index in range(8)]


def test_as_many_files_as_prepare_makes():
    assert pods.by_size(10 * (64 << 20), splits=2) == 8
    assert pods.by_size(100 * (64 << 20), splits=2) == 50


def test_the_page_has_these_tables():
    """Whoever changes a number runs `python -m benchmarks.pods` and puts its tables there."""
    page = (tiny_run.ROOT / "docs" / "scaling.md").read_text()
    for table in pods.report().split("\n\n"):
        assert table in page, table
