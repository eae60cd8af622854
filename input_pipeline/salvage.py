"""What can be read of a damaged record file, record by record, and why the rest cannot.

A TFRecord file is a row of records: length (8 bytes), its checksum (4), data, its checksum (4).
TensorFlow's reader gives up at the first error; here the records after one with damaged data are
read too, as long as the length fields are whole.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Generator, Iterator

import tensorflow as tf

from input_pipeline.crc32c import masked_crc32c

HEADER, FOOTER = 12, 4  # bytes around a record's data


class Unreadable(str):
    """Why a record cannot be read, though those after it perhaps can."""


def scan_file(
    path: str | os.PathLike, *, skip: int = 0
) -> Generator[bytes | Unreadable, None, str]:
    """A file's records one by one, without the first `skip`, of which only the length is looked at.

    Returns why there are no more. Raises the errors of TensorFlow's file systems other than
    NotFoundError.
    """
    if not tf.io.gfile.exists(path):
        return "the file is missing"
    number, offset = 0, 0
    with tf.io.gfile.GFile(path, "rb") as file:
        size = file.size()
        while offset < size:
            header = file.read(HEADER)
            cut = f"the file is cut off: it ends at byte {size:,}, in its record {number}"
            if len(header) < HEADER:
                return cut
            length, checksum = struct.unpack("<QI", header)
            if checksum != masked_crc32c(header[:8]):
                return (
                    f"the length of the file's record {number}, at byte {offset:,}, is damaged: "
                    "neither it nor those after it can be found"
                )
            offset += HEADER + length + FOOTER
            if offset > size:
                return cut
            if number < skip:
                file.seek(offset)
            else:
                data = file.read(length)
                is_whole = file.read(FOOTER) == struct.pack("<I", masked_crc32c(data))
                yield data if is_whole else Unreadable("its bytes and their checksum differ")
            number += 1
    return f"the file ends after {number} records"


class Salvage:
    """Reads parts of record files, with empty bytes in the place of records that it cannot read.

    reasons: of those, by record, why not.
    surplus: by path of a file, how many records it holds beyond those that it should.
    failure: an error that is no damage, or None.
    """

    def __init__(self):
        self.reasons: dict[int, str] = {}
        self.surplus: dict[str, int] = {}
        self.failure: tf.errors.OpError | None = None

    def read(
        self, path: bytes, first: int, stop: int, skip: int, is_end: bool
    ) -> Iterator[tuple[int, bytes]]:
        """(record, bytes) of the records from `first` up to `stop`, after `skip` in the file.

        is_end: nothing should come after them.
        """
        path = os.fsdecode(path)
        try:
            found, ended = scan_file(path, skip=skip), None
            for record in range(first, stop):
                if ended is None:
                    try:
                        data = next(found)
                    except StopIteration as stopped:
                        ended = stopped.value
                if ended is not None or isinstance(data, Unreadable):
                    self.reasons[record] = ended or str(data)
                    data = b""
                yield record, data
            if is_end and ended is None and (surplus := sum(1 for _ in found)):
                self.surplus[path] = surplus
        except tf.errors.OpError as error:
            self.failure = error
            raise
