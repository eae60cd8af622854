"""What the tests of linking share: tubelets made up, and linking by loops over dictionaries."""

from __future__ import annotations

import numpy as np

from step_jax.tubelet_table import TubeletHeader, TubeletRows
from step_jax.windows import window_starts

SIDE = 128  # a power of two: whole pixels survive being normalised


def make_rows(windows, *, clip_frames=6, stride=1, num_classes=1, num_boxes=1, video="v"):
    """Rows of one video; `windows` are {start: [(scores, boxes in pixels), ...]}.

    `scores` is one number or one a class, `boxes` anything that broadcasts to [R, K, 4].
    """
    tubelets = [(start, p, *t) for start in windows for p, t in enumerate(windows[start])]
    scores = np.zeros((len(tubelets), num_classes), np.float32)
    tubes = np.zeros((len(tubelets), num_boxes, clip_frames, 4), np.float32)
    for row, (_, _, score, boxes) in enumerate(tubelets):
        scores[row] = score
        tubes[row] = np.asarray(boxes, np.float32) / SIDE
    return TubeletRows(
        header=TubeletHeader(
            classes=tuple(f"class {c}" for c in range(num_classes)),
            clip_frames=clip_frames,
            stride=stride,
            num_steps=1,
            num_boxes=num_boxes,
        ),
        videos=(video,),
        video=np.zeros(len(tubelets), np.int32),
        start=np.array([t[0] for t in tubelets], np.int32),
        step=np.ones(len(tubelets), np.int8),
        proposal=np.array([t[1] for t in tubelets], np.int32),
        scores=scores,
        tubes=tubes,
    )


def random_rows(
    seed, *, num_frames, clip_frames=6, stride=1, num_classes=3, num_boxes=1, most=6, video="v"
):
    """A video in which actors move, with clutter, equal scores and windows without tubelets."""
    rng = np.random.default_rng(seed)
    actors = rng.uniform(0, 90, (3, 2, 2))  # where they are in the first and in the last frame
    windows = {}
    for start in window_starts(num_frames, clip_frames=clip_frames, stride=stride):
        count = int(rng.integers(0, most + 1)) if rng.uniform() < 0.9 else 0
        windows[int(start)] = [
            _random_tubelet(rng, actors, start, num_frames, clip_frames, num_classes, num_boxes)
            for _ in range(count)
        ]
    return make_rows(
        windows,
        clip_frames=clip_frames,
        stride=stride,
        num_classes=num_classes,
        num_boxes=num_boxes,
        video=video,
    )


def _random_tubelet(rng, actors, start, num_frames, clip_frames, num_classes, num_boxes):
    time = (start + np.arange(clip_frames)) / num_frames
    first, last = actors[rng.integers(len(actors))] if rng.uniform() < 0.8 else actors.mean(0)
    centre = first + (last - first) * time[:, None]
    centre = centre + rng.normal(0, 4, (num_boxes, clip_frames, 2)) + rng.normal(0, 5, 2)
    half = rng.uniform(10, 22, (num_boxes, 1, 2))
    scores = rng.integers(0, 12, num_classes) / 12 * (rng.uniform(size=num_classes) < 0.7)
    if num_classes > 1:
        scores[0] *= 0.01  # no tube of that class reaches the lowest score
    return scores, np.concatenate([centre - half, centre + half], axis=-1)


def slow_link(rows, sizes, options):
    """All tubes as dictionaries, in the order of `sort_tubes`."""
    tubes = []
    for v, name in enumerate(rows.videos):
        for label in range(len(rows.header.classes)):
            tubes += _slow_sequence(rows, v, label, sizes.get(name), options)
    return sorted(tubes, key=_place)


def as_dicts(tubes):
    """`Tubes` in the form of `slow_link`."""
    return [
        {
            "video": int(tubes.video[i]),
            "label": int(tubes.label[i]),
            "score": float(tubes.score[i]),
            "frame": tubes.frame[tubes.tube(i)].tolist(),
            "boxes": tubes.boxes[tubes.tube(i)],
            "frame_score": tubes.frame_score[tubes.tube(i)],
        }
        for i in range(len(tubes))
    ]


def assert_same(found, expected):
    """Same tubes, same order; numbers up to the rounding of float32."""
    keys = ("video", "label", "frame")
    assert [[t[k] for k in keys] for t in found] == [[t[k] for k in keys] for t in expected]
    for a, b in zip(found, expected, strict=True):
        np.testing.assert_allclose(a["score"], b["score"], rtol=1e-12)
        np.testing.assert_allclose(a["boxes"], b["boxes"], atol=2e-5)
        np.testing.assert_allclose(a["frame_score"], b["frame_score"], atol=1e-6)


