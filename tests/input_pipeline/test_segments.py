import pytest

from input_pipeline.segments import segments


@pytest.mark.parametrize("num_frames", [1, 5, 24, 25, 49, 100])
@pytest.mark.parametrize("core_frames", [1, 7, 24])
def test_cores_partition_and_halos_reach(num_frames, core_frames):
    cut = segments(num_frames, core_frames=core_frames, halo_before=4, halo_after=9)
    cores = [range(segment.core_start, segment.core_end) for segment in cut]
    assert [frame for core in cores for frame in core] == list(range(num_frames))
    sizes = {len(core) for core in cores}
    assert max(sizes) <= core_frames
    assert max(sizes) - min(sizes) <= 1
    for segment in cut:
        assert segment.start == max(0, segment.core_start - 4)
        assert segment.stop == min(num_frames, segment.core_end + 9)


def test_no_more_records_than_needed():
    assert len(segments(49, core_frames=24, halo_before=0, halo_after=0)) == 3
