"""Flow and early fusion from records to batches. The flow images are the frames themselves.

So what happens to them can be told from the frames: the first flow image of every input frame shows
that frame, the next ones those after it.
"""

import itertools
import json

import numpy as np
import pytest
import tensorflow as tf

from input_pipeline import builders, pipeline, pixels, prepare, records, throughput
from input_pipeline.augment import Augment
from step_jax.errors import InputError

WINDOWS = {"split": "train", "clip_frames": 6, "input_frames": 14, "image_size": 32, "max_tubes": 3}
EVERYTHING = Augment(flip=0.5, crop=0.7, photometric=0.7, erase=0.5)


def train(folder, count, **options):
    chosen = {**WINDOWS, "batch_size": 4, "seed": 1, "num_threads": 2, "modality": "early"}
    return list(itertools.islice(pipeline.train_batches(folder, **{**chosen, **options}), count))


def evaluate(folder, **options):
    chosen = {**WINDOWS, "batch_size": 5, "stride": 3, "num_threads": 2, "modality": "early"}
    return list(pipeline.eval_batches(folder, **{**chosen, **options}))


def clips_of(batches):
    return np.concatenate([batch["clips"] for batch in batches])


def assert_same(ours, theirs):
    for a, b in zip(ours, theirs, strict=True):
        assert a.keys() == b.keys()
        for name in a:
            np.testing.assert_array_equal(a[name], b[name], err_msg=name)


# --- records --------------------------------------------------------------------------------------


def test_records_hold_the_flow_of_their_frames_and_four_more(
    flow_records_dir, flow_dir, annotations
):
    info = records.load_info(flow_records_dir)
    assert (info.flow, info.flow_side, info.flow_frames) == ("frames", 0, 5)
    spec = builders.features(3, flow=True).tf_example_spec
    for path, _ in records.shard_paths(flow_records_dir, "train"):
        for data in tf.data.TFRecordDataset(path):
            example = {k: v.numpy() for k, v in tf.io.parse_single_example(data, spec).items()}
            video = annotations.video(example["video"].decode())
            first, stop = example["first_frame"], example["first_frame"] + len(example["frames"])
            files = sorted((flow_dir / video.id).iterdir())
            expected = files[first : min(stop + 4, video.num_frames)]
            assert list(example["flow"]) == [file.read_bytes() for file in expected]


def test_records_with_and_without_flow_are_different_ones(
    flow_records_dir, records_dir, flow_dir, annotations
):
    options = prepare.RecordOptions(core_frames=7, halo_before=4, halo_after=9, shards=3)
    assert not prepare.prepare(annotations, flow_records_dir, options=options, flow=flow_dir)
    for folder, flow in ((flow_records_dir, None), (records_dir, flow_dir)):
        with pytest.raises(InputError, match="other annotations or options"):
            prepare.prepare(annotations, folder, options=options, flow=flow)


def test_records_of_the_first_version_are_read(records_dir, tmp_path):
    document = json.loads(records.info_path(records_dir).read_text())
    for key in ("flow", "flow_side", "flow_frames"):
        del document[key]
    records.info_path(tmp_path).write_text(json.dumps(document | {"version": 1}))
    assert records.load_info(tmp_path) == records.load_info(records_dir)


def test_an_option_of_flow_does_not_change_records_without(annotations):
    one, other = (prepare.RecordOptions(flow_frames=number) for number in (5, 7))
    digests = {prepare.records_digest(annotations, options) for options in (one, other)}
    assert len(digests) == 1
    for flow in ({"method": "dis"}, {"method": "brox"}, {"method": "brox", "inner": 3}):
        digests.add(prepare.records_digest(annotations, one, flow=flow))
    assert len(digests) == 4


# --- batches --------------------------------------------------------------------------------------


@pytest.mark.parametrize("flow_frames", [1, 5])
def test_every_frame_reads_its_flow_images(flow_records_dir, annotations, identify, flow_frames):
    """Those of the frames after it, the last one again beyond the end."""
    for batch in evaluate(flow_records_dir, flow_frames=flow_frames):
        assert batch["clips"].shape[1:] == (14, 32, 32, 3 + 3 * flow_frames)
        for place in np.flatnonzero(batch["example_mask"]):
            video, start = str(batch["video"][place]), int(batch["start"][place])
            last = annotations.video(video).num_frames - 1
            for time, picture in enumerate(batch["clips"][place]):
                frame = np.clip(start - 4 + time, 0, last)
                shown = [frame, *np.minimum(frame + np.arange(flow_frames), last)]
                images = np.split(picture, 1 + flow_frames, axis=-1)
                assert [identify(image) for image in images] == [(video, n) for n in shown]


@pytest.mark.parametrize("augment", [None, EVERYTHING])
def test_early_is_both_streams_side_by_side(flow_records_dir, augment):
    early, rgb, flow = (
        train(flow_records_dir, 6, augment=augment, modality=name)
        for name in ("early", "rgb", "flow")
    )
    for both, frames, maps in zip(early, rgb, flow, strict=True):
        together = np.concatenate([frames["clips"], maps["clips"]], axis=-1)
        np.testing.assert_array_equal(both["clips"], together)
        for name in both.keys() - {"clips"}:
            np.testing.assert_array_equal(both[name], frames[name])
            np.testing.assert_array_equal(both[name], maps[name])


