"""One evaluation of a checkpoint as shares of its windows, by several jobs or processes.

They work in any order and at any time, and may be killed and started again at any moment. In the
folder of the evaluation there is, until the shares are merged,

    shards/evaluation.json            what is evaluated; a job that wants another ends with an error
    shards/I-of-N/detections.parquet  and tubelets.parquet where they are wanted
    shards/I-of-N/share.json          written last: the share is complete
    shards/merging-*-of-N/            the results, which become the evaluation's one by one

Whoever finds all shares complete merges them. Nothing appears half written, and what is written
twice is the same both times, so that jobs that do the same do no harm. In an object store, whose
objects appear as completely, `merging-*` is on the local disk.
"""

from __future__ import annotations

import contextlib
import dataclasses
import fcntl
import json
import pathlib
import re
from collections.abc import Hashable, Iterable, Iterator, Mapping
from typing import Any

from etils import epath

from step_jax import evaluations
from step_jax.detections import merge_detections
from step_jax.errors import InputError
from step_jax.files import not_written, write_json
from step_jax.storage import (
    as_path,
    folder_beside,
    is_remote,
    local_copy,
    make_folder,
    publish,
    remove_tree,
    stamp,
)
from step_jax.tubelet_writer import merge_tubelets

FOLDER = "shards"
TABLE = "detections.parquet"
TUBELETS = "tubelets.parquet"
_SHARE = "share.json"
_EVALUATION = "evaluation.json"
_LOCK = ".lock"


@dataclasses.dataclass(frozen=True)
class Share:
    """One of `count` shares of the windows; `number` counts from 1."""

    number: int = 1
    count: int = 1

    @classmethod
    def parse(cls, text: str) -> Share:
        """Of "I/N". Raises InputError for anything else."""
        found = re.fullmatch(r"([0-9]+)/([0-9]+)", text)
        share = cls(*map(int, found.groups())) if found else None
        if share is None or not 1 <= share.number <= share.count:
            raise InputError(f"--shard {text!r}: expected I/N with 1 <= I <= N, such as 1/8")
        return share

    def __str__(self) -> str:
        return f"{self.number}/{self.count}"


WHOLE = Share()


