"""A video that broke off anywhere is not taken for the whole."""

import struct

import numpy as np
import pytest

from step_jax.errors import InputError
from step_jax.video import check_complete


def box(kind, content=b"", size=None):
    return struct.pack(">I4s", 8 + len(content) if size is None else size, kind) + content


def big_box(kind, content):
    return struct.pack(">I4sQ", 1, kind, 16 + len(content)) + content


FTYP, MOOV, MDAT = box(b"ftyp", b"isom"), box(b"moov", b"m" * 50), box(b"mdat", b"d" * 90)


@pytest.fixture
def check(tmp_path):
    def check_bytes(data):
        (tmp_path / "video").write_bytes(data)
        check_complete(tmp_path / "video")

    return check_bytes


@pytest.mark.parametrize("name", ["video.webm", "video.avi"])
def test_every_cut_of_a_written_file_is_noticed(make_video, check, name):
    data = make_video(name).read_bytes()
    check(data)
    cuts = np.random.default_rng(0).integers(64, len(data) - 1, 12).tolist()
    for cut in (*cuts, len(data) - 1):
        with pytest.raises(InputError, match="is truncated"):
            check(data[:cut])


@pytest.mark.parametrize(
    "boxes",
    [
        [FTYP, MOOV, MDAT],
        [FTYP, MDAT, MOOV],
        [FTYP, big_box(b"mdat", b"d" * 90), MOOV],
        [FTYP, MOOV, big_box(b"mdat", b"d" * 90)],
    ],
)
def test_every_cut_of_an_mp4_is_noticed(check, boxes):
    data = b"".join(boxes)
    check(data)
    for cut in range(len(FTYP), len(data), 3):
        with pytest.raises(InputError, match="is truncated"):
            check(data[:cut])


def test_other_sound_mp4_files_pass(check):
    check(FTYP + MOOV + box(b"mdat", b"d" * 90, size=0))  # reaches to the end, as live ones do
    check(FTYP + MOOV + box(b"moof", b"f" * 9) + MDAT)  # fragmented
    check(FTYP + MOOV + MDAT + b"\0" * 100)  # padded by a camera


def ebml(name, content, size=None):
    """An element with an 8-byte length; `size` None states the content's."""
    size = len(content) if size is None else size
    return bytes.fromhex(name) + (size | 1 << 56).to_bytes(8, "big") + content


UNKNOWN = (1 << 56) - 1


def test_a_live_webm_is_checked_by_its_clusters(check):
    header = ebml("1a45dfa3", b"webm")
    blocks = [ebml("e7", b"\0"), ebml("a3", b"b" * 40), ebml("a3", b"b" * 30)]
    open_cluster = ebml("1f43b675", b"".join(blocks), UNKNOWN)
    closed_cluster = ebml("1f43b675", b"".join(blocks))
    for cluster in (open_cluster, closed_cluster):
        data = header + ebml("18538067", cluster + cluster, UNKNOWN)
        check(data)
        for cut in (1, 10, 33, 43, 50):  # inside a block and inside a block's header
            with pytest.raises(InputError, match="is truncated"):
                check(data[:-cut])


def avi(content, size=None):
    size = len(content) + 4 if size is None else size
    return b"RIFF" + struct.pack("<I", size) + b"AVI " + content


def test_an_avi_of_several_riff_chunks_is_checked_by_its_index(check):
    first_size, second = 12 + 32 + 32 + 100, b"RIFF" + struct.pack("<I", 64) + b"AVIX" + b"d" * 60
    entries = struct.pack("<QIIQII", 76, 100, 5, first_size + 12, 60, 3)
    index = b"indx" + struct.pack("<IHBBI4s12x", 24 + 32, 4, 0, 0, 2, b"00dc") + entries
    data = avi(index + b"d" * 100) + second
    check(data)
    with pytest.raises(InputError, match="is truncated"):
        check(data[: -len(second)])  # cut exactly between the chunks
    with pytest.raises(InputError, match="is truncated"):
        check(data[:-1])


def test_an_avi_that_was_never_closed_is_noticed(check):
    with pytest.raises(InputError, match="did not fill in the size"):
        check(avi(b"d" * 100, size=0))


def test_formats_that_state_nothing_pass(check):
    check(b"\x00\x00\x01\xb3 an MPEG elementary stream")
    check(b"")


@pytest.mark.parametrize(
    ("names", "hole"),
    [
        (["00001.jpg", "00002.jpg", "00003.jpg"], None),
        (["img_7.png", "img_8.png", "img_9.png", "img_10.png"], None),
        (["5.jpg", "10.jpg", "15.jpg"], None),  # every fifth frame, on purpose
        (["start.jpg", "end.jpg"], None),
        (["2_take1.jpg", "2_take2.jpg"], None),
        (["00001.jpg", "00002.jpg", "00005.jpg"], r"00002\.jpg and 00005\.jpg are missing"),
        (["a9.jpg", "a10.jpg", "a12.jpg"], r"a10\.jpg and a12\.jpg are missing"),
    ],
)
def test_a_hole_in_a_folders_numbers_is_noticed(tmp_path, names, hole):
    for name in names:
        (tmp_path / name).touch()
    if hole is None:
        check_complete(tmp_path)
    else:
        with pytest.raises(InputError, match=hole):
            check_complete(tmp_path)


def test_a_missing_file_is_an_input_error(tmp_path):
    with pytest.raises(InputError, match="no such file"):
        check_complete(tmp_path / "none.mp4")
