"""The benchmarks are scripts, not a package: their folder goes where Python finds it."""

from __future__ import annotations

import sys
from pathlib import Path

from ..trainers.conftest import make_trainer  # noqa: F401

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "benchmarks"))
