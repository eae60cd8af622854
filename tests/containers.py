"""Movies with any timestamps, written by hand: OpenCV writes only regular ones that start at 0.

Their pictures are JPEGs that carry their number, so that what was chosen of them can be read back.
"""

import struct

import cv2
import numpy as np

WIDTH, HEIGHT = 64, 48


def coded_picture(number: int) -> np.ndarray:
    """BGR uint8 [48, 64, 3]: 16 bits of a number as black or white blocks in two rows."""
    bits = ((number >> np.arange(16)) & 1).reshape(2, 8) * 255
    blocks = np.kron(bits, np.ones((HEIGHT // 2, WIDTH // 8), int))
    return np.repeat(blocks[..., None], 3, axis=2).astype(np.uint8)


def read_number(picture: np.ndarray) -> int:
    """The number of a picture [H, W, 3] of any size, after compression."""
    height, width = picture.shape[:2]
    y = ((np.arange(2) + 0.5) * height / 2).astype(int)
    x = ((np.arange(8) + 0.5) * width / 8).astype(int)
    bits = picture[np.ix_(y, x)][..., 1].ravel() > 127
    return int(bits @ (1 << np.arange(16)))


def coded_jpeg(number: int) -> bytes:
    return cv2.imencode(".jpg", coded_picture(number))[1].tobytes()


# --- Matroska -------------------------------------------------------------------------------------


def _element(name: int, data: bytes) -> bytes:
    name_bytes = name.to_bytes((name.bit_length() + 7) // 8, "big")
    return name_bytes + (len(data) | 1 << 56).to_bytes(8, "big") + data


def _number(name: int, value: int) -> bytes:
    return _element(name, value.to_bytes(8, "big"))


def write_matroska(path, times, *, scale_ns=1_000_000, fps=None, sound_first=False):
    """An MJPEG movie whose frame i is picture i, shown at `times[i]`, in units of `scale_ns`.

    fps: of the header. sound_first: with a sound track before the pictures', which starts at 0.
    """
    video = _element(0xE0, _number(0xB0, WIDTH) + _number(0xBA, HEIGHT))
    entry = _number(0xD7, 2) + _number(0x73C5, 2) + _number(0x83, 1) + _element(0x86, b"V_MJPEG")
    if fps is not None:
        entry += _number(0x23E383, round(10**9 / fps))
    sound = (
        _number(0xD7, 1) + _number(0x73C5, 1) + _number(0x83, 2) + _element(0x86, b"A_PCM/INT/LIT")
    )
    rate = _element(0xE1, _element(0xB5, struct.pack(">f", 8000)) + _number(0x9F, 1))
    tracks = _element(0xAE, sound + rate) if sound_first else b""
    tracks = _element(0x1654AE6B, tracks + _element(0xAE, entry + video))
    info = _element(0x1549A966, _number(0x2AD7B1, scale_ns) + _element(0x4D80, b"test"))
    head = _number(0x4286, 1) + _number(0x42F7, 1) + _number(0x42F2, 4) + _number(0x42F3, 8)
    head += _element(0x4282, b"matroska") + _number(0x4287, 4) + _number(0x4285, 2)
    clusters = [_cluster(0, [(0x81, 0, bytes(64))])] if sound_first else []
    first = 0
    while first < len(times):  # a cluster's times are of 16 bits
        within = [time - times[first] for time in times[first : first + 50]]
        within = [time for time in within if time < 1 << 15]
        frames = [(0x82, time, coded_jpeg(first + i)) for i, time in enumerate(within)]
        clusters.append(_cluster(times[first], frames))
        first += len(within)
    segment = _element(0x18538067, info + tracks + b"".join(clusters))
    path.write_bytes(_element(0x1A45DFA3, head) + segment)
    return path


def _cluster(start: int, blocks) -> bytes:
    data = b"".join(
        _element(0xA3, struct.pack(">BhB", track, time, 0x80) + frame)
        for track, time, frame in blocks
    )
    return _element(0x1F43B675, _number(0xE7, start) + data)


# --- MP4 ------------------------------------------------------------------------------------------


def _box(kind: bytes, *parts: bytes) -> bytes:
    data = b"".join(parts)
    return struct.pack(">I4s", len(data) + 8, kind) + data


def write_mp4(path, durations, *, timescale, offset=0, edits=()):
    """An MJPEG movie whose frame i is picture i, shown for `durations[i]` ticks.

    offset: of composition. edits: (duration in ms, media time in ticks) of the edit list.
    """
    jpegs = [coded_jpeg(number) for number in range(len(durations))]
    ftyp = _box(b"ftyp", b"qt  \0\0\0\0qt  ")
    mdat = _box(b"mdat", *jpegs)
    places = np.cumsum([len(ftyp) + 8] + [len(jpeg) for jpeg in jpegs[:-1]])
    count = len(jpegs)

    def table(kind, *columns):
        rows = np.stack([np.broadcast_to(column, count) for column in columns], axis=1)
        return _box(kind, struct.pack(">II", 0, count), rows.astype(">i4").tobytes())

    picture = struct.pack(">6xHHH12xHHIII H 32x Hh", 1, 0, 0, WIDTH, HEIGHT, 72 << 16, 72 << 16, 0,
                          1, 24, -1)  # fmt: skip
    stsd = _box(b"stsd", struct.pack(">II", 0, 1), _box(b"jpeg", picture))
    stsc = _box(b"stsc", struct.pack(">IIIII", 0, 1, 1, 1, 1))
    sizes = struct.pack(f">III{count}I", 0, 0, count, *map(len, jpegs))
    tables = [
        stsd,
        table(b"stts", 1, durations),
        stsc,
        _box(b"stsz", sizes),
        table(b"stco", places),
    ]
    if offset:
        tables.append(table(b"ctts", 1, offset))
    media_ms, total = sum(durations) * 1000 // timescale, sum(durations)
    mdhd = _box(b"mdhd", struct.pack(">IIIIIHH", 0, 0, 0, timescale, total, 0, 0))
    hdlr = _box(b"hdlr", struct.pack(">I4s4s12xB", 0, b"mhlr", b"vide", 0))
    reference = _box(b"dref", struct.pack(">II", 0, 1), _box(b"url ", struct.pack(">I", 1)))
    minf = _box(b"minf", _box(b"vmhd", bytes(12)), _box(b"dinf", reference), _box(b"stbl", *tables))
    matrix = struct.pack(">9I", 1 << 16, 0, 0, 0, 1 << 16, 0, 0, 0, 1 << 30)
    tkhd = struct.pack(">IIIIII8xHHHH", 3, 0, 0, 1, 0, media_ms, 0, 0, 0, 0) + matrix
    tkhd = _box(b"tkhd", tkhd, struct.pack(">II", WIDTH << 16, HEIGHT << 16))
    rows = b"".join(struct.pack(">IiI", ms, time, 1 << 16) for ms, time in edits)
    edts = _box(b"edts", _box(b"elst", struct.pack(">II", 0, len(edits)), rows)) if edits else b""
    trak = _box(b"trak", tkhd, edts, _box(b"mdia", mdhd, hdlr, minf))
    mvhd = struct.pack(">IIIIIIH10x", 0, 0, 0, 1000, media_ms, 1 << 16, 1 << 8)
    mvhd = _box(b"mvhd", mvhd, matrix, bytes(24), struct.pack(">I", 2))
    path.write_bytes(ftyp + mdat + _box(b"moov", mvhd, trak))
    return path