class Shards:
    """The shares of one evaluation.

    Args:
      folder: of the evaluation, see `evaluations.folder`; it is made.
      count: of the shares.
      identity: what the result depends on, by key, JSON-ready; see `digests` for large things.
    """

    def __init__(self, folder: epath.PathLike, *, count: int, identity: Mapping[str, Any]):
        self.folder = as_path(folder)
        self.count = count
        self.identity = json.loads(json.dumps(identity))  # tuples become lists, as on disk
        self._folder = self.folder / FOLDER
        try:
            make_folder(self.folder)
        except OSError as error:
            raise not_written(self.folder, error) from error
        self._metrics_before = self._stamp()

    def join(self) -> None:
        """To be called before the work on a share, by jobs that know nothing of one another.

        Raises InputError where the folder's shares, or its result, are of another evaluation.
        """
        result = _read(self.folder / evaluations.METRICS)
        if result is not None:
            _check_same(result.get("identity", {}), self.identity, self.folder)
            remove_leftovers(self.folder)
        elif _read_shared(self.folder, count=self.count, identity=self.identity) is None:
            told = {"count": self.count, "identity": self.identity}
            write_json(self._folder / _EVALUATION, told)

    @contextlib.contextmanager
    def work(self, share: Share) -> Iterator[pathlib.Path | epath.Path]:
        """Yields the folder for a share's tables; it does not count as complete until `finish`."""
        folder = self._folder_of(share.number)
        try:
            make_folder(folder)
            (folder / _SHARE).unlink(missing_ok=True)
        except OSError as error:
            raise not_written(folder, error) from error
        try:
            yield folder
        except BaseException:
            with contextlib.suppress(OSError, ValueError):  # not empty: somebody works there
                folder.rmdir()
                self._folder.rmdir()
            raise

    def finish(self, share: Share, told: Mapping[str, Any]) -> None:
        """The share is complete; `told` is what the merging wants to know of it, JSON-ready."""
        write_json(self._folder_of(share.number) / _SHARE, {**told, "identity": self.identity})

    def is_complete(self, share: Share) -> bool:
        return (self._folder_of(share.number) / _SHARE).exists()

    def missing(self) -> list[int]:
        """The shares that are not complete, by number."""
        numbers = range(1, self.count + 1)
        return [number for number in numbers if not self.is_complete(Share(number, self.count))]

    def result(self) -> dict[str, Any] | None:
        """The metrics of this evaluation, if it is complete."""
        metrics = _read(self.folder / evaluations.METRICS)
        return metrics if metrics and metrics.get("identity") == self.identity else None

    def told(self) -> list[dict[str, Any]]:
        """What `finish` was told of each share. Raises InputError where one is missing or other."""
        found = []
        for number in range(1, self.count + 1):
            path = self._folder_of(number) / _SHARE
            told = _read(path)
            if told is None:
                raise InputError(f"{path}: missing; evaluate that share first")
            _check_same(told.pop("identity"), self.identity, path.parent)
            found.append(told)
        return found

    @contextlib.contextmanager
    def unless_merged(self) -> Iterator[None]:
        """Around work on the shares: where another job took them away no error is one.

        It has come to the result meanwhile.
        """
        try:
            yield
        except (InputError, OSError):
            if self._stamp() == self._metrics_before or self.result() is None:
                raise

    @contextlib.contextmanager
    def merging(self) -> Iterator[pathlib.Path]:
        """Yields a local folder with the merged tables, for everything that is made of them.

        When the block ends without an error all files of that folder are the evaluation's, the
        metrics last, and the shares are gone. Others wait meanwhile; they find the shares gone
        when their turn comes.

        Raises InputError where a share is missing or of another evaluation.
        """
        with _alone(self._folder / _LOCK):
            self.told()
            suffix = f"-of-{self.count}"
            with folder_beside(self._folder / _LOCK, prefix="merging-", suffix=suffix) as folder:
                self._merge_tables(folder)
                yield folder
                names = sorted(path.name for path in folder.iterdir())
                for name in sorted(names, key=lambda name: name == evaluations.METRICS):
                    publish(folder / name, self.folder / name)
            self._remove()

    def _stamp(self) -> Hashable | None:
        """What tells one version of the metrics from another."""
        return stamp(self.folder / evaluations.METRICS)

    def _merge_tables(self, output: pathlib.Path) -> None:
        folders = [self._folder_of(number) for number in range(1, self.count + 1)]
        with _local_copies(folder / TABLE for folder in folders) as tables:
            merge_detections(tables, output / TABLE)
        # A share without a window has none: how many boxes a tubelet has was not known there.
        tubelets = [folder / TUBELETS for folder in folders if (folder / TUBELETS).exists()]
        if tubelets:
            with _local_copies(tubelets) as tables:
                merge_tubelets(tables, output / TUBELETS)

    def _remove(self) -> None:
        """The shares; those of another number, which somebody else works at, stay."""
        for path in self._folder.glob(f"*-of-{self.count}"):
            remove_tree(path)
        if not any(self._folder.glob("*-of-*")):
            remove_tree(self._folder)

    def _folder_of(self, number: int) -> pathlib.Path | epath.Path:
        return self._folder / f"{number}-of-{self.count}"


def is_evaluated(folder: epath.PathLike, *, identity: Mapping[str, Any]) -> bool:
    """Whether the result of an evaluation is in a folder.

    `identity` may lack the checkpoint and its parameters. Raises InputError where the result is of
    another evaluation; those from before results told it count.
    """
    result = _read(as_path(folder) / evaluations.METRICS)
    if result is not None and "identity" in result:
        _check_same(result["identity"], identity, folder)
    return result is not None


