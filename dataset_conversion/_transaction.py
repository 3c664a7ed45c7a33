"""All or nothing: a data set's folders in nnUNet_raw and nnUNet_preprocessed appear together and whole, or not at all.

Work happens in a folder next to each target, WORK_PREFIX + data set, with `new` in it and, while the two are exchanged,
`old`. The order of the renames makes every state that a kill can leave behind readable to the next run: as long as
`new` of nnUNet_raw is there the exchange is not finished and is undone, and afterwards only rubbish is left. A lock
that dies with its process tells a killed run from a running one.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from types import TracebackType
from typing import IO

from ._errors import ConversionError
from ._raw_dataset import NnUNetFolders

WORK_PREFIX = ".nnunetv2_lightm_converting_"


class DatasetTransaction:
    """Context in which a data set is built below `raw` and `preprocessed`; without `commit` nothing stays.

    Raises:
        ConversionError: on entering, if the data set is there already, its id is taken, or another run converts it.
    """

    def __init__(self, folders: NnUNetFolders, dataset: str, *, overwrite: bool) -> None:
        self._folders = folders
        self._dataset = dataset
        self._overwrite = overwrite
        self._pair = _FolderPair(folders.raw, folders.preprocessed, dataset)
        self._made: list[Path] = []
        self._lock: IO[bytes] | None = None

    @property
    def raw(self) -> Path:
        """Becomes the folder in nnUNet_raw."""
        return self._pair.raw_work / "new"

    @property
    def preprocessed(self) -> Path:
        """Becomes the folder in nnUNet_preprocessed, unless it stays empty."""
        return self._pair.preprocessed_work / "new"

    def __enter__(self) -> DatasetTransaction:
        try:
            for folder in (self._folders.raw, self._folders.preprocessed):
                self._made += _make_folders(folder)
            self._settle_killed_runs()
            self._folders.check_free(self._dataset, overwrite=self._overwrite)
            self._pair.raw_work.mkdir(exist_ok=True)
            self._lock = _lock(self._pair)
            # In this order: see _FolderPair.undo.
            self.preprocessed.mkdir(parents=True)
            self.raw.mkdir()
        except BaseException:
            self._close()
            raise
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._close()

    def commit(self) -> None:
        """Put the new folders in the places of the old."""
        try:
            self._pair.exchange()
        except OSError as error:
            raise ConversionError(f"cannot put {self._dataset} in its place: {error}") from error

    def _settle_killed_runs(self) -> None:
        """Undo or finish what killed runs for the same id left behind."""
        prefix = WORK_PREFIX + self._dataset.partition("_")[0]
        for work in sorted(self._folders.raw.glob(f"{prefix}_*")):
            pair = _FolderPair(self._folders.raw, self._folders.preprocessed, work.name.removeprefix(WORK_PREFIX))
            lock = _lock(pair)
            pair.undo()
            pair.clean(lock)

    def _close(self) -> None:
        if self._lock is not None:
            self._pair.undo()
            self._pair.clean(self._lock)
        for folder in reversed(self._made):
            if not any(folder.iterdir()):
                folder.rmdir()


class _FolderPair:
    """A data set's two targets and the two working folders next to them."""

    def __init__(self, raw: Path, preprocessed: Path, dataset: str) -> None:
        self.dataset = dataset
        self.raw_target, self.preprocessed_target = raw / dataset, preprocessed / dataset
        self.raw_work, self.preprocessed_work = raw / (WORK_PREFIX + dataset), preprocessed / (WORK_PREFIX + dataset)

    def exchange(self) -> None:
        """Old out, new in; the last rename decides."""
        if os.path.lexists(self.preprocessed_target):
            self.preprocessed_target.rename(self.preprocessed_work / "old")
        if os.path.lexists(self.raw_target):
            self.raw_target.rename(self.raw_work / "old")
        if any((self.preprocessed_work / "new").iterdir()):
            (self.preprocessed_work / "new").rename(self.preprocessed_target)
        (self.raw_work / "new").rename(self.raw_target)

    def undo(self) -> None:
        """Take back an exchange that was not finished; nothing if it was finished or never begun.

        `new` of the preprocessed folder is made before that of the raw one and leaves only by the exchange: while the
        raw one is there, its absence means that the preprocessed target is the new one.
        """
        if not (self.raw_work / "new").exists():
            return
        if not (self.preprocessed_work / "new").exists() and self.preprocessed_target.exists():
            self.preprocessed_target.rename(self.preprocessed_work / "new")
        if os.path.lexists(self.raw_work / "old"):
            (self.raw_work / "old").rename(self.raw_target)
        if os.path.lexists(self.preprocessed_work / "old"):
            (self.preprocessed_work / "old").rename(self.preprocessed_target)
        # From here on the next run finds nothing to undo, however far the removal comes.
        (self.raw_work / "new").rename(self.raw_work / "rubbish")

    def clean(self, lock: IO[bytes]) -> None:
        """Remove the working folders; the raw one, which holds the lock, last."""
        _remove(self.preprocessed_work)
        for path in self.raw_work.iterdir():
            if path.name != "lock":
                _remove(path)
        lock.close()
        _remove(self.raw_work)


def _make_folders(folder: Path) -> list[Path]:
    """Make a folder and its parents; returns those that were not there, outermost first."""
    missing = [path for path in (folder, *folder.parents) if not path.exists()]
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConversionError(f"cannot make the folder {folder}: {error.strerror}") from error
    return missing[::-1]


def _remove(path: Path) -> None:
    """Remove a file, a folder, or a link but not what it points to."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def _lock(pair: _FolderPair) -> IO[bytes]:
    """Lock the working folder for this process; workers do not inherit it, and a killed process loses it."""
    stream = (pair.raw_work / "lock").open("ab")
    try:
        if os.name == "nt":
            import msvcrt

            msvcrt.locking(stream.fileno(), msvcrt.LK_NBLCK, 1)
        else:
            import fcntl

            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        stream.close()
        raise ConversionError(
            f"cannot lock {pair.raw_work} ({error.strerror}): another conversion of {pair.dataset} seems to be running"
        ) from error
    return stream
