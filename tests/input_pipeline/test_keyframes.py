"""AVA's keyframes from records to batches, against the rows of the annotation files."""

import itertools
import json
import types

import ava_records
import numpy as np
import pytest

from input_pipeline import keyframes, pipeline, records
from input_pipeline.augment import Augment
from step_jax.annotations.ava_folder import open_ava_folder
from step_jax.errors import InputError

CLASS = {3: 0, 12: 1, 79: 2}  # 13 is none of them
SHAPE = {"image_size": 32, "max_tubes": 3, "num_threads": 2}
AUGMENT = Augment(flip=0.5, crop=0.7, photometric=0.7, erase=0.5)
EXCLUDED = ("a", 905)


@pytest.fixture(scope="module")
def ava(tmp_path_factory):
    from input_pipeline.accelerators import hide_accelerators

    hide_accelerators()
    folder = tmp_path_factory.mktemp("ava")
    rows = ava_records.write_annotations(folder / "csv")
    return types.SimpleNamespace(
        records=ava_records.write_records(folder / "records"), csv=folder / "csv", rows=rows
    )


def train(ava, count, *, version="2.1", clip_frames=12, **options):
    labels = keyframes.training_labels(open_ava_folder(ava.csv, version), "train")
    chosen = {"split": "train", "batch_size": 4, "seed": 1, **SHAPE, **options}
    batches = pipeline.train_batches(
        ava.records, keyframes=labels, clip_frames=clip_frames, input_frames=36, **chosen
    )
    return list(itertools.islice(batches, count))


def evaluate(ava, *, version="2.1", with_people=True, **options):
    folder = open_ava_folder(ava.csv, version)
    labels = keyframes.evaluation_labels(folder, "val", with_people=with_people)
    chosen = {"split": "val", "batch_size": 4, "stride": 12, "clip_frames": 12, **options}
    batches = pipeline.eval_batches(
        ava.records, keyframes=labels, input_frames=36, **SHAPE, **chosen
    )
    return list(batches)


def keyframe_of(clip):
    """(video, second) of a clip that was not flipped or cropped; checks all of its 36 frames."""
    shown = [ava_records.identify(frame) for frame in clip]
    video, frame = shown[18]
    assert frame % 12 == 0
    assert shown == [(video, f) for f in range(frame - 18, frame + 18)]
    return video, 900 + frame // 12


def windows(batches):
    """The windows one by one, without padding."""
    for batch in batches:
        for place in np.flatnonzero(batch.get("example_mask", np.ones(len(batch["clips"]), bool))):
            yield {name: value[place] for name, value in batch.items()}


def labelled(ava, version="2.1", split="train"):
    return {tuple(row[:2]) for row in ava.rows[version, split]} - {EXCLUDED}


def check_targets(window, rows, video, second):
    """Boxes at 6, 18 and 30 and labels of a window that was not augmented, by loops."""
    people = sorted({row[7] for row in rows if row[:2] == (video, second)})
    boxes, mask, labels = np.zeros((3, 36, 4)), np.zeros((3, 36), bool), np.zeros((3, 3))
    for place, person in enumerate(people):
        for name, t, *box, action, who in rows:
            if name == video and who == person and abs(t - second) < 2:
                boxes[place, 18 + 12 * (t - second)] = np.array(box) * 32
                mask[place, 18 + 12 * (t - second)] = True
                if t == second and action in CLASS:
                    labels[place, CLASS[action]] = 1
    np.testing.assert_allclose(window["boxes"], boxes, atol=1e-5)
    np.testing.assert_array_equal(window["box_mask"], mask)
    np.testing.assert_array_equal(window["labels"], labels)
    assert window["tube_mask"].tolist() == [place < len(people) for place in range(3)]


# --- training


def test_every_labelled_keyframe_once_an_epoch(ava):
    wanted = sorted(labelled(ava))
    assert EXCLUDED not in wanted
    assert len(wanted) > 20
    options = {"batch_size": len(wanted), "shuffle_records": 16}
    orders = []
    for batch in train(ava, 3, **options):
        seen = [keyframe_of(clip) for clip in batch["clips"]]
        assert sorted(seen) == wanted
        orders.append(seen)
    assert orders[0] != orders[1] != orders[2]
    changes = sum(a[0] != b[0] for a, b in itertools.pairwise(orders[0]))
    assert changes > len(wanted) / 3  # the movies are mixed


