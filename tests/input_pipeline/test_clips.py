import numpy as np
import pytest

from input_pipeline import clips, plans
from input_pipeline.clips import WindowShape
from input_pipeline.records import RecordsIndex
from input_pipeline.segments import segments
from step_jax.errors import InputError

# (video, tube, start, stop): video 0 has two tubes, the first with a gap; video 1 is short
RUNS = [(0, 0, 3, 9), (0, 0, 12, 20), (0, 1, 8, 10), (1, 0, 0, 3)]
LENGTHS = [25, 4]


def make_index(runs=RUNS, lengths=LENGTHS, core_frames=5) -> RecordsIndex:
    cut = [
        (video, segment)
        for video, length in enumerate(lengths)
        for segment in segments(length, core_frames=core_frames, halo_before=9, halo_after=9)
    ]
    lengths = np.array(lengths, np.int32)
    return RecordsIndex(
        video_ids=np.array([f"v{i}" for i in range(len(lengths))]),
        num_frames=lengths,
        width=lengths,
        height=lengths,
        record_video=np.array([video for video, _ in cut], np.int32),
        first_frame=np.array([s.start for _, s in cut], np.int32),
        stop_frame=np.array([s.stop for _, s in cut], np.int32),
        core_start=np.array([s.core_start for _, s in cut], np.int32),
        core_end=np.array([s.core_end for _, s in cut], np.int32),
        runs=np.array(runs, np.int32).reshape(-1, 4),
    )


def slow_table(index, window, min_target_frames):
    """The table by looking at every frame of every window."""
    has_box = {
        (video, tube, frame)
        for video, tube, start, stop in index.runs
        for frame in range(start, stop)
    }
    tubes = {(video, tube) for video, tube, _ in has_box}
    rows = []
    for video, length in enumerate(index.num_frames):
        for start in range(length):
            target = [f for f in range(start, start + window.clip_frames) if f < length]
            first = start - window.before
            seen = range(first, first + window.input_frames)
            count = {t: sum((*t, f) in has_box for f in target) for t in tubes if t[0] == video}
            valid = start == 0 or start + window.clip_frames <= length
            needed = min(min_target_frames, length)
            occupied = valid and any(c >= needed for c in count.values())
            num_tubes = sum(any((*t, f) in has_box for f in seen) for t in count)
            rows.append((valid, occupied, num_tubes))
    return zip(*rows, strict=True)


@pytest.mark.parametrize("min_target_frames", [1, 3, 6])
@pytest.mark.parametrize("input_frames", [6, 9, 14])
def test_window_table_against_every_frame(input_frames, min_target_frames):
    index, window = make_index(), WindowShape(6, input_frames)
    table = clips.window_table(index, window, min_target_frames=min_target_frames)
    valid, occupied, num_tubes = slow_table(index, window, min_target_frames)
    np.testing.assert_array_equal(table.valid, valid)
    np.testing.assert_array_equal(table.occupied, occupied)
    np.testing.assert_array_equal(table.num_tubes, num_tubes)


@pytest.mark.parametrize(
    ("num_frames", "stride", "expected"),
    [
        (18, 6, [0, 6, 12]),
        (20, 6, [0, 6, 12, 14]),
        (7, 3, [0, 1]),
        (6, 6, [0]),
        (4, 6, [0]),
        (1, 1, [0]),
    ],
)
def test_window_starts(num_frames, stride, expected):
    starts = clips.window_starts(num_frames, clip_frames=6, stride=stride)
    np.testing.assert_array_equal(starts, expected)


@pytest.mark.parametrize(("clip_frames", "input_frames"), [(6, 30), (6, 6), (5, 12), (1, 4)])
def test_halo_holds_every_window_of_the_core_and_no_frame_more(clip_frames, input_frames):
    window, core = WindowShape(clip_frames, input_frames), range(100, 110)
    reached = [
        frame
        for start in core
        for frame in range(start - window.before, start - window.before + input_frames)
    ]
    assert core[0] - min(reached) == window.before == (input_frames - clip_frames) // 2
    after = clip_frames - 1 + (input_frames - clip_frames + 1) // 2
    assert max(reached) - core[-1] == window.after == after


