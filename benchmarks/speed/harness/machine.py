"""The machine and the versions that a result belongs to."""

from __future__ import annotations

import subprocess
from collections.abc import Mapping
from pathlib import Path

from nnunetv2_lightm.measure.machine import machine as machine_without_commit

from .. import STARTED_WITH

ROOT = Path(__file__).resolve().parents[3]
# Variables that change how fast PyTorch runs; what is set goes into the result.
SPEED_VARIABLES = (
    "OMP_",
    "KMP_",
    "MKL_",
    "MALLOC_",
    "GLIBC_TUNABLES",
    "LD_PRELOAD",
    "GOMP_",
    "NNUNETV2_LIGHTM_BACKEND",
)


def machine(*more_packages: str) -> dict[str, str]:
    """Processor, memory, system, versions and commit; a missing package is listed as not installed."""
    return {**machine_without_commit(*more_packages), "commit": commit()}


def commit() -> str:
    """The checkout's commit, and whether files other than results differ from it."""
    revision = _git("rev-parse", "--short", "HEAD")
    if not revision:
        return "unknown"
    changed = _git("status", "--porcelain", "--untracked-files=no", "--", ".", ":!benchmarks/results")
    return f"{revision}, with uncommitted changes" if changed else revision


def _git(*arguments: str) -> str:
    try:
        done = subprocess.run(["git", *arguments], capture_output=True, text=True, cwd=ROOT, check=False)
    except OSError:
        return ""
    return done.stdout.strip()


def speed_variables(environment: Mapping[str, str] = STARTED_WITH) -> dict[str, str]:
    """The environment variables that change how fast PyTorch or this package runs."""
    return {name: value for name, value in sorted(environment.items()) if name.startswith(SPEED_VARIABLES)}
