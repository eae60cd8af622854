import itertools

import numpy as np
import pytest

from input_pipeline import clips, pipeline, records, throughput
from input_pipeline.augment import Augment
from input_pipeline.plans import process_share
from input_pipeline.records import load_info, shard_paths
from step_jax.errors import InputError

WINDOWS = {"clip_frames": 6, "input_frames": 14, "image_size": 32, "max_tubes": 3}
EVERYTHING = Augment(flip=0.5, crop=0.7, photometric=0.7, erase=0.5)
NUM_TRAIN = 12  # records: a has 6 cores, b 5, c 1; see conftest


def train(records_dir, count, **options):
    chosen = {"split": "train", "batch_size": 4, "seed": 1, "num_threads": 2, **WINDOWS, **options}
    return list(itertools.islice(pipeline.train_batches(records_dir, **chosen), count))


def evaluate(records_dir, **options):
    chosen = {"split": "train", "batch_size": 5, "stride": 1, "num_threads": 2, **WINDOWS}
    return list(pipeline.eval_batches(records_dir, **{**chosen, **options}))


@pytest.fixture(scope="module")
def evaluated(records_dir):
    return evaluate(records_dir)


@pytest.fixture(scope="module")
def trained(records_dir):
    """Eight augmented batches of five: epochs of twelve windows."""
    return train(records_dir, 8, augment=EVERYTHING, batch_size=5)


def assert_same(ours, theirs):
    assert len(ours) == len(theirs)
    for a, b in zip(ours, theirs, strict=True):
        assert a.keys() == b.keys()
        for name in a:
            np.testing.assert_array_equal(a[name], b[name], err_msg=name)


def windows_of(batches):
    """(video, start) of the windows that are not padding."""
    return [
        (str(video), int(start))
        for batch in batches
        for video, start, real in zip(
            batch["video"], batch["start"], batch["example_mask"], strict=True
        )
        if real
    ]


def grid(annotations, split, stride):
    return sorted(
        (video.id, start)
        for video in annotations.split(split)
        for start in clips.window_starts(video.num_frames, clip_frames=6, stride=stride)
    )


def check_window(window, video, start, identify):
    """A window that was not augmented, against its video: its pixels and its tubes."""
    frames = np.arange(start - 4, start + 10)
    for picture, frame in zip(window["clips"], frames, strict=True):
        assert identify(picture) == (video.id, np.clip(frame, 0, video.num_frames - 1))
    expected = []
    for tube in video.tubes:
        boxes = dict(zip(tube.frames.tolist(), tube.boxes, strict=True))
        if any(frame in boxes for frame in frames):
            expected.append((tube, boxes))
    labels = np.zeros((3, 3))
    for place, (tube, boxes) in enumerate(expected):
        labels[place, list(tube.labels)] = 1
        for time, frame in enumerate(frames):
            assert window["box_mask"][place, time] == (frame in boxes)
            box = boxes.get(frame, np.zeros(4)) / [64, 48, 64, 48] * 32
            np.testing.assert_allclose(window["boxes"][place, time], box, atol=1e-5)
        target = [frame in boxes for frame in frames[4:10] if frame < video.num_frames]
        assert window["tube_mask"][place] == all(target)
    assert not window["box_mask"][len(expected) :].any()
    assert not window["tube_mask"][len(expected) :].any()
    np.testing.assert_array_equal(window["labels"], labels)


# --- evaluation


@pytest.mark.parametrize(("batch_size", "stride"), [(1, 4), (5, 1), (64, 3)])
def test_every_window_once(records_dir, annotations, batch_size, stride):
    options = {"batch_size": batch_size, "stride": stride}
    batches = evaluate(records_dir, **options)
    assert sorted(windows_of(batches)) == grid(annotations, "train", stride)
    assert {len(batch["clips"]) for batch in batches} == {batch_size}
    real = np.concatenate([batch["example_mask"] for batch in batches])
    assert real.tolist() == sorted(real, reverse=True)
    count = pipeline.num_eval_batches(records_dir, split="train", clip_frames=6, **options)
    assert count == len(batches)


def test_evaluation_windows_against_the_videos(evaluated, annotations, identify):
    for batch in evaluated:
        for place in np.flatnonzero(batch["example_mask"]):
            window = {name: value[place] for name, value in batch.items()}
            video = annotations.video(str(window["video"]))
            check_window(window, video, int(window["start"]), identify)
            assert window["num_frames"] == video.num_frames
            assert (window["width"], window["height"]) == (64, 48)


def test_evaluation_repeats_itself(records_dir, evaluated):
    assert_same(evaluate(records_dir, num_threads=1), evaluated)


