"""The machine a measurement was made on."""

from __future__ import annotations

import importlib.metadata
import os
import platform
from pathlib import Path

from ..limits import memory_gib

PACKAGES = ("nnunetv2", "nnunetv2-lightm", "torch", "numpy")


def machine(*more_packages: str) -> dict[str, str]:
    """Processor, memory, system and versions; packages that are missing are listed as such."""
    memory = memory_gib()
    return {
        "processor": processor(),
        "memory": "not known" if memory is None else f"{memory:.1f} GiB",
        "system": system(),
        "python": platform.python_version(),
        **{name: version(name) for name in (*PACKAGES, *more_packages)},
    }


def system() -> str:
    """Name and version, without what marks one build of a kernel: "Linux 6.18, x86_64, glibc 2.36"."""
    release = ".".join(platform.release().split(".")[:2])
    parts = (f"{platform.system()} {release}", platform.machine(), " ".join(platform.libc_ver()))
    return ", ".join(filter(None, parts))


def version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "not installed"


def processor() -> str:
    """Name and number of cores."""
    return f"{_processor_name()}, {os.cpu_count()} cores"


def _processor_name() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()
