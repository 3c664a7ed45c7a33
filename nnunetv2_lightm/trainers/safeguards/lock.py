"""One training of a fold at a time: a lock in its folder that ends with the process that holds it."""

from __future__ import annotations

import errno
import os
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import IO

LOCK_FILE = ".training.lock"
# How systems say that another process has the lock, and that the file system has none to give.
HELD = {errno.EACCES, errno.EAGAIN, errno.EDEADLK}
UNSUPPORTED = {errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP}


class FoldIsBeingTrainedError(RuntimeError):
    """Another process trains the fold; the message names it."""


@contextmanager
def fold_lock(folder: str | Path, log: Callable[[str], None]) -> Iterator[None]:
    """Hold the lock of a fold's folder.

    The operating system gives it back when the process ends, however it ends: the file that stays behind locks
    nothing. It belongs to this process alone, not to the augmentation workers that it forks, which may outlive it.
    On NFS it holds between hosts where the server supports locks.

    Args:
        folder: Of the fold, where the checkpoints are.
        log: Told when the file system knows no locks; the training goes on then.

    Raises: FoldIsBeingTrainedError: at once, if another process holds it.
    """
    file = Path(folder, LOCK_FILE)
    # Not truncated on opening: the other process's name is in it.
    with file.open("a+", encoding="utf-8") as stream:
        try:
            _lock(stream)
        except OSError as error:
            if error.errno in HELD:
                stream.seek(0)
                holder = stream.read().strip() or "a process that has not said its name"
                raise FoldIsBeingTrainedError(
                    f"{folder} is being trained by {holder}: a second training would overwrite its checkpoints. Wait "
                    f"for it or end it. Nothing was changed. The lock, {file}, ends with that process"
                ) from error
            if error.errno not in UNSUPPORTED:
                raise
            log(f"{file} cannot be locked ({error.strerror}): mind that no second training of this fold is started")
        stream.truncate(0)
        stream.write(f"process {os.getpid()} on {socket.gethostname()} since {datetime.now():%Y-%m-%d %H:%M:%S}\n")
        stream.flush()
        try:
            yield
        finally:
            stream.truncate(0)


if os.name == "nt":
    import msvcrt

    def _lock(stream: IO[str]) -> None:
        # A byte far behind the name: on Windows nobody can read what is locked.
        stream.seek(1 << 30)
        msvcrt.locking(stream.fileno(), msvcrt.LK_NBLCK, 1)

else:
    import fcntl

    def _lock(stream: IO[str]) -> None:
        # POSIX record locks, unlike flock's, are not inherited by forked processes.
        fcntl.lockf(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