def test_evaluation_is_both_streams_side_by_side(flow_records_dir):
    early, rgb, flow = (
        clips_of(evaluate(flow_records_dir, modality=name)) for name in ("early", "rgb", "flow")
    )
    np.testing.assert_array_equal(early, np.concatenate([rgb, flow], axis=-1))


def test_flow_beside_frames_does_not_change_the_frames(records_dir, flow_records_dir):
    ours, theirs = (
        train(folder, 6, modality="rgb", augment=EVERYTHING)
        for folder in (flow_records_dir, records_dir)
    )
    assert_same(ours, theirs)


@pytest.mark.parametrize("modality", ["flow", "early"])
def test_resume_is_bit_identical_with_any_threads(flow_records_dir, modality):
    options = {"modality": modality, "augment": EVERYTHING}
    whole = train(flow_records_dir, 6, **options)
    assert_same(train(flow_records_dir, 3, start_step=3, num_threads=5, **options), whole[3:])


# --- augmentation ---------------------------------------------------------------------------------


def test_geometry_and_erasing_are_those_of_the_frames(flow_records_dir):
    augment = Augment(crop=1.0, erase=1.0)
    clips = clips_of(train(flow_records_dir, 6, augment=augment))
    np.testing.assert_array_equal(clips[..., 3:6], clips[..., :3])
    plain = clips_of(train(flow_records_dir, 6, augment=Augment(crop=1.0)))
    covered = (clips != plain).any(axis=(1, 4))
    assert covered.any()
    assert (clips[covered.nonzero()[0][0]][:, covered[covered.nonzero()[0][0]]] == 128).all()


def test_a_mirrored_flow_image_moves_the_other_way(flow_records_dir):
    plain, flipped = (
        clips_of(train(flow_records_dir, 3, augment=Augment(flip=probability))).astype(int)
        for probability in (0, 1)
    )
    expected = plain[..., ::-1, :].copy()
    expected[..., 3::3] = 255 - expected[..., 3::3]
    np.testing.assert_array_equal(flipped, expected)


def test_colours_of_the_frames_alone_change(flow_records_dir):
    plain, changed = (
        clips_of(train(flow_records_dir, 3, augment=Augment(photometric=probability)))
        for probability in (0, 1)
    )
    np.testing.assert_array_equal(changed[..., 3:], plain[..., 3:])
    assert (changed[..., :3] != plain[..., :3]).mean() > 0.5


def test_a_crop_is_the_same_region_in_another_size():
    random = np.random.default_rng(0)
    for _ in range(200):
        size, to = random.integers(1, 400, (2, 2))
        corner = [random.integers(0, side) for side in size]
        sides = [random.integers(1, side - low + 1) for side, low in zip(size, corner, strict=True)]
        crop = tf.constant([*corner, *sides], tf.int32)
        found = pixels.scale_crop(
            crop, size=tf.constant(size, tf.int32), to=tf.constant(to, tf.int32)
        )
        top_left, extent = found.numpy()[:2], found.numpy()[2:]
        assert (top_left >= 0).all()
        assert (extent >= 1).all()
        assert (top_left + extent <= to).all()
        low, high = np.array(corner) / size * to, (np.array(corner) + sides) / size * to
        roomy = high - low >= 1  # else the region is one pixel
        assert (np.abs(top_left - low) <= 0.5)[roomy].all()
        assert (np.abs(top_left + extent - high) <= 0.5)[roomy].all()
        if (size == to).all() or (np.array(sides) == size).all():
            np.testing.assert_array_equal(found, [*np.round(low), *np.round(high - low)])


# --- which videos ---------------------------------------------------------------------------------


def test_evaluation_of_some_videos(records_dir):
    options = {"modality": "rgb", "videos": "[ac]"}
    chosen, every = evaluate(records_dir, **options), evaluate(records_dir, modality="rgb")

    def windows(batches):
        rows = [zip(b["video"], b["start"], b["example_mask"], strict=True) for b in batches]
        return [(str(v), int(s)) for row in rows for v, s, real in row if real]

    assert windows(chosen) == [window for window in windows(every) if window[0] in "ac"]
    assert {video for video, _ in windows(chosen)} == {"a", "c"}
    counted = {"split": "train", "clip_frames": 6, "stride": 3, "batch_size": 5}
    assert pipeline.num_eval_batches(records_dir, **counted, videos="[ac]") == len(chosen)
    with pytest.raises(InputError, match="no video matches 'z'; ids are such as 'a', 'b', 'c'"):
        evaluate(records_dir, modality="rgb", videos="z")


# --- errors and speed -----------------------------------------------------------------------------


def test_what_the_records_do_not_hold_is_said_before_the_first_batch(records_dir, flow_records_dir):
    for call in (lambda folder, **o: train(folder, 0, **o), evaluate):
        with pytest.raises(InputError, match=r"hold no flow.*'early': build them with --flow"):
            call(records_dir)
        with pytest.raises(InputError, match=r"flow_frames up to 5, not 6.*--flow_frames 6"):
            call(flow_records_dir, flow_frames=6)
        with pytest.raises(InputError, match=r"data\.modality is 'both'; expected one of rgb"):
            call(flow_records_dir, modality="both")


def test_throughput_of_a_modality(flow_records_dir, capsys):
    sizes = ["--input_frames", "14", "--image_size", "32", "--num_windows", "8"]
    throughput.main(["--records", str(flow_records_dir), *sizes, "--modality", "early"])
    assert "clips/s" in capsys.readouterr().out
