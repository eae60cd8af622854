"""AVA's frame-mAP against the official code's numbers, each rule by hand, and a slow loop."""

import math
import pathlib
from dataclasses import replace

import numpy as np
import pytest
from ava_oracle import assert_equal, label_map, oracle, read

from step_jax.annotations.ava_csv import AvaDetections, AvaLabels, Keyframes
from step_jax.annotations.ava_labels import read_label_map
from step_jax.errors import InputError
from step_jax.metrics.ava import PROTOCOLS, Protocol, ava_map

# Every row of six classes and of every crowded keyframe of a made-up output, with what the three
# versions of the official code say of these classes.
GOLDEN = pathlib.Path(__file__).parents[2] / "data" / "ava_metric.npz"
A = "v,0902,.1,.1,.5,.9"  # a box, and one that does not touch it
B = "v,0902,.6,.1,.9,.9"
KEYFRAMES = [A.replace("0902", f"{second:04d}") for second in range(902, 907)]


@pytest.fixture(scope="module")
def golden():
    with np.load(GOLDEN) as data:
        return dict(data)


def keyframes(golden, key):
    videos = tuple(golden["videos"].tolist())
    return Keyframes(videos, *np.divmod(golden[key], 2000))


def golden_rows(golden, scores, *, with_empty):
    """Ground truth, detections, exclusions. Other classes' ground truth only lists keyframes."""
    bare = ["bare_key", "empty_key"] if with_empty else ["bare_key"]
    lists = [keyframes(golden, key) for key in bare]
    video, timestamp = (np.concatenate([getattr(k, n) for k in lists]) for n in FIELDS)
    frames = keyframes(golden, "gt_key")
    labels = AvaLabels(
        *(frames.videos, frames.video, frames.timestamp),
        boxes=golden["gt_boxes"] / 1e9,
        action_id=golden["gt_action"].astype(np.int16),
        person_id=np.zeros(len(frames), np.int32),
        empty=Keyframes(frames.videos, video, timestamp),
    )
    frames = keyframes(golden, "det_key")
    detections = AvaDetections(
        *(frames.videos, frames.video, frames.timestamp),
        boxes=golden["det_boxes"] / 1e9,
        action_id=golden["det_action"].astype(np.int16),
        score=golden[scores] / {"unique": 1e9, "ties": 100}[scores],
    )
    return labels, detections, keyframes(golden, "excluded_key")


FIELDS = ("video", "timestamp")


@pytest.fixture(scope="module")
def classes(golden, tmp_path_factory):
    path = tmp_path_factory.mktemp("ava") / "map.pbtxt"
    path.write_text(str(golden["label_map"]))
    return read_label_map(path)


@pytest.mark.parametrize("version", ["act18", "act19", "act20", "act20_2col"])
@pytest.mark.parametrize("scores", ["unique", "ties"])
def test_counts_as_the_official_code(golden, classes, scores, version):
    labels, detections, exclusions = golden_rows(golden, scores, with_empty="2col" in version)
    protocol = PROTOCOLS["20" + version[3:5]]
    result = ava_map(labels, detections, classes, exclusions=exclusions, protocol=protocol)
    chosen = [classes.ids.index(action) for action in golden["actions"]]
    ap, low, high, *counts = golden[f"{scores}_{version}"].T
    found = (result.num_ground_truth, result.num_detections, result.num_true_positives)
    for ours, theirs in zip(found, counts, strict=True):
        np.testing.assert_array_equal(ours[chosen], theirs)
    if scores == "unique":
        np.testing.assert_allclose(result.ap[chosen], ap, rtol=0, atol=1e-9)
    defined = ~np.isnan(ap)  # equal scores: between the worst and the best order
    np.testing.assert_array_equal(np.isnan(result.ap[chosen]), ~defined)
    assert (result.ap[chosen][defined] >= low[defined] - 1e-9).all()
    assert (result.ap[chosen][defined] <= high[defined] + 1e-9).all()


