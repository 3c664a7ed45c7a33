"""Timing in turns: whatever else the machine does affects all candidates alike."""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Spread:
    """Median and quartiles of the samples, in their unit."""

    median: float
    q1: float
    q3: float
    samples: int

    @classmethod
    def of(cls, samples: Sequence[float]) -> Spread:
        """Raises: ValueError: without samples, or if one is not finite."""
        if not samples or not all(math.isfinite(s) for s in samples):
            raise ValueError(f"no median of {list(samples)}; expected at least one finite sample")
        if len(samples) == 1:
            return cls(samples[0], samples[0], samples[0], 1)
        q1, median, q3 = statistics.quantiles(samples, n=4, method="inclusive")
        return cls(median, q1, q3, len(samples))


@dataclass(frozen=True)
class Effort:
    """How much to measure.

    Attributes:
        seconds: Time for all rounds of an alternation; ``least_rounds`` are run in any case.
        least_rounds: At least as many rounds ...
        most_rounds: ... and at most as many.
        turn_seconds: A candidate runs once per turn, a fast one as often as fits into this time.
    """

    seconds: float = 25.0
    least_rounds: int = 5
    most_rounds: int = 15
    turn_seconds: float = 0.25


def alternate(
    candidates: Mapping[str, Callable[[], object] | None],
    effort: Effort,
    *,
    clock: Callable[[], float] = time.perf_counter,
) -> dict[str, Spread | None]:
    """Seconds of one run of each candidate; None for one that is None.

    Each round gives every candidate a turn. The first run of a turn is not timed: it finds caches and memory as the
    previous candidate left them, whereas in real use each candidate runs after itself.
    """
    running = {name: run for name, run in candidates.items() if run is not None}
    samples: dict[str, list[float]] = {name: [] for name in running}
    begin, rounds = clock(), 0
    while rounds < effort.most_rounds:
        for name, run in running.items():
            samples[name] += _turn(run, effort.turn_seconds, clock)
        rounds += 1
        spent = clock() - begin
        # The next round must end in time as well.
        if rounds >= effort.least_rounds and spent * (rounds + 1) / rounds > effort.seconds:
            break
    return {name: Spread.of(samples[name]) if name in samples else None for name in candidates}


def _turn(run: Callable[[], object], seconds: float, clock: Callable[[], float]) -> list[float]:
    samples, spent = [], 0.0
    run()
    while not samples or spent + samples[-1] <= seconds:
        before = clock()
        run()
        samples.append(clock() - before)
        spent += samples[-1]
    return samples
