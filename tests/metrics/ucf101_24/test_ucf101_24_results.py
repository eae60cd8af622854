"""One step put to account: a tubelet table, a detections table, and what each can say."""

import dataclasses

import numpy as np
import pytest
from made_up import make_annotations, make_tubelets, truth_as_tubelets

from step_jax.clip_detections import clip_rows
from step_jax.detections import DetectionsWriter, read_detections
from step_jax.errors import InputError
from step_jax.linking import LinkOptions
from step_jax.metrics.frame_map import map_of
from step_jax.metrics.ucf101_24.detected_tubelets import detected_tubelets
from step_jax.metrics.ucf101_24.protocol import Protocol
from step_jax.metrics.ucf101_24.report import format_paper_table, make_report
from step_jax.metrics.ucf101_24.results import (
    TubeOptions,
    evaluate_detections,
    evaluate_tubelets,
)
from step_jax.trimming import TrimOptions
from step_jax.tubelet_writer import TubeletWriter, write_tubelets

LENGTHS = (20, 24, 3)


def truth():
    """Three actors in two videos; the third video is as long as a window and empty."""
    box = np.array([4, 4, 30, 40])
    return make_annotations(
        [
            (0, (0,), range(20), box + np.arange(20)[:, None]),
            (0, (1,), range(2, 18), [[40, 10, 60, 30]] * 16),
            (1, (2,), range(24), [box] * 24),
        ],
        num_frames=LENGTHS,
    )


def crowd(seed=0):
    """Windows of 3 frames of three videos, four proposals each, near the truth and elsewhere."""
    rng = np.random.default_rng(seed)
    rows = []
    for video, length in enumerate(LENGTHS):
        for start in range(length - 2):
            for proposal in range(4):
                box = np.array([4, 4, 30, 40]) + (0, 14, 30, 34)[proposal]
                boxes = box + rng.integers(-2, 3, (3, 4)) + np.arange(start, start + 3)[:, None] / 2
                rows.append((video, start, proposal, rng.integers(0, 16, 3) / 32, boxes))
    return make_tubelets(rows, videos=("v0", "v1", "v2"))


def write_as_detections(path, rows, **limits):
    """The detections table that `evaluate.py` would write of the same tubelets."""
    writer = DetectionsWriter(
        path, classes=rows.header.classes, clip_frames=3, stride=1, num_steps=1
    )
    with writer:
        for video, start in sorted(set(zip(rows.video.tolist(), rows.start.tolist(), strict=True))):
            own = rows.take((rows.video == video) & (rows.start == start))
            columns = clip_rows(
                own.scores[None],
                own.tubes[None],
                videos=[rows.videos[video]],
                starts=np.array([start]),
                num_frames=np.array([LENGTHS[video]]),
                stride=1,
                step=1,
                **limits,
            )
            writer.append(columns)


OPTIONS = TubeOptions(
    link=LinkOptions(min_frames=5),
    trim=TrimOptions(penalty=0.2, min_run=4, normalise=True),  # scores are under .5
)


def maps(result):
    return {kind: tubes.video_map.ap for kind, tubes in result.tubes.items()}


def test_ground_truth_as_tubelets_scores_100(tmp_path):
    write_tubelets(tmp_path / "t.parquet", truth_as_tubelets(truth()))
    options = dataclasses.replace(OPTIONS, link=LinkOptions())  # all actors have 15 frames
    result = evaluate_tubelets(tmp_path / "t.parquet", truth(), "test", step=1, tubes=options)
    assert map_of(result.frames).mean == 100
    assert set(result.tubes) == {"linked", "trimmed"}
    for tubes in result.tubes.values():
        np.testing.assert_array_equal(tubes.video_map.ap, 100)


def test_the_15_frame_rule_caps_the_recall_of_tubes_alone(tmp_path):
    """The ground truth through the linker: a shorter actor is lost, in frames it is not."""
    box = [4, 4, 30, 40]
    annotations = make_annotations(
        [(0, (0,), range(20), [box] * 20), (1, (0,), range(14), [box] * 14)], num_frames=(20, 20)
    )
    write_tubelets(tmp_path / "t.parquet", truth_as_tubelets(annotations))
    result = evaluate_tubelets(
        tmp_path / "t.parquet", annotations, "test", step=1, tubes=TubeOptions()
    )
    assert map_of(result.frames).ap[0] == 100
    np.testing.assert_array_equal(result.tubes["linked"].video_map.ap[:, 0], 50)


def test_the_order_of_videos_in_the_table_does_not_matter(tmp_path):
    rows = crowd()
    write_tubelets(tmp_path / "one.parquet", rows)
    backwards = dataclasses.replace(rows, videos=rows.videos[::-1], video=2 - rows.video)
    parts = [backwards.take(backwards.video == video) for video in (2, 0, 1)]
    with TubeletWriter(tmp_path / "other.parquet", **vars(rows.header)) as writer:
        for part in parts:
            writer.append_rows(part)
    one, other = (
        evaluate_tubelets(tmp_path / name, truth(), "test", step=1, tubes=OPTIONS)
        for name in ("one.parquet", "other.parquet")
    )
    np.testing.assert_array_equal(map_of(one.frames).ap, map_of(other.frames).ap)
    assert 0 < map_of(one.frames).mean < 100
    for kind, ap in maps(one).items():
        np.testing.assert_array_equal(ap, maps(other)[kind])
    assert 0 < one.tubes["linked"].video_map.at(0.1) < 100