def test_the_order_of_shards_does_not_matter(golden, classes):
    labels, detections, exclusions = golden_rows(golden, "ties", with_empty=False)
    rng = np.random.default_rng(0)
    shards = np.array_split(rng.permutation(np.unique(golden["det_key"])), 7)
    order = np.concatenate([np.flatnonzero(np.isin(golden["det_key"], keys)) for keys in shards])
    renamed = rng.permutation(len(detections.videos))  # the names in another order, too
    names = tuple(detections.videos[i] for i in renamed)
    shuffled = detections.take(order)
    shuffled = replace(
        shuffled, videos=names, video=np.argsort(renamed).astype(np.int32)[shuffled.video]
    )
    for protocol in PROTOCOLS.values():
        options = {"exclusions": exclusions, "protocol": protocol}
        one = ava_map(labels, detections, classes, **options)
        other = ava_map(labels, shuffled, classes, **options)
        np.testing.assert_array_equal(one.ap, other.ap)


# name: (ground truth, detections, excluded keyframes, {protocols: {class: AP}})
CASES = {
    "the second detection gets no second choice": (
        [f"{A},12,0", "v,0902,.15,.1,.55,.9,12,1"],
        [f"{A},12,.9", "v,0902,.11,.1,.51,.9,12,.8"],
        [],
        {"2018 2019 2020": {12: 0.5}},
    ),
    "an overlap of exactly a half is a match": (
        ["v,0902,.25,.25,.75,.75,12,0", "v,0903,.25,.25,.75,.75,12,0"],
        ["v,0902,.25,.25,.5,.75,12,.9", "v,0903,.25,.25,.4999,.75,12,.8"],
        [],
        {"2018 2019 2020": {12: 0.5}},
    ),
    "the low score of a duplicate stands first": (
        [f"{KEYFRAMES[0]},12,0", f"{KEYFRAMES[1]},12,0"],
        [f"{A},12,.2", f"{A},12,.9", f"{KEYFRAMES[1]},12,.5"],
        [],
        {"2018 2019 2020": {12: 1}},
    ),
    "a keyframe without ground truth": (
        [f"{A},12,0"],
        [f"{KEYFRAMES[3]},12,.9", f"{A},12,.5"],
        [],
        {"2018 2019": {12: 0.5}, "2020": {12: 1}},
    ),
    "an excluded keyframe": (
        [f"{A},12,0", f"{KEYFRAMES[1]},12,0"],
        ["v,0903,.6,.1,.9,.9,12,.9", f"{A},12,.5"],
        ["v,0903"],
        {"2018 2019": {12: 1}, "2020": {12: 0.25}},
    ),
    "classes without detections or ground truth": (
        [f"{A},12,0", f"{A},11,0"],
        [f"{A},12,.9", f"{A},80,.9"],
        [],
        {"2018 2019 2020": {11: 0, 12: 1, 80: math.nan}},
    ),
    "a class outside the label map lists a keyframe": (
        [f"{A},12,0", f"{KEYFRAMES[1]},2,0"],
        [f"{KEYFRAMES[1]},12,.9", f"{A},12,.5", f"{A},2,.99"],
        [],
        {"2018 2019 2020": {12: 0.5}},
    ),
    "so does a row of two columns": (
        [f"{A},12,0", "v,0903"],
        [f"{KEYFRAMES[1]},12,.9", f"{KEYFRAMES[2]},12,.8", f"{A},12,.5"],
        [],
        {"2018 2019": {12: 1 / 3}, "2020": {12: 0.5}},
    ),
    "60 rows, the true positive is the 55th": (
        [f"{A},12,0"],
        [f"{B},80,{0.99 - i / 100:.2f}" for i in range(54)] + [f"{A},12,.3"] + [f"{B},80,.1"] * 5,
        [],
        {"2018": {12: 1}, "2019 2020": {12: 0}},
    ),
    "the least tuple leaves the 50": (
        [f"{A},12,0"],
        [f"{A},12,.5"] + [f"{B},80,.5"] * 49 + [f"{B},79,.6"],
        [],
        {"2018": {12: 1}, "2019 2020": {12: 0}},
    ),
    "the 51st of equal scores comes too late": (
        [f"{A},12,0"],
        [f"{B},80,.5"] * 50 + [f"{A},12,.5"],
        [],
        {"2018": {12: 1}, "2019 2020": {12: 0}},
    ),
    "boxes without area are no false positives": (
        [f"{A},12,0"],
        ["v,0902,.5,.1,.5,.9,12,.9", "v,0902,.1,.9,.5,.1,12,.8", f"{A},12,.5"],
        [],
        {"2018 2019 2020": {12: 1}},
    ),
    "the same row of ground truth twice": (
        [f"{A},12,0", f"{A},12,0"],
        [f"{A},12,.9", f"{A},12,.8"],
        [],
        {"2018 2019 2020": {12: 0.5}},
    ),
    "three labels of one person": (
        [f"{A},12,0", f"{A},17,0", f"{A},80,0"],
        [f"{A},12,.9", f"{A},17,.8", f"{B},80,.7"],
        [],
        {"2018 2019 2020": {12: 1, 17: 1, 80: 0}},
    ),
    "the envelope of the precision": (
        [f"{keyframe},12,0" for keyframe in KEYFRAMES[:4]],
        [
            *(f"{KEYFRAMES[0]},12,.9", f"{B},12,.8", f"{KEYFRAMES[1]},12,.7"),
            *("v,0904,.6,.1,.9,.9,12,.6", f"{KEYFRAMES[2]},12,.5"),
        ],
        [],
        {"2018 2019 2020": {12: (1 + 2 / 3 + 3 / 5) / 4}},
    ),
    "timestamps with and without zeros": (
        [f"{A},12,0"],
        [f"{A},12,.9".replace("0902", "902")],
        [],
        {"2018 2019 2020": {12: 1}},
    ),
    "seven columns mean score 1": (
        [f"{A},12,0", f"{KEYFRAMES[1]},12,0"],
        ["v,0903,.6,.1,.9,.9,12", f"{A},12,.9"],
        [],
        {"2018 2019 2020": {12: 0.25}},
    ),
    "no detections": ([f"{A},12,0"], [], [], {"2018 2019 2020": {12: 0}}),
    "of boxes overlapped alike the earlier one is asked for": (
        ["v,0902,0,0,.5,1,12,0", "v,0902,.125,0,.625,1,12,1"],
        ["v,0902,.0625,0,.5625,1,12,.9", "v,0902,.125,0,.625,1,12,.8"],
        [],
        {"2018 2019 2020": {12: 1}},
    ),
    "of equal scores the earlier row hits": (
        [f"{A},12,0"],
        [f"{A},12,.5", f"{B},12,.5", f"{A},12,.5"],
        [],
        {"2018 2019 2020": {12: 1}},
    ),
    "the y of a box decides before its x who stays": (
        ["v,0902,.3,.1,.7,.9,12,0"],
        [
            "v,0902,.3,.1,.7,.9,12,.5",
            *["v,0902,.1,.2,.2,.9,12,.5"] * 49,
            "v,0902,.8,.2,.9,.9,80,.6",
        ],
        [],
        {"2018": {12: 1}, "2019 2020": {12: 0}},
    ),
    "boxes without area use up places": (
        [f"{A},12,0"],
        ["v,0902,.5,.9,.1,.1,12,.9"] * 50 + [f"{A},12,.5"],
        [],
        {"2018": {12: 1}, "2019 2020": {12: 0}},
    ),
    "half an overlap in float32, less in float64": (
        ["v,0902,.098,.226,.196,.785,12,0"],
        ["v,0902,.098,.226,.147,.785,12,.9"],
        [],
        {"2018 2019 2020": {12: 0}},
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_every_rule(tmp_path, case):
    truth, found, excluded, expected = CASES[case]
    labels, detections, exclusions = read(
        tmp_path, truth="\n".join(truth), found="\n".join(found), excluded="\n".join(excluded)
    )
    classes = label_map([11, 12, 17, 79, 80])
    for years, aps in expected.items():
        for year in years.split():
            result = ava_map(
                labels, detections, classes, exclusions=exclusions, protocol=PROTOCOLS[year]
            )
            found_aps = [result.ap[classes.ids.index(action)] for action in aps]
            np.testing.assert_allclose(found_aps, list(aps.values()), atol=1e-12, err_msg=year)
            assert result.mean == pytest.approx(np.nanmean(result.ap))


def random_rows(rng):
    """Few keyframes, crowded; coarse boxes and scores, so that there are ties of every kind."""

    def rows(count, seconds):
        boxes = np.sort(rng.integers(0, 5, (count, 2, 2)), axis=1).reshape(count, 4) / 4
        return {
            "videos": ("a", "b", "c"),
            "video": rng.integers(0, 2, count).astype(np.int32),
            "timestamp": rng.integers(902, 902 + seconds, count).astype(np.int32),
            "boxes": boxes,
            "action_id": rng.choice([2, 3, 5, 80], count).astype(np.int16),
        }

    truth, found = rows(40, 5), rows(400, 7)
    truth["boxes"][:, 2:] += 0.125  # the oracle knows no box without area
    empty = Keyframes(truth["videos"], np.array([0, 2], np.int32), np.array([906, 902], np.int32))
    labels = AvaLabels(**truth, person_id=np.zeros(40, np.int32), empty=empty)
    scores = rng.integers(1, 8, 400) / 8
    excluded = Keyframes(("b", "d"), np.array([0, 1], np.int32), np.array([903, 902], np.int32))
    return labels, AvaDetections(**found, score=scores), excluded


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("limit", [None, 1, 7, 30])
def test_agrees_with_a_slow_loop(seed, limit):
    labels, detections, exclusions = random_rows(np.random.default_rng(seed))
    classes = label_map([3, 5, 63, 80])
    for switches in ((True, False), (False, True), (True, True)):
        protocol = Protocol(drop_excluded=switches[0], ignore_unlisted=switches[1], limit=limit)
        result = ava_map(labels, detections, classes, exclusions=exclusions, protocol=protocol)
        expected = oracle(labels, detections, classes.ids, exclusions, protocol)
        assert_equal(result, expected)


def test_ground_truth_as_detections_gives_all():
    labels, _, _ = random_rows(np.random.default_rng(0))
    _, first = np.unique(
        np.column_stack([labels.video, labels.timestamp, labels.action_id, labels.boxes]),
        axis=0,
        return_index=True,
    )
    labels = labels.take(first)
    columns = {name: getattr(labels, name) for name in ("videos", *FIELDS, "boxes", "action_id")}
    found = AvaDetections(**columns, score=np.ones(len(labels)))
    result = ava_map(labels, found, label_map([2, 3, 5, 80]))
    np.testing.assert_array_equal(result.ap, 1)


def test_what_was_dropped_is_counted(tmp_path):
    found = [f"{A},12,.5", f"{A},2,.5", f"{KEYFRAMES[1]},12,.5", "w,0902,0,0,1,1,12,.4"]
    found += ["v,0902,.5,.1,.5,.9,12,.9", "v,1900,-.1,0,1,1,12,.1"]
    rows = read(
        tmp_path,
        truth=f"{A},12\n{A},2\n",
        found="\n".join(found),
        excluded="v,0903\nv,0904\nu,0904",
    )
    result = ava_map(*rows[:2], label_map([11, 12]), exclusions=rows[2])
    assert result.ground_truth_rows == {
        "read": 2,
        "outside the label map": 1,
        "on excluded keyframes": 0,
        "counted": 1,
    }
    assert result.detection_rows == {
        "read": 6,
        "outside the label map": 1,
        "on excluded keyframes": 1,
        "on unlisted keyframes": 0,
        "of boxes without area": 1,
        "counted": 3,
        "counted, on keyframes without ground truth": 2,
    }
    assert list(result.remarks.values()) == [1, 1, 1]
    dropped = "2 excluded keyframes dropped (the list has 3, of other videos too)"
    assert f"protocol 2018: {dropped}," in result.protocol
    assert "mean over 1 of 2 classes" in result.protocol
    without = ava_map(*rows[:2], label_map([11, 12]))
    assert "no exclusion list given" in without.protocol


@pytest.mark.parametrize(
    ("truth", "found", "excluded", "message"),
    [
        ("", f"{A},12,.5", "", "no ground truth is left"),
        (f"{A},12", f"{A},12,.5", "v,0902", "1 on excluded keyframes"),
        (f"{A},2", f"{A},12,.5", "", "1 outside the label map"),
        (f"{A},12", f"{A},2,.5", "", "no detection is of a class of the label map"),
        (f"{A},12", "w,0902,0,0,1,1,12,.5", "", "no keyframe in common"),
    ],
)
def test_nothing_to_count(tmp_path, truth, found, excluded, message):
    labels, detections, exclusions = read(tmp_path, truth=truth, found=found, excluded=excluded)
    with pytest.raises(InputError, match=message):
        ava_map(labels, detections, label_map([12]), exclusions=exclusions)


def test_protocols_have_names():
    assert [protocol.name for protocol in PROTOCOLS.values()] == list(PROTOCOLS)
    assert replace(PROTOCOLS["2018"], limit=50) == PROTOCOLS["2019"]
    assert replace(PROTOCOLS["2020"], limit=None).name == "custom"
    with pytest.raises(InputError, match="limit -1"):
        replace(PROTOCOLS["2020"], limit=-1)
