"""A tiny data set of real video files whose frames say which frame they are."""

import numpy as np
import pytest

from step_jax.annotations import Annotations, Tube, Video
from step_jax.video import VideoWriter

WIDTH, HEIGHT = 64, 48
LENGTHS = {"a": 41, "b": 30, "c": 4, "d": 23}  # c is shorter than a clip of 6


LUMA = np.array([0.299, 0.587, 0.114])
TINT = np.array([1.0, -0.299 / 0.587, 0.0])  # changes no luma


def frame_colour(video_id: str, frame: int) -> np.ndarray:
    """The one colour of a frame: luma tells the frame, tint the video, through two encodings."""
    return 20 + 5 * frame + TINT * 10 * ("abcd".index(video_id) - 1.5)


def identify_frame(frame: np.ndarray) -> tuple[str, int]:
    """(video, frame number) of a picture [H, W, 3]."""
    colour = frame.mean(axis=(0, 1))
    video = (colour[0] - colour[1]) / (10 * (TINT[0] - TINT[1])) + 1.5
    return "abcd"[round(video)], round((colour @ LUMA - 20) / 5)


def moving_box(frames, *, x: float, y: float) -> np.ndarray:
    """float32 [n, 4]: a 20 x 24 box that moves half a pixel a frame."""
    left = x + 0.5 * np.asarray(frames)
    top = np.full(len(frames), y)
    return np.stack([left, top, left + 20, top + 24], axis=1).astype(np.float32)


def tube(labels, frames, *, x, y) -> Tube:
    return Tube(labels=labels, frames=frames, boxes=moving_box(frames, x=x, y=y))


TUBES = {
    "a": (
        tube((0,), [*range(5, 15), *range(18, 25)], x=2, y=3),  # with a gap
        tube((1, 2), range(10, 41), x=20, y=18),
    ),
    "b": (tube((1,), range(12, 20), x=30, y=20),),
    "c": (tube((2,), range(0, 4), x=5, y=5),),
    "d": (),
}
SPLITS = {"a": "train", "b": "train", "c": "train", "d": "test"}


def write_dataset(folder) -> Annotations:
    """The data set as files under `folder`."""
    videos = []
    for video_id, length in LENGTHS.items():
        with VideoWriter(folder / f"{video_id}.avi", fps=25, width=WIDTH, height=HEIGHT) as writer:
            for frame in range(length):
                colour = frame_colour(video_id, frame).round().astype(np.uint8)
                writer.write(np.tile(colour, (HEIGHT, WIDTH, 1)))
        videos.append(
            Video(
                id=video_id,
                path=f"{video_id}.avi",
                split=SPLITS[video_id],
                fps=25.0,
                num_frames=length,
                width=WIDTH,
                height=HEIGHT,
                tubes=TUBES[video_id],
            )
        )
    return Annotations("tiny", ("walk", "turn_left", "turn_right"), tuple(videos), folder)


@pytest.fixture(scope="session")
def identify():
    """`identify_frame`, for the tests."""
    return identify_frame


@pytest.fixture(scope="session")
def annotations(tmp_path_factory):
    """The tiny data set."""
    return write_dataset(tmp_path_factory.mktemp("videos"))


@pytest.fixture(scope="session")
def records_dir(annotations, tmp_path_factory):
    """Its clip records: K = 6, T = 14, cores of at most 7 frames, 3 files of each split."""
    from input_pipeline.accelerators import hide_accelerators
    from input_pipeline.prepare import RecordOptions, prepare

    hide_accelerators()
    folder = tmp_path_factory.mktemp("records")
    options = RecordOptions(core_frames=7, halo_before=4, halo_after=9, shards=3)
    assert prepare(annotations, folder, options=options, workers=1)
    return folder


@pytest.fixture(scope="session")
def flow_dir(annotations, tmp_path_factory):
    """A flow folder whose images are the frames themselves, byte for byte as records keep them."""
    from input_pipeline.frame_store import FrameStore, write_store

    root = tmp_path_factory.mktemp("flow")
    for video in annotations.videos:
        store = root / f"{video.id}-store"
        options = {"fps": 25, "num_frames": video.num_frames, "short_side": 0, "jpeg_quality": 95}
        write_store(store, annotations.video_path(video), name=video.id, **options)
        (root / video.id).mkdir()
        for number, jpeg in enumerate(FrameStore(store).frames(0, video.num_frames), start=1):
            (root / video.id / f"{number:05d}.jpg").write_bytes(jpeg)
    (root / "flow.json").write_text('{"method": "frames"}')
    return root


@pytest.fixture(scope="session")
def flow_records_dir(annotations, flow_dir, tmp_path_factory):
    """Records as `records_dir`, with that flow."""
    from input_pipeline.accelerators import hide_accelerators
    from input_pipeline.prepare import RecordOptions, prepare

    hide_accelerators()
    folder = tmp_path_factory.mktemp("flow_records")
    options = RecordOptions(core_frames=7, halo_before=4, halo_after=9, shards=3)
    assert prepare(annotations, folder, options=options, workers=1, flow=flow_dir)
    return folder