@pytest.mark.parametrize("clip_frames", [12, 36])
@pytest.mark.parametrize("version", ["2.1", "2.2"])
def test_targets(ava, version, clip_frames):
    """The detector's and the pre-training's windows, of both versions' annotations."""
    rows, lone = ava.rows[version, "train"], 0
    for window in windows(train(ava, 8, version=version, clip_frames=clip_frames)):
        video, second = keyframe_of(window["clips"])
        check_targets(window, rows, video, second)
        lone += (window["box_mask"].sum(axis=1) == 1).any()
    assert lone  # people without neighbours were among them


def test_versions_share_the_pixels(ava):
    one, other = (train(ava, 6, version=version) for version in ("2.1", "2.2"))
    for a, b in zip(one, other, strict=True):
        for name in ("clips", "boxes", "box_mask"):
            np.testing.assert_array_equal(a[name], b[name])
    assert any((a["labels"] != b["labels"]).any() for a, b in zip(one, other, strict=True))


@pytest.mark.parametrize("start_step", [1, 7, 13])  # in the first, second and fourth epoch or so
def test_resumes_anywhere(ava, start_step):
    whole = train(ava, start_step + 2, augment=AUGMENT, shuffle_records=5)
    resumed = train(ava, 2, augment=AUGMENT, shuffle_records=5, start_step=start_step)
    for a, b in zip(whole[start_step:], resumed, strict=True):
        for name in a:
            np.testing.assert_array_equal(a[name], b[name], err_msg=name)


def test_processes_partition_the_keyframes(ava):
    parts = []
    for index in range(3):
        options = {"process_index": index, "process_count": 3, "streams": 3, "batch_size": 1}
        own = []
        for batch in train(ava, 60, **options):
            keyframe = keyframe_of(batch["clips"][0])
            if keyframe in own:
                break
            own.append(keyframe)
        parts.append(own)
    assert all(parts)
    assert sorted(itertools.chain(*parts)) == sorted(labelled(ava))


def test_crops_keep_the_person_and_move_all_keyframes_alike(ava):
    """The crop that the box at T tells of is the one of the boxes at T - 1 and T + 1."""
    plain = train(ava, 8)
    cropped = train(ava, 8, augment=Augment(crop=1.0, crop_min_scale=0.3, crop_keep=1.0))
    gone, kept = 0, 0
    for before, after in zip(windows(plain), windows(cropped), strict=True):
        assert (after["box_mask"][:, 18] == before["box_mask"][:, 18]).all()
        assert (after["tube_mask"] == before["tube_mask"]).all()
        for place in np.flatnonzero(before["tube_mask"]):
            old, new = before["boxes"][place], after["boxes"][place]
            scale = (new[18, 2:] - new[18, :2]) / (old[18, 2:] - old[18, :2])
            shift = new[18, :2] - old[18, :2] * scale
            for time in (6, 30):
                if not before["box_mask"][place, time]:
                    assert not after["box_mask"][place, time]
                    continue
                moved = old[time] * np.tile(scale, 2) + np.tile(shift, 2)
                centre = (moved[:2] + moved[2:]) / 2
                if after["box_mask"][place, time]:
                    np.testing.assert_allclose(new[time], np.clip(moved, 0, 32), atol=0.01)
                    kept += 1
                else:
                    assert ((centre < 0.01) | (centre > 31.99)).any()
                    gone += 1
    assert gone
    assert kept


def test_flips_mirror_all_keyframes(ava):
    plain, flipped = train(ava, 3), train(ava, 3, augment=Augment(flip=1.0))
    for a, b in zip(windows(plain), windows(flipped), strict=True):
        np.testing.assert_array_equal(a["clips"][:, :, ::-1], b["clips"])
        mirrored = np.stack([32 - a["boxes"][..., 2], a["boxes"][..., 1],
                             32 - a["boxes"][..., 0], a["boxes"][..., 3]], axis=-1)  # fmt: skip
        expected = np.where(a["box_mask"][..., None], mirrored, 0)
        np.testing.assert_allclose(b["boxes"], expected, atol=1e-4)


# --- evaluation


@pytest.mark.parametrize("batch_size", [1, 4])
def test_every_keyframe_of_validation_once(ava, batch_size):
    """Those without people too; the one that could not be decoded, and what is beyond the end of
    this short video, are left out."""
    batches = evaluate(ava, batch_size=batch_size)
    seen = []
    for window in windows(batches):
        keyframe = keyframe_of(window["clips"])
        assert (str(window["video"]), 900 + (window["start"] + 6) / 12) == keyframe
        check_targets(window, ava.rows["2.1", "val"], *keyframe)
        seen.append(keyframe)
    assert sorted(seen) == [("d", t) for t in range(902, 915) if t != 903]
    assert len(labelled(ava, split="val")) < len(seen)
    counted = pipeline.num_eval_batches(
        ava.records, split="val", clip_frames=12, stride=12, batch_size=batch_size,
        keyframes=keyframes.evaluation_labels(open_ava_folder(ava.csv, "2.1"), "val"),
    )  # fmt: skip
    assert counted == len(batches)


