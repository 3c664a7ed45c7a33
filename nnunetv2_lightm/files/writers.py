"""Whether another process is writing a file right now."""

from __future__ import annotations

import os
import time
from pathlib import Path

FRESH_SECONDS = 30.0
WATCH_SECONDS = 2.0
PROCESSES = Path("/proc")


def is_being_written(path: Path) -> bool:
    """Whether a process has the file open for writing, as far as the system tells, or the file changes while watched.

    Only a file that was changed recently is watched, for two seconds: only Linux tells who has a file open, and only
    for processes on this machine.
    """
    if _is_open_for_writing(path):
        return True
    before = path.stat()
    if time.time() - before.st_mtime > FRESH_SECONDS:
        return False
    end = time.monotonic() + WATCH_SECONDS
    while time.monotonic() < end:
        time.sleep(0.1)
        now = path.stat()
        if (now.st_size, now.st_mtime_ns) != (before.st_size, before.st_mtime_ns):
            return True
    return False


def _is_open_for_writing(path: Path) -> bool:
    wanted = path.stat()
    for descriptor in PROCESSES.glob("[0-9]*/fd/*"):
        try:
            if not os.path.samestat(descriptor.stat(), wanted):
                continue
            text = (descriptor.parent.parent / "fdinfo" / descriptor.name).read_text()
        except OSError:  # it has ended or been closed meanwhile, or is another user's
            continue
        flags = next((line.split()[1] for line in text.splitlines() if line.startswith("flags:")), "0")
        if int(flags, 8) & os.O_ACCMODE != os.O_RDONLY:
            return True
    return False
