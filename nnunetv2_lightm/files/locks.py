"""One process at a time: a lock that the operating system gives back when its holder ends, however that ends."""

from __future__ import annotations

import contextlib
import errno
import os
import re
import socket
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import IO

from .patience import patiently

# How systems say that another process has the lock, and that the file system has none to give.
HELD = {errno.EACCES, errno.EAGAIN, errno.EDEADLK}
UNSUPPORTED = {errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOTSUP, errno.EINVAL}


class LockHeldError(OSError):
    """Another process has the lock.

    Attributes:
        holder: What it wrote of itself into the file, such as ``process 4711 on host since 2026-11-27 12:00:00``.
    """

    def __init__(self, path: Path, holder: str) -> None:
        super().__init__(f"{path} is locked by {holder}")
        self.holder = holder


class FileLock:
    """The lock of a file. The file stays behind and locks nothing by being there.

    Between hosts it holds where the network file system passes locks on: NFS does unless it is mounted with `nolock` or
    `local_lock`.
    """

    def __init__(self, path: Path, *, inherited: bool) -> None:
        """
        Args:
            path: The file; made if it is not there.
            inherited: Whether processes that get the open file hold the lock too, and so tell of a command that has
                outlived the one that started it. If not, it belongs to this process alone, and not to those it forks.
        """
        self.path = path
        self._inherited = inherited
        self._stream: IO[str] | None = None

    def acquire(self, warn: Callable[[str], None]) -> None:
        """Take the lock and write this process's name into the file.

        Args:
            warn: Told where the file system knows no locks; everything goes on unguarded then.
        Raises:
            LockHeldError: at once, if another process has it.
            OSError: if the file cannot be opened.
        """
        while True:
            # Not truncated on opening: the name of another holder is in it.
            stream = self.path.open("a+", encoding="utf-8")
            try:
                self._lock(stream, warn)
            except BaseException:
                stream.close()
                raise
            if _is_at(stream, self.path):
                break
            stream.close()  # it was removed by its last holder meanwhile
        self._stream = stream
        self.name_holder(f"process {os.getpid()}")

    def _lock(self, stream: IO[str], warn: Callable[[str], None]) -> None:
        stream.seek(0)
        holder = stream.read().strip()
        try:
            (_lock_open_file if self._inherited else _lock_for_process)(stream)
        except OSError as error:
            if error.errno in HELD:
                raise LockHeldError(self.path, holder or "a process that has not said its name") from error
            if error.errno not in UNSUPPORTED:
                raise
            if _is_alive(holder):
                raise LockHeldError(
                    self.path,
                    f"{holder} (by its name alone, as the file system knows no locks: if that process is "
                    f"another one by now, remove {self.path})",
                ) from error
            warn(
                f"{self.path} cannot be locked: the file system knows no locks ({error.strerror}). Going on without: "
                f"see to it yourself that nothing else works in {self.path.parent}"
            )

    def name_holder(self, who: str) -> None:
        """Write into the file who is at work."""
        self._stream.truncate(0)
        self._stream.write(f"{who} on {socket.gethostname()} since {datetime.now():%Y-%m-%d %H:%M:%S}\n")
        self._stream.flush()

    def fileno(self) -> int:
        """Descriptor of the open file, for a process that should inherit it."""
        return self._stream.fileno()

    def release(self) -> None:
        """Give the lock back, if it is held."""
        if self._stream is not None:
            with self._stream:
                self._stream.truncate(0)
            self._stream = None

    def remove(self) -> None:
        """Give the lock back and remove its file."""
        if os.name == "nt":  # where an open file cannot be removed
            self.release()
            with contextlib.suppress(PermissionError):  # another process has taken the lock in between
                patiently(self.path.unlink, missing_ok=True)
        else:
            patiently(self.path.unlink, missing_ok=True)
            self.release()


def _is_at(stream: IO[str], path: Path) -> bool:
    """Whether the open file is still the one at that path."""
    try:
        return os.path.samestat(os.fstat(stream.fileno()), os.stat(path))
    except FileNotFoundError:
        return False


def _is_alive(holder: str) -> bool:
    """Whether a holder's name is that of another process of this machine that lives."""
    match = re.match(r"process (\d+) on (\S+) since", holder)
    # On Windows there is no harmless signal, and every file system knows locks.
    if os.name == "nt" or match is None or match[2] != socket.gethostname() or int(match[1]) == os.getpid():
        return False
    try:
        os.kill(int(match[1]), 0)
    except PermissionError:
        return True
    except OSError:
        return False
    return True


if os.name == "nt":
    import msvcrt

    def _lock_open_file(stream: IO[str]) -> None:
        # A byte far behind the name: on Windows nobody can read what is locked.
        stream.seek(1 << 30)
        msvcrt.locking(stream.fileno(), msvcrt.LK_NBLCK, 1)

    _lock_for_process = _lock_open_file

else:
    import fcntl

    def _lock_open_file(stream: IO[str]) -> None:
        fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)

    def _lock_for_process(stream: IO[str]) -> None:
        # POSIX record locks, unlike flock's, are not inherited by forked processes.
        fcntl.lockf(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
