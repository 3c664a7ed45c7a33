"""Applies the rule of docs/study/README.md to the published results.

    python -m benchmarks.accuracy.rule

The difference of the average DSC, new recipe minus stock nnU-Net: means over seeds and cases, with a bootstrap 95 %
interval over both. Each of 10,000 resamples draws, with replacement, the cases, which the two have in common, and the
seeds of each of the two.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from nnunetv2_lightm.benchmark.results import BenchmarkResults, load_results

from .comparisons import RULE

PUBLISHED = Path(__file__).resolve().parent / "results"
SEEDS = 3
RESAMPLES = 10_000
# Equal time decides; at equal iterations the new recipe must not be worse.
COMPARISONS = {
    "X-rays": ("chest_recipe_seconds", "chest_recipe_iterations"),
    "hippocampus": ("hippocampus_recipe_seconds", "hippocampus_recipe_iterations"),
}


@dataclass(frozen=True)
class Difference:
    """New recipe minus stock, in DSC points.

    Attributes:
        mean: Over seeds and cases.
        interval: 95 %, over both.
        seeds: Number of complete seeds, of stock and of the new recipe.
    """

    mean: float
    interval: tuple[float, float]
    seeds: tuple[int, int]

    @property
    def counts(self) -> bool:
        """Whether the seeds are as many as the rule asks for."""
        return min(self.seeds) >= SEEDS

    @property
    def better(self) -> bool:
        return self.counts and self.interval[0] > 0

    @property
    def worse(self) -> bool:
        return self.counts and self.interval[1] < 0

    def __str__(self) -> str:
        (low, high), (stock, new) = self.interval, self.seeds
        return f"{self.mean:+.2f} ({low:+.2f} to {high:+.2f}), {new} seeds against {stock} of stock"


def difference(results: BenchmarkResults) -> Difference | None:
    """None if one of the two has no complete run."""
    runs_of = [
        [run.evaluation["cases"] for run in results.runs if run.complete and run.trainer == trainer] for trainer in RULE
    ]
    if not all(runs_of):
        return None
    cases = sorted(set.intersection(*(set(run) for runs in runs_of for run in runs)))
    stock, new = (np.array([[_mean_dsc(run[case]) for case in cases] for run in runs]) for runs in runs_of)
    random = np.random.default_rng(0)
    resamples = []
    for _ in range(RESAMPLES):
        drawn = random.integers(len(cases), size=len(cases))
        means = [
            scores[random.integers(len(scores), size=len(scores))][:, drawn].mean(axis=0) for scores in (new, stock)
        ]
        resamples.append(np.nanmean(means[0] - means[1]))
    low, high = np.percentile(resamples, [2.5, 97.5])
    mean = np.nanmean(new.mean(axis=0) - stock.mean(axis=0))
    return Difference(float(mean), (float(low), float(high)), (len(stock), len(new)))


def verdict(differences: dict[str, Difference | None]) -> str:
    """The verdict from the differences of all comparisons, by name."""
    needed = [name for names in COMPARISONS.values() for name in names]
    if not all(differences.get(name) and differences[name].counts for name in needed):
        return f"no verdict yet: {SEEDS} seeds of both are needed in all of {', '.join(needed)}"
    wins = all(
        differences[time].better and not differences[iterations].worse for time, iterations in COMPARISONS.values()
    )
    return f"{RULE[1]} becomes the default" if wins else "the default stays as it is"


def _mean_dsc(classes: dict[str, dict[str, float | None]]) -> float:
    """Mean DSC over the classes that count, in points; NaN if none does."""
    scores = [scores["DSC"] for scores in classes.values() if scores["DSC"] is not None]
    return 100 * float(np.mean(scores)) if scores else float("nan")


def main() -> int:
    differences = {}
    for names in COMPARISONS.values():
        for name in names:
            file = PUBLISHED / f"{name}.json"
            differences[name] = difference(load_results(file)) if file.exists() else None
            print(f"{name}: {differences[name] or 'not run yet'}")
    print(verdict(differences))
    return 0


if __name__ == "__main__":
    sys.exit(main())
