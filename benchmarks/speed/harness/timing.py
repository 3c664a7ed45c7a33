"""What the benchmarks add to nnunetv2_lightm.measure.timing: quick runs, and the faster of two layouts."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from nnunetv2_lightm.measure import timing


@dataclass(frozen=True)
class Effort(timing.Effort):
    """How much to measure.

    Attributes:
        quick: Small problems, only to show that the benchmark works.
    """

    quick: bool = False


QUICK = Effort(seconds=0.5, least_rounds=2, most_rounds=2, turn_seconds=0.01, quick=True)


def fastest(candidates: Mapping[str, Callable[[], object]], runs: int = 2) -> str:
    """Name of the candidate with the fastest single run; a run before each is not timed."""
    return min(candidates, key=lambda name: min(_seconds(candidates[name]) for _ in range(runs)))


def _seconds(run: Callable[[], object]) -> float:
    run()
    before = time.perf_counter()
    run()
    return time.perf_counter() - before
