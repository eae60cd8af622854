"""Sizes of JPEGs by their headers, against their pictures."""

import cv2
import numpy as np
import pytest
import tensorflow as tf

from input_pipeline.jpeg_sizes import check_alike, with_alike


def jpeg(height, width, *, comment=b"", **options):
    picture = np.random.default_rng(height).integers(0, 255, (height, width, 3)).astype(np.uint8)
    data = tf.io.encode_jpeg(picture, **options).numpy()
    segment = b"\xff\xfe" + (len(comment) + 2).to_bytes(2, "big") + comment if comment else b""
    return data[:2] + segment + data[2:]


ALIKE = [
    jpeg(30, 40),
    jpeg(30, 40, quality=20),
    jpeg(30, 40, progressive=True),
    jpeg(30, 40, optimize_size=True),
    jpeg(30, 40, comment=b"\xff\xc0 not a header" * 300),
    jpeg(30, 40, comment=b"filled")[:2] + b"\xff\xff" + jpeg(30, 40, comment=b"filled")[2:],
    cv2.imencode(".jpg", np.zeros((30, 40), np.uint8))[1].tobytes(),
]


@pytest.mark.parametrize("first", range(len(ALIKE)))
def test_headers_of_all_kinds_are_read(first):
    for data in ALIKE:
        assert tuple(tf.io.extract_jpeg_shape(data)[:2]) == (30, 40)
    check_alike([*ALIKE[first:], *ALIKE[:first]])
    for other in (jpeg(30, 41), jpeg(31, 40), jpeg(40, 30, progressive=True)):
        for group in ([ALIKE[first], other], [other, ALIKE[first]]):
            with pytest.raises(ValueError, match="different sizes"):
                check_alike(group)


@pytest.mark.parametrize("data", [b"", b"\xff\xd8", bytes(100), jpeg(30, 40)[:100]])
def test_no_jpeg(data):
    with pytest.raises(ValueError, match="no JPEG"):
        check_alike([data, ALIKE[0]])
    with pytest.raises(ValueError, match="no JPEG"):
        check_alike([ALIKE[0], data])


def test_every_kind_is_checked_before_the_function():
    function = with_alike(lambda *rest: rest, 2)
    assert function(ALIKE, [jpeg(9, 9)] * 2, 5, 6) == (5, 6)
    with pytest.raises(ValueError, match="different sizes"):
        function(ALIKE, [jpeg(9, 9), ALIKE[0]], 5, 6)
