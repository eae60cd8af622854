"""From linked tubelets to tubes: scores, frames, boxes, and what is dropped. numpy only."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from step_jax.tube_table import Tubes


@dataclass(frozen=True, eq=False)
class Links:
    """n tubelets that belong to tubes; those of a tube in order of their starts.

    sequence: int64 [n]; number: int64 [n], of the tube in its sequence.
    start: int64 [n], first frame; score: float32 [n]; boxes: float32 [n, K, 4], pixels.
    class_scores: float32 [n, C] of all classes, or None.
    """

    sequence: np.ndarray
    number: np.ndarray
    start: np.ndarray
    score: np.ndarray
    boxes: np.ndarray
    class_scores: np.ndarray | None = None

    def take(self, rows: np.ndarray) -> Links:
        columns = vars(self).values()
        return Links(*(None if column is None else column[rows] for column in columns))


def assemble(
    links: Links,
    *,
    video: np.ndarray,
    label: np.ndarray,
    num_frames: np.ndarray,
    min_score: float,
    min_frames: int,
    like: Tubes,
) -> Tubes:
    """The tubes that links make, by sequence and number.

    A tube's score is the mean of its tubelets'; the box and the score of a frame are the means over
    the tubelets that cover it.

    Args:
      video, label: int [n], of each link.
      num_frames: int [n], of its video; frames past the end are left out.
      min_score, min_frames: tubes with less are dropped.
      like: whose classes, videos and provenance the result has.
    """
    K = links.boxes.shape[1]
    tube, last = _tubes_of(links)
    count = np.bincount(tube)
    score = np.bincount(tube, weights=links.score) / np.maximum(count, 1)
    first = np.zeros(len(count), np.int64)
    first[tube[::-1]] = links.start[::-1]  # the first of a tube is written last
    stop = np.minimum(links.start[last] + K, num_frames[last])
    # In the precision of the scores: .01 of float32 is below that of float64, and not under .01.
    good = (score >= np.float32(min_score)) & (stop - first >= min_frames)

    last, first, length, score = last[good], first[good], (stop - first)[good], score[good]
    some = np.flatnonzero(good[tube])
    offset = np.concatenate([[0], np.cumsum(length)])
    index = np.cumsum(good) - 1
    row = (offset[:-1] - first)[index[tube[some]]] + links.start[some]
    means = _frame_means(links.take(some), row, num_frames[some], rows=offset[-1])
    boxes, frame_score, class_scores = means
    return replace(
        like,
        video=video[last].astype(np.int32),
        label=label[last].astype(np.int32),
        score=score,
        offset=offset,
        frame=(np.arange(offset[-1]) - np.repeat(offset[:-1] - first, length)).astype(np.int32),
        boxes=boxes,
        frame_score=frame_score,
        class_scores=class_scores,
    )


def _tubes_of(links: Links) -> tuple[np.ndarray, np.ndarray]:
    """The tube of each link, counted by sequence and number, and the last link of each tube."""
    most = np.zeros(int(links.sequence.max(initial=-1)) + 1, np.int64)
    np.maximum.at(most, links.sequence, links.number + 1)
    tube = (np.cumsum(most) - most)[links.sequence] + links.number
    last = np.zeros(int(most.sum()), np.int64)
    last[tube] = np.arange(len(tube))
    return tube, last


def _frame_means(
    links: Links, first_row: np.ndarray, num_frames: np.ndarray, *, rows: int
) -> list[np.ndarray | None]:
    """Boxes [rows, 4], scores [rows] and scores of all classes [rows, C], float32 or None.

    Means over the links that cover each row; `first_row` [n] is that of a link's first frame.
    """
    K = links.boxes.shape[1]
    sums = [np.zeros((rows, 4)), np.zeros(rows)]
    if links.class_scores is not None:
        sums.append(np.zeros((rows, links.class_scores.shape[1])))
    covering = np.zeros(rows)
    for k in range(K):  # the links of a tube start at different frames: no row occurs twice
        inside = np.flatnonzero(links.start + k < num_frames)
        row = first_row[inside] + k
        covering[row] += 1
        values = (links.boxes[:, k], links.score, links.class_scores)
        for total, value in zip(sums, values, strict=False):
            total[row] += value[inside]
    means = [(total.T / covering).T.astype(np.float32) for total in sums]
    return [*means, None][:3]