def test_pieces_of_a_record_are_its_windows(ava, monkeypatch):
    whole = evaluate(ava)
    monkeypatch.setattr(pipeline, "MAX_SPREAD", 12)
    pieces = evaluate(ava, process_index=0, process_count=1)
    for a, b in zip(whole, pieces, strict=True):
        for name in a:
            np.testing.assert_array_equal(a[name], b[name], err_msg=name)


def test_evaluation_needs_no_people(ava):
    (ava.csv / "ava_val_v2.2.csv").write_text("d,0902,0,0,1,1,12\n")  # 7 columns
    batch = evaluate(ava, version="2.2", with_people=False)[0]
    assert not batch["tube_mask"].any()
    with pytest.raises(InputError, match=r"ava_val_v2.2.csv: 1 of 1 rows have no person id"):
        evaluate(ava, version="2.2")


# --- what is wrong


def labels_of(ava, **changes):
    labels = keyframes.training_labels(open_ava_folder(ava.csv, "2.1"), "train")
    return keyframes.KeyframeLabels(**{**vars(labels), **changes})


def test_what_is_left_out_is_counted(ava):
    info = records.load_info(ava.records)
    index = records.load_index(ava.records, "train")
    found = keyframes.keyframe_windows(labels_of(ava), index, info, clip_frames=12, where="R")
    assert found.summary() == f"{len(labelled(ava))} keyframes"
    fewer = records.RecordsIndex(**{**vars(index), "video_ids": np.array(["a", "b", "x"])})
    found = keyframes.keyframe_windows(labels_of(ava), fewer, info, clip_frames=12, where="R")
    lacking = sum(video == "c" for video, _ in labelled(ava))
    expected = f"{len(labelled(ava)) - lacking} keyframes; {lacking} are of videos that the records"
    assert found.summary() == f"{expected} lack"
    none = records.RecordsIndex(**{**vars(index), "video_ids": np.array(["x", "y", "z"])})
    with pytest.raises(InputError, match=r"R: none of the keyframes that are wanted.*annotated"):
        keyframes.keyframe_windows(labels_of(ava), none, info, clip_frames=12, where="R")


def test_too_many_people(ava):
    with pytest.raises(InputError, match=r"keyframe 9\d\d of video '\w' has 3 people.*is 2: set"):
        train(ava, 1, max_tubes=2)


def test_records_of_the_other_kind(ava, records_dir):
    shape = {"clip_frames": 6, "input_frames": 14, "batch_size": 1, "seed": 0, **SHAPE}
    with pytest.raises(InputError, match=r"with their own tubes, not of AVA's movies"):
        next(pipeline.train_batches(records_dir, split="train", keyframes=labels_of(ava), **shape))
    with pytest.raises(InputError, match=r"records of AVA's pixels, without labels.*ava_version"):
        next(pipeline.train_batches(ava.records, split="train", **shape))


def test_records_that_are_too_narrow(ava, tmp_path):
    narrow = ava_records.write_records(tmp_path / "narrow", after=11)
    with pytest.raises(InputError, match=r"no record holds the 36 frames around frame \d+ of"):
        train(types.SimpleNamespace(records=narrow, csv=ava.csv), 1)


def test_longer_inputs_than_the_records_hold(ava):
    shape = {"clip_frames": 12, "input_frames": 60, "batch_size": 1, "seed": 0, **SHAPE}
    with pytest.raises(InputError, match=r"reads 60 frames around a keyframe.*hold 36"):
        next(pipeline.train_batches(ava.records, split="train", keyframes=labels_of(ava), **shape))


def test_nothing_to_train_on(ava, tmp_path):
    for path in ava.csv.iterdir():
        (tmp_path / path.name).write_text(path.read_text())
    (tmp_path / "ava_train_v2.1.csv").write_text("a,0905,0,0,1,1,12,3\n")
    with pytest.raises(InputError, match=r"ava_train_v2.1.csv: no keyframe is left to train on"):
        keyframes.training_labels(open_ava_folder(tmp_path, "2.1"), "train")


def test_old_folders_of_records_are_clips(records_dir, tmp_path):
    document = json.loads((records_dir / "records.json").read_text())
    for key in ("kind", "first_second", "missing_keyframes", "repeated_keyframes"):
        document.pop(key, None)
    (tmp_path / "records.json").write_text(json.dumps(document))
    assert records.load_info(tmp_path).kind == "clips"
