"""Checkpoints in an object store: orbax writes and reads them on a local disk, they travel whole.

Orbax 0.12.8 writes into gs:// itself, but not into s3://, and with credentials of its own. This way
all stores are alike, and a checkpoint that is there is complete:

    CHECKPOINTS/STEP/...            the files that orbax wrote
    CHECKPOINTS/STEP/complete.json  uploaded last and removed first: which files these are

On the local disk, in `TMPDIR`, is one checkpoint at a time.
"""

from __future__ import annotations

import json
import tempfile
import uuid
from collections.abc import Callable, Collection, Hashable, Sequence
from typing import Any

import orbax.checkpoint as ocp
from etils import epath

from step_jax.files import write_json
from step_jax.storage import download, move_folder, read_text, remove_tree, stamp, upload

COMPLETE = "complete.json"
_INCOMING = "incoming"


class RemoteManager:
    """What `step_jax.checkpoint` needs of orbax's CheckpointManager, of an object store's folder.

    Args:
      folder: of the checkpoints.
      open_manager: opens orbax's own of a local folder.
      kept: of all steps, in ascending order, those whose checkpoints are not removed.
      read_only: nothing is uploaded or removed. Otherwise what is incomplete is, at once: only one
        may write, and there is no lock that could see to it.
    """

    def __init__(
        self,
        folder: epath.Path,
        *,
        open_manager: Callable[[epath.Path], ocp.CheckpointManager],
        kept: Callable[[Sequence[int]], Collection[int | None]],
        read_only: bool,
    ):
        self._folder, self._kept = folder, kept
        self._temporary = tempfile.TemporaryDirectory(prefix="step_jax.")
        self._local = epath.Path(self._temporary.name)
        self._manager = open_manager(self._local)
        self._saved: int | None = None
        self._fetched: tuple[int, str] | None = None
        if not read_only:
            self._remove_incomplete()

    def reload(self) -> None:
        """The store is asked every time."""

    def all_steps(self) -> list[int]:
        names = [path.parent.name for path in self._folder.glob(f"*/{COMPLETE}")]
        return sorted(int(name) for name in names if name.isdigit())

    def written(self, step: int) -> Hashable | None:
        return stamp(self._of(step) / COMPLETE)

    def save(self, step: int, *, args: Any) -> bool:
        """Starts writing; False where a checkpoint of that or of a later step is there already."""
        if step <= max(self.all_steps(), default=-1):
            return False
        self._clear()
        self._saved = step
        return self._manager.save(step, args=args)

    def wait_until_finished(self) -> None:
        """Until what is saved is uploaded and what is not kept removed. Raises OSError."""
        self._manager.wait_until_finished()
        if self._saved is None:
            return
        self._upload(self._saved)
        self._saved = None
        self._clear()
        steps = self.all_steps()
        for step in set(steps) - set(self._kept(steps)):
            self._remove(step)

    def restore(self, step: int, *, args: Any) -> Any:
        self._fetch(step)
        return self._manager.restore(step, args=args)

    def item_metadata(self, step: int) -> Any:
        self._fetch(step)
        return self._manager.item_metadata(step)

    def move(self, step: int, target: epath.Path) -> None:
        """Out of the way. From the first moment on it is no checkpoint any more."""
        (self._of(step) / COMPLETE).unlink()
        move_folder(self._of(step), target)

    def close(self) -> None:
        self._manager.close()
        self._temporary.cleanup()

    def _of(self, step: int) -> epath.Path:
        return self._folder / str(step)

    def _upload(self, step: int) -> None:
        target, source = self._of(step), self._local / str(step)
        remove_tree(target)  # what an upload that was killed has left
        paths = [epath.Path(root) / name for root, _, names in source.walk() for name in names]
        files = {path: path.relative_to(source).as_posix() for path in sorted(paths)}
        upload({path: target / name for path, name in files.items()})
        told = {"id": uuid.uuid4().hex, "files": list(files.values())}
        write_json(target / COMPLETE, told)

    def _fetch(self, step: int) -> None:
        """Raises FileNotFoundError where a file is missing, OSError where the store fails."""
        told = json.loads(read_text(self._of(step) / COMPLETE))
        if self._fetched == (step, told["id"]):
            return
        self._clear()
        incoming = self._local / _INCOMING
        download({self._of(step) / name: incoming / name for name in told["files"]})
        incoming.rename(self._local / str(step))
        self._manager.reload()
        self._fetched = step, told["id"]

    def _clear(self) -> None:
        """Removes the local copy of whatever checkpoint there is."""
        self._fetched = None
        for path in self._local.iterdir():
            remove_tree(path)
        self._manager.reload()

    def _remove(self, step: int) -> None:
        (self._of(step) / COMPLETE).unlink(missing_ok=True)
        remove_tree(self._of(step))

    def _remove_incomplete(self) -> None:
        if not self._folder.exists():
            return
        names = {path.name for path in self._folder.iterdir() if path.name.isdigit()}
        for name in names - set(map(str, self.all_steps())):
            remove_tree(self._folder / name)