@pytest.mark.parametrize(("split", "stride", "process_count"), [("train", 3, 5), ("test", 99, 3)])
def test_processes_share_the_windows_in_equally_many_batches(
    records_dir, annotations, split, stride, process_count
):
    """Also where there are more of them than windows, the first and the last of a video."""
    options = {"split": split, "stride": stride, "process_count": process_count}
    parts = [evaluate(records_dir, process_index=i, **options) for i in range(process_count)]
    assert len({len(batches) for batches in parts}) == 1
    empty = [not any(batch["example_mask"].any() for batch in batches) for batches in parts]
    assert any(empty) == (stride == 99)
    together = [window for batches in parts for window in windows_of(batches)]
    assert sorted(together) == grid(annotations, split, stride)  # each once


# --- training


def test_training_windows_against_the_videos(records_dir, annotations, identify):
    seen = set()
    for batch in train(records_dir, 12):
        for place in range(4):
            window = {name: value[place] for name, value in batch.items()}
            # Which it is, its last frame tells: that is repeated only in the last windows.
            video, last = identify(window["clips"][-1])
            first = identify(window["clips"][0])[1]
            start = last - 9 if last < annotations.video(video).num_frames - 1 else first + 4
            start = 0 if video == "c" else start
            check_window(window, annotations.video(video), start, identify)
            seen.add((video, start))
    assert len(seen) > 20
    assert {video for video, _ in seen} == {"a", "b", "c"}


@pytest.mark.parametrize("step", [1, 6])  # 6: in the third epoch
def test_resume_is_bit_identical(records_dir, trained, step):
    rest = train(records_dir, 8 - step, augment=EVERYTHING, batch_size=5, start_step=step)
    assert_same(rest, trained[step:])


def test_threads_do_not_change_the_stream(records_dir, trained):
    again = train(records_dir, 8, augment=EVERYTHING, batch_size=5, num_threads=5)
    assert_same(again, trained)


def drawn_records(records_dir, *, epochs, seed=1, process_count=1, process_index=0):
    """(record, start) of the stream, by epoch."""
    index = records.load_index(records_dir, "train")
    share = process_share(index.num_records, process_index, process_count)
    window = clips.WindowShape(6, 14)
    eligible = clips.window_table(index, window, min_target_frames=6).valid
    plan = pipeline.EpochPlan(index, eligible, share, seed)
    stream = pipeline._drawn_records(
        plan, shard_paths(records_dir, "train"), position=0, shuffle_buffer=8
    )
    items = [(int(r), int(s)) for r, _, s, _ in stream.take(epochs * plan.num_drawn)]
    return [items[e * plan.num_drawn : (e + 1) * plan.num_drawn] for e in range(epochs)]


def test_epochs_hold_every_record_once_in_different_orders(records_dir):
    index = records.load_index(records_dir, "train")
    has_window = index.core_start <= np.maximum(index.num_frames[index.record_video] - 6, 0)
    first, second = drawn_records(records_dir, epochs=2)
    assert len(first) == has_window.sum()
    for epoch in (first, second):
        assert sorted(record for record, _ in epoch) == np.flatnonzero(has_window).tolist()
    assert [record for record, _ in first] != [record for record, _ in second]
    assert dict(first) != dict(second)
    assert drawn_records(records_dir, epochs=1, seed=2)[0] != first


def test_processes_share_the_records(records_dir):
    (whole,) = drawn_records(records_dir, epochs=1)
    parts = [
        drawn_records(records_dir, epochs=1, process_count=3, process_index=index)[0]
        for index in range(3)
    ]
    assert sorted(itertools.chain(*parts)) == sorted(whole)


def test_batches_do_not_depend_on_the_number_of_processes(records_dir):
    """Each of two processes makes its half of every batch, of its own records."""
    whole = train(records_dir, 8, augment=EVERYTHING, batch_size=4, streams=2)
    halves = [
        train(
            records_dir, 8, augment=EVERYTHING, batch_size=2, streams=2,
            process_index=index, process_count=2,
        )
        for index in range(2)
    ]  # fmt: skip
    joined = [
        {name: np.concatenate([one[name], other[name]]) for name in one}
        for one, other in zip(*halves, strict=True)
    ]
    assert_same(joined, whole)
    later = train(records_dir, 3, augment=EVERYTHING, batch_size=4, streams=2, start_step=5)
    assert_same(later, whole[5:])
    other = train(records_dir, 8, augment=EVERYTHING, batch_size=4)
    assert not all(
        np.array_equal(a["clips"], b["clips"]) for a, b in zip(other, whole, strict=True)
    )


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"streams": 1, "process_count": 2}, "data.streams is 1 and there are 2 processes; .* 2"),
        ({"streams": 3, "process_count": 2}, "data.streams is 3 and there are 2 .*e.g. 2"),
        ({"streams": 0}, "data.streams is 0 and there are 1 processes"),
        ({"streams": 2, "batch_size": 3}, "data.streams is 2: a batch of 3 does not divide"),
        ({"streams": 10**6}, "data.streams is 1000000; expected at most [0-9]+, the records"),
    ],
)
def test_streams_that_do_not_fit_are_an_error(records_dir, changes, message):
    with pytest.raises(InputError, match=message):
        train(records_dir, 1, **changes)


