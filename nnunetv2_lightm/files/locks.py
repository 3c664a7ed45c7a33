"""One process at a time: a lock that the operating system releases when its holder ends, however it ends."""

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

# Errors that mean: another process has the lock; the file system does not support locks.
HELD = {errno.EACCES, errno.EAGAIN, errno.EDEADLK}
UNSUPPORTED = {errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOTSUP, errno.EINVAL}


class LockHeldError(OSError):
    """Another process has the lock.

    Attributes:
        holder: What it wrote about itself into the file: ``process 4711 on host since 2026-11-27 12:00:00``.
    """

    def __init__(self, path: Path, holder: str) -> None:
        super().__init__(f"{path} is locked by {holder}")
        self.holder = holder


class FileLock:
    """A lock on a file. The file stays behind; its existence alone locks nothing.

    It also holds between hosts if the network file system forwards locks: NFS does unless it is mounted with `nolock`
    or `local_lock`.
    """

    def __init__(self, path: Path, *, inherited: bool) -> None:
        """
        Args:
            path: The file; created if necessary.
            inherited: Whether processes that inherit the open file hold the lock too, which reveals a command that has
                outlived the one that started it. If not, it belongs to this process alone, not to its forks.
        """
        self.path = path
        self._inherited = inherited
        self._stream: IO[str] | None = None

    def acquire(self, warn: Callable[[str], None]) -> None:
        """Take the lock and write this process's name into the file.

        Args:
            warn: Called with a message if the file system does not support locks; work then continues unguarded.
        Raises:
            LockHeldError: at once, if another process holds it.
            OSError: if the file cannot be opened.
        """
        while True:
            # Do not truncate on opening: another holder's name may be in it.
            stream = self.path.open("a+", encoding="utf-8")
            try:
                self._lock(stream, warn)
            except BaseException:
                stream.close()
                raise
            if _is_at(stream, self.path):
                break
            stream.close()  # its last holder has removed it meanwhile
        self._stream = stream
        self.name_holder(f"process {os.getpid()}")

    def _lock(self, stream: IO[str], warn: Callable[[str], None]) -> None:
        stream.seek(0)
        holder = stream.read().strip()
        try:
            (_lock_open_file if self._inherited else _lock_for_process)(stream)
        except OSError as error:
            if error.errno in HELD:
                raise LockHeldError(self.path, holder or "a process that has not written its name") from error
            if error.errno not in UNSUPPORTED:
                raise
            if _is_alive(holder):
                raise LockHeldError(
                    self.path,
                    f"{holder} (judged by its name alone, as the file system does not support locks: if that is a "
                    f"different process by now, remove {self.path})",
                ) from error
            warn(
                f"{self.path} cannot be locked: the file system does not support locks ({error.strerror}). Continuing "
                f"without a lock: make sure that nothing else works in {self.path.parent}"
            )

    def name_holder(self, who: str) -> None:
        """Write the holder's name into the file."""
        self._stream.truncate(0)
        self._stream.write(f"{who} on {socket.gethostname()} since {datetime.now():%Y-%m-%d %H:%M:%S}\n")
        self._stream.flush()

    def fileno(self) -> int:
        """Descriptor of the open file, for a process that should inherit it."""
        return self._stream.fileno()

    def release(self) -> None:
        """Release the lock, if it is held."""
        if self._stream is not None:
            with self._stream:
                self._stream.truncate(0)
            self._stream = None

    def remove(self) -> None:
        """Release the lock and remove its file."""
        if os.name == "nt":  # which cannot remove an open file
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
    """Whether a holder's name is that of another living process on this machine."""
    match = re.match(r"process (\d+) on (\S+) since", holder)
    # Windows has no harmless signal, and there every file system supports locks.
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