def test_a_table_that_holds_everything_gives_the_same_tubes(tmp_path):
    """Without threshold, NMS and caps detections are tubelets, and the linker sees no difference.

    The boxes lie within the frame, where the table has them.
    """
    rows = crowd()
    rows = dataclasses.replace(
        rows, scores=rows.scores + np.float32(0.02), tubes=np.clip(rows.tubes, 0, 1)
    )
    write_tubelets(tmp_path / "t.parquet", rows)
    write_as_detections(tmp_path / "d.parquet", rows, nms_threshold=1.0)
    detections = read_detections(tmp_path / "d.parquet")
    from_detections = evaluate_detections(detections, truth(), "test", step=1, tubes=OPTIONS)
    from_tubelets = evaluate_tubelets(
        tmp_path / "t.parquet", truth(), "test", step=1, tubes=OPTIONS
    )
    for kind, result in from_tubelets.tubes.items():
        other = from_detections.tubes[kind]
        assert len(other.tubes) == len(result.tubes) > 5
        np.testing.assert_allclose(other.video_map.ap, result.video_map.ap)
        assert "candidates are only those above" in other.made
    assert "raw tubelets" in from_tubelets.tubes["linked"].made


def test_detected_tubelets_have_what_the_table_has(tmp_path):
    """A class that was not detected has score 0; frames past the video's end repeat the last."""
    box = [[0, 0, 9, 9], [1, 0, 10, 9], [2, 0, 11, 9]]
    rows = make_tubelets([(1, 0, 7, [0.5, 0.001, 0.25], box), (0, 4, 2, [0, 0.75, 0], box)])
    writer = DetectionsWriter(
        tmp_path / "d.parquet", classes=("a", "b", "c"), clip_frames=3, stride=1, num_steps=1
    )
    with writer:
        for row, length in ((0, 2), (1, 9)):
            own = rows.take(slice(row, row + 1))
            columns = clip_rows(
                np.tile(own.scores, (9, 1))[None] * (np.arange(9) == own.proposal)[:, None],
                np.tile(own.tubes, (9, 1, 1, 1))[None],
                videos=[rows.videos[own.video[0]]],
                starts=own.start,
                num_frames=np.array([length]),
                stride=1,
                step=1,
            )
            writer.append(columns)
    found = detected_tubelets(read_detections(tmp_path / "d.parquet"))
    names = [found.videos[v] for v in found.video]
    assert list(zip(names, found.start.tolist(), strict=True)) == [("v1", 0), ("v0", 4)]
    np.testing.assert_array_equal(found.scores, [[0.5, 0, 0.25], [0, 0.75, 0]])
    assert found.header.num_boxes == 3
    pixels = found.tubes * 64
    np.testing.assert_array_equal(pixels[0, 0], [box[0], box[1], box[1]])
    np.testing.assert_array_equal(pixels[1, 1], box)
    assert not pixels[1, 0].any()


def test_nothing_found_and_videos_that_are_missing(tmp_path):
    rows = crowd()
    for name, part in (("none", rows.take(slice(0))), ("some", rows.take(rows.video == 1))):
        write_tubelets(tmp_path / f"{name}.parquet", part)
    options = {"step": 1, "tubes": OPTIONS}
    nothing = evaluate_tubelets(tmp_path / "none.parquet", truth(), "test", **options)
    report = make_report([nothing], ap="trapezoid", provenance={})
    assert report["steps"][0]["mean"] == 0
    assert set(report["steps"][0]["video"]["trimmed"]["mean"].values()) == {0}
    assert report["steps"][0]["errors"]["missed"] == 100
    assert "3 of 3 videos have no rows in the table" in format_paper_table(report)
    some = evaluate_tubelets(tmp_path / "some.parquet", truth(), "test", **options)
    report = make_report([some], ap="trapezoid", provenance={})
    assert report["num_videos_with_detections"] == 1
    assert "2 of 3 videos have no rows in the table" in format_paper_table(report)

    write_as_detections(tmp_path / "d.parquet", rows, score_threshold=1.0)
    empty = evaluate_detections(read_detections(tmp_path / "d.parquet"), truth(), "test", **options)
    assert make_report([empty], ap="trapezoid", provenance={})["steps"][0]["mean"] == 0


def test_bad_input(tmp_path):
    rows = crowd()
    path = tmp_path / "t.parquet"
    write_tubelets(path, rows)
    with pytest.raises(InputError, match=r"step 2: the tubelet table has steps \[1\]"):
        evaluate_tubelets(path, truth(), "test", step=2)
    other = make_annotations([(0, (0,), [1], [[0, 0, 9, 9]])], classes=("a", "b"))
    with pytest.raises(InputError, match="the detections' classes are"):
        evaluate_tubelets(path, other, "test", step=1)
    fewer = make_annotations([(0, (0,), [1], [[0, 0, 9, 9]])], num_frames=LENGTHS[:2])
    for tubes in (None, OPTIONS):
        with pytest.raises(InputError, match=r"of video 'v2' .*not among the 2 videos of split"):
            evaluate_tubelets(path, fewer, "test", step=1, tubes=tubes)
    wide = TubeOptions(link=LinkOptions(match_iou=3))
    with pytest.raises(InputError, match="match_iou is 3"):
        evaluate_tubelets(path, truth(), "test", step=1, tubes=wide)


def test_other_protocols_are_named(tmp_path):
    write_tubelets(tmp_path / "t.parquet", crowd())
    for protocol in (Protocol(ap="voc"), Protocol(frames="annotated")):
        result = evaluate_tubelets(
            tmp_path / "t.parquet", truth(), "test", step=1, tubes=OPTIONS, protocol=protocol
        )
        assert "not ACT protocol" in result.tubes["linked"].video_map.protocol
        report = make_report([result], ap=protocol.ap, provenance={})
        assert "not ACT protocol" in report["protocol"]
        assert format_paper_table(report).count("not ACT protocol") == 2
