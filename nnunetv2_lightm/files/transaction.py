"""Folders appear together and whole, or not at all, whenever the process is killed.

Work happens in a folder next to each target, WORK_PREFIX + its name, with `new` in it and, while they are exchanged,
`old`. The order of the renames makes every state that a kill can leave behind readable to the next run: as long as
`new` of the first target exists, the exchange is unfinished and is undone; afterwards only rubbish is left. A lock
that dies with its process tells a killed run from a running one. The places of the other targets are written down
next to the lock, because the next run may have other folders.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from types import TracebackType

from ..signals import no_interruption
from .atomic import write_text
from .guard import NotOursError, set_aside
from .locks import FileLock
from .patience import patiently
from .record import Record

WORK_PREFIX = ".nnunetv2_lightm_making_"
TARGETS_FILE, OWNER_FILE, LOCK_FILE = "targets.json", "belongs_to", "lock"


def work_folder(target: Path) -> Path:
    """Where a target is made."""
    return target.with_name(WORK_PREFIX + target.name)


class FolderTransaction:
    """Context in which folders are built; without `commit` nothing of them stays.

    Attributes:
        new: For each target, the folder that becomes it; an empty one does not, except for the first.
        kept: After `commit`, the new places of things in the old folders that were not recorded as made by this
            package: those are never removed.
        committed: Whether the new folders are in place. A failure to remove the old ones then is only a warning, and
            an interruption that comes later has the first target as its ``written``.
    """

    def __init__(
        self,
        targets: Sequence[Path],
        *,
        check: Callable[[], None],
        warn: Callable[[str], None],
        also_settle: Callable[[], Iterable[Path]] = tuple,
    ) -> None:
        """
        Args:
            targets: The first decides.
            check: Called once the remains of killed runs are settled; raises if the targets must not be replaced.
            warn: Called with messages for the user.
            also_settle: Further first targets of killed runs to settle.
        """
        self._work = _Work(targets)
        self._check, self._warn, self._also_settle = check, warn, also_settle
        self._lock: FileLock | None = None
        self._made: list[Path] = []
        self.new = [folder / "new" for folder in self._work.folders]
        self.kept: list[Path] = []
        self.committed = False

    def __enter__(self) -> FolderTransaction:
        """
        Raises:
            LockHeldError: if another process is making the same folders.
            OSError: if a folder cannot be made.
        """
        try:
            for target in self._work.targets:
                self._made += _make_folders(target.parent)
            self._settle_killed_runs()
            self._check()
            first = self._work.folders[0]
            first.mkdir(exist_ok=True)
            lock = FileLock(first / LOCK_FILE, inherited=True)
            lock.acquire(self._warn)
            self._lock = lock
            self._work.begin()
        except BaseException:
            self._close()
            raise
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        try:
            self._close()
        except KeyboardInterrupt as interruption:
            self._say_what_is_written(interruption)
            raise
        self._say_what_is_written(error)

    def commit(self) -> None:
        """Put the new folders in the places of the old ones.

        Raises: OSError: if one cannot be moved; the old ones are then put back.
        """
        try:
            with no_interruption():
                self._work.exchange()
                self.committed = True
        except OSError as error:
            raise OSError(f"cannot put {self._work.targets[0]} in its place: {error.strerror}") from error

    def _settle_killed_runs(self) -> None:
        """Undo or finish what killed runs left behind."""
        for target in dict.fromkeys([self._work.targets[0], *self._also_settle()]):
            if work_folder(target).is_dir():
                _settle(target, self._warn)
        for target in self._work.targets[1:]:
            work = work_folder(target)
            if work.is_dir():
                # From a run with another first target, or one whose first target has been removed.
                owner = _owner(work)
                if owner is not None and (work_folder(owner) / TARGETS_FILE).exists():
                    _settle(owner, self._warn)
                if work.is_dir():
                    _restore_alone(target)

    def _close(self) -> None:
        if self._lock is not None:
            with no_interruption():
                self._work.undo()
                self._clean(self._lock)
            self._lock = None
        for folder in reversed(self._made):
            if folder.is_dir() and not any(folder.iterdir()):
                patiently(folder.rmdir)

    def _clean(self, lock: FileLock) -> None:
        try:
            self.kept += self._work.clean(lock)
        except OSError as error:
            if not self.committed:
                raise
            lock.release()
            rest = ", ".join(str(folder) for folder in self._work.folders if folder.is_dir())
            self._warn(
                f"{self._work.targets[0]} is in its place, but what it replaced could not be removed whole ({error}): "
                f"the rest is in {rest}, until the next run"
            )

    def _say_what_is_written(self, error: BaseException | None) -> None:
        if self.committed and isinstance(error, KeyboardInterrupt):
            error.written = self._work.targets[0]


class _Work:
    """The targets and the working folders next to them."""

    def __init__(self, targets: Sequence[Path]) -> None:
        self.targets = list(targets)
        self.folders = [work_folder(target) for target in targets]

    def begin(self) -> None:
        """Make the working folders, in the order that `undo` relies on."""
        first, *others = self.folders
        write_text(first / TARGETS_FILE, json.dumps([str(target) for target in self.targets]))
        for folder in others:
            folder.mkdir()
            write_text(folder / OWNER_FILE, str(self.targets[0]))
        for folder in (*others, first):
            (folder / "new").mkdir()

    def exchange(self) -> None:
        """Old out, new in; the last rename decides."""
        pairs = list(zip(self.targets, self.folders))[::-1]
        for target, folder in pairs:
            if os.path.lexists(target):
                patiently(target.rename, folder / "old")
        for target, folder in pairs:
            if target is self.targets[0] or any((folder / "new").iterdir()):
                patiently((folder / "new").rename, target)

    def undo(self) -> None:
        """Take back an unfinished exchange; do nothing if it was finished or never begun.

        `new` of the other folders is made before that of the first one and leaves only by the exchange: while the first
        one's is there, the absence of another's means that its target is the new one.
        """
        first = self.folders[0]
        if not (first / "new").exists():
            return
        for target, folder in list(zip(self.targets, self.folders))[1:]:
            if folder.is_dir() and not (folder / "new").exists() and target.exists():
                patiently(target.rename, folder / "new")
        for target, folder in zip(self.targets, self.folders):
            if os.path.lexists(folder / "old"):
                patiently((folder / "old").rename, target)
        # From here on the next run finds nothing to undo, however far the removal gets.
        patiently((first / "new").rename, first / "rubbish")

    def clean(self, lock: FileLock) -> list[Path]:
        """Remove the working folders; the first one, which holds the lock, last. Returns what was kept of the old."""
        kept = []
        for target, folder in list(zip(self.targets, self.folders))[::-1]:
            if os.path.lexists(folder / "old"):
                kept += _dispose(folder / "old", target)
            for name in ("new", "rubbish"):
                _remove_made(folder / name)
        for folder in self.folders[1:]:
            _remove_empty(folder, OWNER_FILE)
        patiently((self.folders[0] / TARGETS_FILE).unlink, missing_ok=True)
        lock.remove()
        _remove_empty(self.folders[0])
        return kept


def _settle(first_target: Path, warn: Callable[[str], None]) -> None:
    """Settle what a killed run left in the working folder of its first target, and in those of the others.

    Raises: LockHeldError: if that run is still at work.
    """
    folder = work_folder(first_target)
    lock = FileLock(folder / LOCK_FILE, inherited=True)
    lock.acquire(warn)
    targets = [first_target]
    file = folder / TARGETS_FILE
    if file.exists():  # written before anything else is begun
        for target in map(Path, json.loads(file.read_text(encoding="utf-8"))[1:]):
            work = work_folder(target)
            if not target.parent.is_dir():
                warn(
                    f"a run that was killed worked in {target.parent}, too, which is not there now. When it is there "
                    f"again, remove {work}"
                )
            elif work.is_dir() and _owner(work) == first_target:
                targets.append(target)
    killed = _Work(targets)
    killed.undo()
    killed.clean(lock)


def _restore_alone(target: Path) -> None:
    """Settle what is left in a working folder whose first target is no longer known."""
    folder = work_folder(target)
    if os.path.lexists(folder / "old"):
        if os.path.lexists(target):
            _dispose(folder / "old", target)
        else:
            patiently((folder / "old").rename, target)
    _remove_made(folder / "new")
    _remove_empty(folder, OWNER_FILE)


def _owner(work: Path) -> Path | None:
    """The first target of the run that made a working folder; None if it was killed before it wrote that down."""
    try:
        return Path((work / OWNER_FILE).read_text(encoding="utf-8"))
    except FileNotFoundError:
        if not any(work.iterdir()):
            return None
        raise NotOursError(f"{work} is in the way, and does not say what made it: move it away") from None


def _dispose(old: Path, target: Path) -> list[Path]:
    """Remove what is recorded as made by this package, and move the rest next to the target. Returns where."""
    rest: Path | None = old
    if not old.is_symlink() and old.is_dir():
        record = Record.read(old) or Record(old)
        if not record.not_ours():
            rest = record.remove(old)
    return [] if rest is None else [set_aside(rest, target.with_name(f"replaced_{target.name}"))]


def _remove_made(folder: Path) -> None:
    """Remove a folder that was made in a working folder and never appeared outside it."""
    if folder.is_dir():
        patiently(shutil.rmtree, folder)


def _remove_empty(folder: Path, *signatures: str) -> None:
    for name in signatures:
        patiently((folder / name).unlink, missing_ok=True)
    if folder.is_dir() and not any(folder.iterdir()):
        patiently(folder.rmdir)


def _make_folders(folder: Path) -> list[Path]:
    """Make a folder and its parents; returns those that were not there, outermost first."""
    missing = [path for path in (folder, *folder.parents) if not path.exists()]
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OSError(f"cannot make the folder {folder}: {error.strerror}") from error
    return missing[::-1]