def assert_identical(a, b):
    """Two `Tubes`, bit for bit."""
    assert a.videos == b.videos
    for name in ("video", "label", "score", "offset", "frame", "boxes", "frame_score"):
        np.testing.assert_array_equal(getattr(a, name), getattr(b, name), err_msg=name)
        assert getattr(a, name).dtype == getattr(b, name).dtype, name
    assert (a.class_scores is None) == (b.class_scores is None)
    if a.class_scores is not None:
        np.testing.assert_array_equal(a.class_scores, b.class_scores)


def _place(tube):
    first = (tube["frame"][0], -tube["frame_score"][0], *np.float32(tube["boxes"][0]))
    return tube["video"], tube["label"], *first, len(tube["frame"])


def _iou(a, b):
    width = max(0, min(a[2], b[2]) - max(a[0], b[0]) + 1)
    height = max(0, min(a[3], b[3]) - max(a[1], b[1]) + 1)
    areas = [max(0, c[2] - c[0] + 1) * max(0, c[3] - c[1] + 1) for c in (a, b)]
    union = sum(areas) - width * height
    return width * height / union if union > 0 else 0


def _mean_iou(a, b):
    return sum(_iou(x, y) for x, y in zip(a, b, strict=True)) / len(a)


def _greedy(tubelets, threshold, top):
    kept = []
    for t in sorted(tubelets, key=lambda t: (-t["score"], t["proposal"])):
        if all(_mean_iou(t["boxes"], other["boxes"]) <= threshold for other in kept):
            kept.append(t)
    return kept[:top]


def _tubelets(rows, v, start, label, size):
    """The tubelets of a window with the box of a class; `label` None: of each one's best class."""
    found = []
    for i in np.flatnonzero((rows.video == v) & (rows.start == start)):
        c = int(rows.scores[i].argmax()) if label is None else label
        pixels = rows.tubes[i, c % rows.header.num_boxes] * np.float32([*size, *size])
        boxes = [
            [min(max(float(x), 0), limit) for x, limit in zip(box, [*size, *size], strict=True)]
            for box in pixels
        ]
        found.append(
            {"score": float(rows.scores[i, c]), "proposal": rows.proposal[i], "boxes": boxes}
        )
    return found


def _slow_sequence(rows, v, label, size, options):
    K = rows.header.clip_frames
    own = np.unique(rows.start[rows.video == v])
    if not len(own):
        return []
    num_frames, *sides = size
    live, finished = [], []
    grid = window_starts(num_frames, clip_frames=K, stride=rows.header.stride)
    for start in sorted({*own.tolist(), *grid.tolist()}):
        free = _tubelets(rows, v, start, label, sides)
        if options.global_nms is not None:
            best = _greedy(
                _tubelets(rows, v, start, None, sides), options.global_nms, options.global_top
            )
            chosen = {t["proposal"] for t in best}
            free = [t for t in free if t["proposal"] in chosen]
        free = _greedy(free, options.candidate_nms, options.candidates)
        for t in free:
            t["start"] = start
        if options.max_frames is not None:
            over = [t for t in live if start + K - t[0]["start"] > options.max_frames]
            finished += over
            live = [t for t in live if t not in over]
        turns = sorted(live, key=lambda tube: -np.mean([t["score"] for t in tube]))
        for tube in turns:
            off = start - tube[-1]["start"]
            fitting = [
                t
                for t in free
                if off < K
                and _mean_iou(tube[-1]["boxes"][off:], t["boxes"][: K - off]) >= options.match_iou
            ]
            if fitting:
                chosen = max(fitting, key=lambda t: t["score"])
                tube.append(chosen)
                free = [t for t in free if t is not chosen]
            elif off >= options.gap(K):
                finished.append(tube)
                live = [t for t in live if t is not tube]
        live += [[t] for t in free]
    tubes = [_finished(tube, v, label, num_frames, K) for tube in finished + live]
    return [
        t
        for t in tubes
        if t["score"] >= np.float32(options.min_score) and len(t["frame"]) >= options.min_frames
    ]


def _finished(tube, v, label, num_frames, K):
    frames = range(tube[0]["start"], min(tube[-1]["start"] + K, num_frames))
    covering = [[t for t in tube if t["start"] <= f < t["start"] + K] for f in frames]
    return {
        "video": v,
        "label": label,
        "score": np.mean([t["score"] for t in tube]),
        "frame": list(frames),
        "boxes": [
            np.mean([t["boxes"][f - t["start"]] for t in some], axis=0)
            for f, some in zip(frames, covering, strict=True)
        ],
        "frame_score": [np.mean([t["score"] for t in some]) for some in covering],
    }
