"""What is wrong with a record, in words: slow and thorough, where reading has failed."""

from __future__ import annotations

import collections
import re

import tensorflow as tf

from input_pipeline import builders
from input_pipeline.identity import IMAGES, Identity
from input_pipeline.keyframes import KIND
from input_pipeline.records import RecordsInfo

MOST_TOLD = 3  # damaged images of a record


class Examination:
    """Looks into the records of a split."""

    def __init__(self, info: RecordsInfo, identity: Identity):
        flow = bool(info.flow)
        is_ava = info.kind == KIND
        held = builders.pixel_features(flow=flow) if is_ava else builders.features(
            len(info.classes), flow=flow
        )  # fmt: skip
        self._spec = held.tf_example_spec
        self._identity = identity

    def find(self, record: int, serialized: bytes) -> str:
        """What is wrong with a record's bytes; "" if nothing is."""
        try:
            example = tf.io.parse_single_example(serialized, self._spec)
        except tf.errors.OpError as error:
            return f"a record of another version, or none at all ({message_of(error)})"
        differences = self._identity.differences(record, example)
        if differences:
            return f"another record than the index says ({', '.join(differences)})"
        texts = []
        for kind in IMAGES:
            if kind in example:
                texts += _bad_images(kind, example[kind].numpy(), int(example["first_frame"]))
        more = len(texts) - MOST_TOLD
        return ", ".join(texts[:MOST_TOLD]) + (f" and {more} more" if more > 0 else "")


def _bad_images(kind: str, jpegs: list[bytes], first: int) -> list[str]:
    sizes = [_size_of(jpeg) for jpeg in jpegs]
    counted = collections.Counter(size for size in sizes if size is not None)
    usual = counted.most_common(1)[0][0] if counted else None
    name = "frame" if kind == "frames" else "flow image"
    texts = []
    for number, (jpeg, size) in enumerate(zip(jpegs, sizes, strict=True), start=first):
        if size is None:
            texts.append(f"the JPEG of {name} {number} does not decode ({len(jpeg):,} bytes)")
        elif size != usual:
            what = "{1} x {0}".format(*size)
            texts.append(f"{name} {number} is {what}, others {usual[1]} x {usual[0]}")
    return texts


def _size_of(jpeg: bytes) -> tuple[int, int] | None:
    """Height and width of a picture, None if it does not decode."""
    try:
        return tuple(tf.image.decode_and_crop_jpeg(jpeg, _whole(jpeg), channels=3).shape[:2])
    except tf.errors.OpError:
        return None


def _whole(jpeg: bytes) -> tf.Tensor:
    return tf.concat([[0, 0], tf.io.extract_jpeg_shape(jpeg)[:2]], axis=0)


def message_of(error: tf.errors.OpError) -> str:
    """Its first line, without the names of the graph's nodes."""
    line = (error.message or type(error).__name__).strip().splitlines()[0]
    return re.sub(r"\{\{.*?\}\} ?|\s*\[Op:\w*\].*", "", line)
