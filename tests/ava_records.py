"""Records of AVA's kind, written without the builder, whose pictures say which frame they are."""

import itertools
import pathlib

import cv2
import numpy as np

from input_pipeline import records
from input_pipeline.records import RecordsIndex, RecordsInfo, SplitInfo

VIDEOS = {"train": ("a", "b", "c"), "val": ("d",)}
NUMBER = {name: number for number, name in enumerate("abcd")}
SECONDS = 16  # of each video, from 900 on
NUM_FRAMES = 12 * SECONDS
BLOCK, ROWS, COLUMNS = 8, 3, 4
LEVELS = (30, 95, 160, 225)


def picture(video: str, frame: int) -> np.ndarray:
    """uint8 [24, 32, 3]: twelve grey squares, digits of the video's and the frame's number."""
    number = 1000 * NUMBER[video] + frame
    digits = [LEVELS[number // 4**place % 4] for place in range(ROWS * COLUMNS)]
    small = np.array(digits, np.uint8).reshape(ROWS, COLUMNS)
    return np.kron(small, np.ones((BLOCK, BLOCK), np.uint8))[..., None].repeat(3, axis=-1)


def identify(shown: np.ndarray) -> tuple[str, int]:
    """(video, frame) of a picture of any size."""
    height, width = shown.shape[:2]
    y = ((np.arange(ROWS) + 0.5) * height / ROWS).astype(int)
    x = ((np.arange(COLUMNS) + 0.5) * width / COLUMNS).astype(int)
    grey = shown[np.ix_(y, x)].mean(axis=-1).ravel()
    digits = np.abs(grey[:, None] - np.array(LEVELS)).argmin(axis=1)
    video, frame = divmod(int((digits * 4 ** np.arange(len(digits))).sum()), 1000)
    return "abcd"[video], frame


def write_records(folder: pathlib.Path, *, core: int = 60, before: int = 12, after: int = 35):
    """A folder of records, one file a video."""
    import tensorflow as tf

    from input_pipeline import builders

    (folder / "clip_records").mkdir(parents=True)
    splits, indices = {}, {}
    for split, videos in VIDEOS.items():
        rows, shards = [], []
        for number, video in enumerate(videos):
            path = folder / "clip_records" / f"{video}.tfrecord"
            own = []
            with tf.io.TFRecordWriter(str(path)) as writer:
                for begin in range(0, NUM_FRAMES, core):
                    end = min(begin + core, NUM_FRAMES)
                    first, stop = max(0, begin - before), min(NUM_FRAMES, end + after)
                    own.append((number, first, stop, begin, end))
                    writer.write(builders.pixel_features().serialize_example(
                        {
                            "video": video, "num_frames": NUM_FRAMES, "width": 32, "height": 24,
                            "first_frame": first, "core_start": begin, "core_end": end,
                            "frames": [jpeg(video, frame) for frame in range(first, stop)],
                        }
                    ))  # fmt: skip
            rows += own
            shards.append((f"clip_records/{video}.tfrecord", len(own)))
        record_video, first, stop, begin, end = np.array(rows, np.int32).T
        same = np.full(len(videos), 1, np.int32)
        indices[split] = RecordsIndex(
            np.array(videos), same * NUM_FRAMES, same * 32, same * 24,
            record_video, first, stop, begin, end, np.zeros((0, 4), np.int32),
        )  # fmt: skip
        size = sum((folder / name).stat().st_size for name, _ in shards)
        splits[split] = SplitInfo(len(videos), len(rows), 0, 0, size, tuple(shards))
    records.write_index(folder, indices)
    info = RecordsInfo(
        "ava", "", "", {}, (), core, before, after, 0, 95, splits,
        kind="ava", first_second=900, missing_keyframes={"d": (903,)},
    )  # fmt: skip
    records.write_info(folder, info)
    return folder


def jpeg(video: str, frame: int) -> bytes:
    return cv2.imencode(".jpg", picture(video, frame), [cv2.IMWRITE_JPEG_QUALITY, 95])[1].tobytes()


MAP = "".join(f'item {{ name: "class{i}" id: {i} }}\n' for i in (3, 12, 79))


def write_annotations(folder: pathlib.Path, *, versions=("2.1", "2.2")) -> dict:
    """AVA's files for those videos; returns {(version, split): rows (video, second, ...)}.

    People come and go at random; of the second version some have more labels.
    """
    folder.mkdir(exist_ok=True)
    rng = np.random.default_rng(3)
    people = {}
    for split, videos in VIDEOS.items():
        for video, second, person in itertools.product(videos, range(902, 913), range(3)):
            if rng.random() < 0.55:
                corner = rng.integers(2, 72, 2) / 100
                box = (*corner, *(corner + rng.integers(10, 25, 2) / 100))
                people[split, video, second, person] = box, int(rng.choice([3, 12, 13, 79]))
    rows = {}
    for version, split in itertools.product(versions, VIDEOS):
        rows[version, split] = []
        for (of, video, second, person), (box, action) in people.items():
            if of != split:
                continue
            actions = {action} | ({79} if version == "2.2" and person == 0 else set())
            rows[version, split] += [(video, second, *box, a, person) for a in sorted(actions)]
        text = "".join(",".join(map(str, row)) + "\n" for row in rows[version, split])
        (folder / f"ava_{split}_v{version}.csv").write_text(text)
        (folder / f"ava_{split}_excluded_timestamps_v{version}.csv").write_text("a,0905\n")
    for version, year in (("2.1", "2018"), ("2.2", "2019")):
        (folder / f"ava_action_list_v{version}_for_activitynet_{year}.pbtxt").write_text(MAP)
    return rows
