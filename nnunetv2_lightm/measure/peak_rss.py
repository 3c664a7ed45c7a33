"""Transient memory: what a piece of work needs while it runs, on top of what the process already holds."""

from __future__ import annotations

import ctypes
import os
import platform
from collections.abc import Callable
from pathlib import Path

CLEAR_REFS, RESET_PEAK = Path("/proc/self/clear_refs"), "5"


def transient_mib(run: Callable[[], object]) -> float:
    """Peak RSS of this process while it runs minus RSS before, in MiB.

    Warm up first; otherwise what is loaded once and kept counts too.

    Raises: OSError: where :func:`not_measurable_reason` gives a reason.
    """
    _give_back_freed_memory()
    CLEAR_REFS.write_text(RESET_PEAK)
    before = _status_mib("VmRSS")
    run()
    return _status_mib("VmHWM") - before


def not_measurable_reason() -> str | None:
    """Why the kernel cannot tell the peak; None: it can."""
    if not os.access(CLEAR_REFS, os.W_OK):
        return f"needs Linux and a writable {CLEAR_REFS}"
    return None


def _give_back_freed_memory() -> None:
    """Return freed memory to the system: what the warm-up freed would be reused unseen."""
    if platform.libc_ver()[0] == "glibc":
        ctypes.CDLL(None).malloc_trim(0)


def _status_mib(key: str) -> float:
    """A line of /proc/self/status, which is in KiB."""
    lines = Path("/proc/self/status").read_text().splitlines()
    (value,) = (line.split()[1] for line in lines if line.startswith(f"{key}:"))
    return int(value) / 1024
