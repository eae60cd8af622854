"""Ways to damage a folder of clip records."""

import os
import pathlib

import cv2
import numpy as np
import tensorflow as tf

from input_pipeline import records


def shard(folder, number, split="train") -> pathlib.Path:
    """A record file."""
    return pathlib.Path(records.shard_paths(folder, split, allow_missing=True)[number][0])


def offsets(path) -> list[int]:
    """Where the records of a whole file begin, and where it ends."""
    places = [0]
    for data in contents(path):
        places.append(places[-1] + 16 + len(data))
    return places


def flip_byte(path, offset):
    with open(path, "r+b") as file:
        file.seek(offset)
        byte = file.read(1)[0]
        file.seek(offset)
        file.write(bytes([byte ^ 8]))


def flip_data(path, record):
    flip_byte(path, offsets(path)[record] + 500)


def flip_length(path, record):
    flip_byte(path, offsets(path)[record] + 1)


def cut_off(path, record):
    os.truncate(path, offsets(path)[record] + 700)


def drop_from(path, record):
    os.truncate(path, offsets(path)[record])


def remove(path, record):
    del record
    path.unlink()


def rewrite(path, change, record):
    """Passes one record through `change`, which makes bytes of an example's features."""

    def changed(data):
        example = tf.train.Example.FromString(data)
        change(example.features.feature)
        return example.SerializeToString()

    replace(path, changed, record)


def change_image(change, place=5, kind="frames"):
    """Changes one of a record's images, and nothing else."""

    def changed(feature):
        frames = feature[kind].bytes_list.value
        frames[place] = change(frames[place])

    return lambda path, record: rewrite(path, changed, record)


def another_size(jpeg):
    picture = cv2.imdecode(np.frombuffer(jpeg, np.uint8), cv2.IMREAD_COLOR)
    return cv2.imencode(".jpg", cv2.resize(picture, (80, 60)))[1].tobytes()


cut_image = change_image(lambda jpeg: jpeg[: len(jpeg) // 2])
garbage_image = change_image(lambda jpeg: bytes(300))
odd_image = change_image(another_size)


def drop_feature(path, record):
    rewrite(path, lambda feature: feature.pop("tube_box"), record)


def drop_frame(path, record):
    rewrite(path, lambda feature: feature["frames"].bytes_list.value.pop(), record)


def rename_video(path, record):
    rewrite(path, lambda feature: feature["video"].bytes_list.value.__setitem__(0, b"z"), record)


def add_label(path, record):
    rewrite(path, lambda feature: feature["tube_labels"].int64_list.value.extend([0, 0, 1]), record)


def no_example(path, record):
    replace(path, lambda data: b"what is this?", record)


def replace(path, change, record):
    """Passes one record's bytes through `change`."""
    serialized = contents(path)
    serialized[record] = change(serialized[record])
    with tf.io.TFRecordWriter(os.fspath(path)) as writer:
        for data in serialized:
            writer.write(data)


def contents(path) -> list[bytes]:
    """The records of a whole file."""
    return list(tf.data.TFRecordDataset(os.fspath(path)).as_numpy_iterator())


def repeat_last(path, record):
    del record
    data = path.read_bytes()
    path.write_bytes(data + data[offsets(path)[-2] :])