def test_draws_are_uniform_over_the_eligible_starts_of_the_core():
    index = make_index()
    table = clips.window_table(index, WindowShape(6, 8), min_target_frames=1)
    plan = plans.EpochPlan(index, table.occupied, range(index.num_records), seed=3)
    draws = np.array([plan.draw(epoch).starts for epoch in range(2000)])
    for record, starts in enumerate(draws.T):
        offset = index.video_offset[index.record_video[record]]
        core = np.arange(index.core_start[record], index.core_end[record])
        allowed = core[table.occupied[offset + core]]
        if not len(allowed):
            assert (starts == clips.NO_WINDOW).all()
            continue
        values, counts = np.unique(starts, return_counts=True)
        np.testing.assert_array_equal(values, allowed)
        np.testing.assert_allclose(counts, 2000 / len(allowed), rtol=0.25)


def test_draws_depend_on_seed_and_epoch_only():
    index = make_index()
    eligible = np.ones(29, bool)
    whole = plans.EpochPlan(index, eligible, range(index.num_records), seed=3)
    part = plans.EpochPlan(index, eligible, range(2, 4), seed=3)
    other = plans.EpochPlan(index, eligible, range(2, 4), seed=4)
    for ours, theirs in zip(whole.draw(5), part.draw(5), strict=True):
        np.testing.assert_array_equal(ours, theirs)
    for different in (whole.draw(6), other.draw(5)):
        for ours, theirs in zip(whole.draw(5), different, strict=True):
            assert not np.array_equal(ours, theirs)
    assert len(np.unique(whole.draw(0).seeds, axis=0)) == index.num_records


@pytest.mark.parametrize("stride", [1, 4, 6])
@pytest.mark.parametrize("core_frames", [1, 3, 5, 24])
def test_every_window_belongs_to_one_record(core_frames, stride):
    index = make_index(core_frames=core_frames)
    grid = clips.grid_windows(index, clip_frames=6, stride=stride)
    plan = plans.GridPlan.of(index, grid)
    found = []
    for record in range(index.num_records):
        starts = plan.starts[plan.first[record] :][: plan.count[record]]
        assert (index.core_start[record] <= starts).all()
        assert (starts < index.core_end[record]).all()
        found += [(index.record_video[record], start) for start in starts]
    expected = [
        (video, start)
        for video, length in enumerate(LENGTHS)
        for start in clips.window_starts(length, clip_frames=6, stride=stride)
    ]
    assert sorted(found) == expected
    assert plan.num_windows(range(index.num_records)) == len(expected)


@pytest.mark.parametrize("process_count", [1, 2, 3, 4, 6, 20])
def test_shares_of_a_grid_have_as_many_windows_or_nearly(process_count):
    """Also where most records have none, as those of videos that were not chosen."""
    index = make_index(lengths=[25, 4, 12, 30], runs=[])
    chosen = np.repeat([False, False, True, True], index.num_frames)
    plan = plans.GridPlan.of(index, clips.grid_windows(index, clip_frames=6, stride=2) & chosen)
    shares = [plan.share(number, process_count) for number in range(process_count)]
    assert [record for share in shares for record in share] == list(range(index.num_records))
    windows = [plan.num_windows(share) for share in shares]
    assert sum(windows) == len(plan.starts)
    assert max(windows) < len(plan.starts) / process_count + plan.count.max()
    for wrong in (-1, process_count):
        with pytest.raises(InputError, match=f"process {wrong} of {process_count}; expected 0 <="):
            plan.share(wrong, process_count)


@pytest.mark.parametrize("count", [1, 2, 3, 7])
def test_process_shares_partition_the_records(count):
    shares = [plans.process_share(7, index, count) for index in range(count)]
    assert [record for share in shares for record in share] == list(range(7))


@pytest.mark.parametrize(("index", "count"), [(2, 2), (-1, 2), (0, 8), (0, 0)])
def test_impossible_shares(index, count):
    with pytest.raises(InputError, match="expected 0 <= index < count <= records"):
        plans.process_share(7, index, count)


def test_errors_name_the_numbers():
    index = make_index()
    table = clips.window_table(index, WindowShape(6, 14), min_target_frames=1)
    with pytest.raises(InputError, match="'v0' has 2 tubes; max_tubes is 1"):
        clips.check_max_tubes(table, index, table.valid, max_tubes=1, split="train")
    with pytest.raises(InputError, match="expected 1 <= clip_frames <= input_frames"):
        WindowShape(6, 5)
    with pytest.raises(InputError, match="no record of a stream has a window"):
        plans.EpochPlan(index, np.zeros(29, bool), range(3), seed=0)
