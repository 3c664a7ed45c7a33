"""What a process may use of its machine: processors and memory, or less where a Linux control group says so."""

from __future__ import annotations

import os
from pathlib import Path

_GROUP = Path("/sys/fs/cgroup")


def usable_cpus() -> int:
    """Processors this process may use: its affinity, and the quota of its control group."""
    affinity = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    limit, _, period = (_read("cpu.max") or "max").partition(" ")
    return affinity if limit == "max" else min(affinity, max(1, round(int(limit) / int(period))))


def memory_gib() -> float | None:
    """Memory this process may use; None: not known."""
    try:
        total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError):
        return None
    limit = _memory_limit_bytes()
    return (total if limit is None else min(total, limit)) / 2**30


def free_memory_bytes() -> int | None:
    """Memory this process may still take; None: not known, as on other systems than Linux."""
    bounds = []
    meminfo = Path("/proc/meminfo")
    for line in meminfo.read_text(encoding="ascii").splitlines() if meminfo.exists() else ():
        if line.startswith("MemAvailable:"):
            bounds.append(int(line.split()[1]) * 1024)
    limit, current, stat = _memory_limit_bytes(), _read("memory.current"), _read("memory.stat")
    if limit is not None and current is not None and stat is not None:
        # The group's file cache is released on demand.
        usage = dict(line.split() for line in stat.splitlines())
        bounds.append(limit - int(current) + int(usage["inactive_file"]))
    return max(0, min(bounds)) if bounds else None


def _memory_limit_bytes() -> int | None:
    """The control group's; None: there is none."""
    limit = _read("memory.max")
    return None if limit in (None, "max") else int(limit)


def _read(name: str) -> str | None:
    """A file of the control group; None: there is none, or it is not ours to read."""
    try:
        return (_GROUP / name).read_text(encoding="ascii").strip()
    except (FileNotFoundError, PermissionError):
        return None