def is_share_complete(folder: epath.PathLike, *, share: Share, identity: Mapping[str, Any]) -> bool:
    """Whether a share of the evaluation in a folder is, merged or not.

    `identity` may lack the checkpoint and its parameters. Raises InputError for shares of another
    evaluation.
    """
    told = _read_shared(folder, count=share.count, identity=identity)
    return told is not None and Shards(folder, **told).is_complete(share)


def complete_shards(
    folder: epath.PathLike, *, share: Share, identity: Mapping[str, Any]
) -> Iterator[Shards]:
    """The evaluations in a folder of them whose shares are all complete, and not merged yet.

    The job that was to merge them was killed, or is at it. Raises InputError as
    `is_share_complete`.
    """
    for path in sorted(as_path(folder).glob(f"*/{FOLDER}/{_EVALUATION}")):
        remove_leftovers(path.parent.parent)
        told = _read_shared(path.parent.parent, count=share.count, identity=identity)
        if told is not None:
            shards = Shards(path.parent.parent, **told)
            if not shards.missing():
                yield shards


def remove_leftovers(folder: epath.PathLike) -> None:
    """Of a job that was killed when all was done but this."""
    folder = as_path(folder)
    shared, result = _read(folder / FOLDER / _EVALUATION), _read(folder / evaluations.METRICS)
    if shared and result and shared["identity"] == result.get("identity"):
        remove_tree(folder / FOLDER)


def _read(path: pathlib.Path | epath.Path) -> dict[str, Any] | None:
    """A JSON file, None where there is none."""
    try:
        return json.loads(path.read_text())
    except FileNotFoundError:
        return None
    except ValueError as error:
        raise InputError(f"{path}: not JSON ({error}); delete {path.parent}") from error


def _read_shared(
    folder: epath.PathLike, *, count: int, identity: Mapping[str, Any]
) -> dict[str, Any] | None:
    """The count and identity of a folder's shares, None where there are none.

    Raises InputError where they are of another number or evaluation.
    """
    folder = as_path(folder) / FOLDER
    told = _read(folder / _EVALUATION)
    if told is None:
        return None
    if told["count"] != count:
        raise InputError(
            f"{folder}: holds shares of {told['count']}, this is one of {count}; give all jobs "
            "the same N, or delete that folder to begin again"
        )
    _check_same(told["identity"], identity, folder)
    return told


def _check_same(found: Mapping[str, Any], wanted: Mapping[str, Any], where: epath.PathLike) -> None:
    """Raises InputError for identities that differ, but in what `wanted` does not know yet."""
    if not found:
        raise InputError(
            f"{where}: does not say of which evaluation it is; delete that folder to begin again"
        )
    wanted = json.loads(json.dumps(wanted))
    keys = found.keys() | wanted.keys()
    unknown = {key for key in ("checkpoint", "parameters") if key not in wanted}
    different = [
        f"{key} was {found.get(key, 'absent')}, is {wanted.get(key, 'absent')}"
        for key in sorted(keys - unknown)
        if key not in found or key not in wanted or found[key] != wanted[key]
    ]
    if different:
        raise InputError(
            f"{where}: of another evaluation ({'; '.join(different)}); give all jobs the same "
            "configuration, or delete that folder to begin again"
        )


@contextlib.contextmanager
def _local_copies(paths: Iterable[epath.PathLike]) -> Iterator[list[pathlib.Path]]:
    with contextlib.ExitStack() as stack:
        yield [stack.enter_context(local_copy(path)) for path in paths]


@contextlib.contextmanager
def _alone(lock: pathlib.Path | epath.Path) -> Iterator[None]:
    """Waits for others. Where there are no locks both do the same work, to no harm."""
    if is_remote(lock):
        yield
        return
    with open(lock, "w") as file:
        with contextlib.suppress(OSError):
            fcntl.flock(file, fcntl.LOCK_EX)
        yield
