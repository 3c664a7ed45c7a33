"""The benchmarks are scripts, not a package: their folders go where Python finds them."""

from __future__ import annotations

import sys
from pathlib import Path

from ..trainers.conftest import make_trainer  # noqa: F401

for folder in ("accuracy", "speed"):
    sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "benchmarks" / folder))