def test_augmentation_differs_between_examples_and_epochs(records_dir):
    """Guards against the seed that forgets what was folded into it."""
    flips = Augment(flip=0.5, photometric=1.0, hue=0.0, contrast=0.0, saturation=0.0)
    plain, changed = (
        np.concatenate([batch["clips"] for batch in train(records_dir, 6, augment=augment)])
        for augment in (None, flips)
    )
    shift = (changed.astype(float) - plain).mean(axis=(1, 2, 3, 4))
    assert len(np.unique(shift.round(1))) > 15


def test_flip_exchanges_boxes_and_classes(records_dir):
    swaps = (("turn_left", "turn_right"),)
    plain = train(records_dir, 3)
    flipped = train(records_dir, 3, augment=Augment(flip=1.0, flip_swaps=swaps))
    for before, after in zip(plain, flipped, strict=True):
        x1, y1, x2, y2 = np.moveaxis(before["boxes"], -1, 0)
        expected = np.stack([32 - x2, y1, 32 - x1, y2], axis=-1) * before["box_mask"][..., None]
        np.testing.assert_allclose(after["boxes"], expected, atol=1e-4)
        np.testing.assert_array_equal(after["labels"], before["labels"][..., [0, 2, 1]])
        np.testing.assert_array_equal(after["clips"], before["clips"][..., ::-1, :])


def test_crop_keeps_every_present_tube(records_dir):
    crop = Augment(crop=1.0, crop_min_scale=0.2)
    plain, cropped = train(records_dir, 6), train(records_dir, 6, augment=crop)
    for before, after in zip(plain, cropped, strict=True):
        np.testing.assert_array_equal(after["tube_mask"], before["tube_mask"])
        assert (after["box_mask"] <= before["box_mask"]).all()
        assert (after["boxes"] >= 0).all()
        assert (after["boxes"] <= 32).all()
        sides = after["boxes"][..., 2:] - after["boxes"][..., :2]
        assert (sides[after["box_mask"]] > 0).all()
        assert (sides[~after["box_mask"]] == 0).all()


@pytest.mark.parametrize("min_target_frames", [2, None])
def test_background_windows_can_be_left_out(records_dir, trained, min_target_frames):
    options = {"background": "skip", "min_target_frames": min_target_frames, "augment": EVERYTHING}
    for batch in train(records_dir, 8, **options):
        assert batch["tube_mask"].any(axis=1).all()
    assert not all(batch["tube_mask"].any(axis=1).all() for batch in trained)


# --- errors


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"split": "val"}, "no split 'val'"),
        ({"input_frames": 16}, "keep 4 frames before and 9.*need 5 and 10.*--halo_before 5"),
        ({"max_tubes": 1}, "has 2 tubes; max_tubes is 1: set it to 2 or more"),
        ({"background": "none"}, "background is 'none'; expected 'keep' or 'skip'"),
        ({"min_target_frames": 7}, "min_target_frames is 7; expected 1 to 6"),
        ({"seed": -1}, "seed is -1"),
        ({"split": "test", "background": "skip"}, "no record of a stream has a window"),
        ({"process_index": 2, "process_count": 2, "streams": 2}, "process 2 of 2"),
        ({"augment": Augment(flip_swaps=(("a", "b"),))}, "no class 'a'"),
    ],
)
def test_wrong_options_are_named_before_the_first_batch(records_dir, options, message):
    with pytest.raises(InputError, match=message):
        train(records_dir, 0, **options)


# --- throughput


def test_throughput_command(records_dir, tmp_path, capsys):
    sizes = ["--input_frames", "14", "--image_size", "32", "--num_windows", "8"]
    result = tmp_path / "speed.json"
    throughput.main(["--records", str(records_dir), *sizes, "--json", str(result)])
    assert "clips/s" in capsys.readouterr().out
    assert '"windows_per_second"' in result.read_text()
    assert load_info(records_dir).splits["train"].num_records == NUM_TRAIN
