"""Bootstrap intervals of scores, and paired tests of methods against one of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.stats import wilcoxon

from ..scores import Evaluation
from .methods import Method

RESAMPLES = 2000
SEED = 0
CONFIDENCE = 0.95


@dataclass(frozen=True)
class Comparison:
    """A method against the reference, by the cases that both have.

    Attributes:
        method: Compared.
        cases: Number of them.
        difference: Mean over the cases of a case's DSC, itself the mean over its classes, minus the reference's.
        interval: Of the difference.
        p: Two-sided, of Wilcoxon's signed-rank test; NaN without a case.
        p_holm: The same, corrected for the number of methods.
    """

    method: Method
    cases: int
    difference: float
    interval: tuple[float, float]
    p: float
    p_holm: float


def score_intervals(evaluation: Evaluation, metric: str) -> tuple[np.ndarray, np.ndarray]:
    """Intervals of the classes' means and of their average, by drawing cases with replacement.

    Returns: (classes, 2) and (2,); NaN below two cases.
    """
    scores = evaluation.scores[metric]
    if len(scores) < 2:
        return np.full((scores.shape[1], 2), np.nan), np.full(2, np.nan)
    counts = _draws(len(scores))
    counted = counts @ ~np.isnan(scores)
    sums = counts @ np.nan_to_num(scores)
    means = np.divide(sums, counted, out=np.full(sums.shape, np.nan), where=counted > 0)
    return np.array([_interval(column) for column in means.T]), np.array(_interval(_mean_of_counted(means)))


def compare_with(reference: Method, methods: Sequence[Method]) -> list[Comparison]:
    """Test every scored method but the reference against it, in their order."""
    compared = [method for method in methods if method.evaluation and method is not reference]
    found = []
    for method in compared:
        differences = _paired_differences(method.evaluation, reference.evaluation)
        means = _draws(len(differences)) @ differences / len(differences) if len(differences) > 1 else np.empty(0)
        mean = float(differences.mean()) if differences.size else float("nan")
        found.append((method, len(differences), mean, _interval(means), _wilcoxon_p(differences)))
    return [Comparison(*row, p) for row, p in zip(found, holm([row[-1] for row in found]), strict=True)]


def holm(p_values: Sequence[float]) -> list[float]:
    """Holm's step-down correction; NaN stays NaN and is not counted."""
    order = sorted((p, i) for i, p in enumerate(p_values) if p == p)
    corrected, running = [float("nan")] * len(p_values), 0.0
    for rank, (p, i) in enumerate(order):
        running = max(running, min(1.0, (len(order) - rank) * p))
        corrected[i] = running
    return corrected


def _paired_differences(one: Evaluation, other: Evaluation) -> np.ndarray:
    by_case = [dict(zip(e.cases, _mean_of_counted(e.scores["DSC"]), strict=True)) for e in (one, other)]
    common = [case for case in one.cases if case in by_case[1]]
    differences = np.array([by_case[0][case] - by_case[1][case] for case in common], dtype=float)
    return differences[~np.isnan(differences)]


def _wilcoxon_p(differences: np.ndarray) -> float:
    if not differences.size:
        return float("nan")
    return float(wilcoxon(differences).pvalue) if differences.any() else 1.0


def _draws(num_cases: int) -> np.ndarray:
    """How often each case was drawn, (resamples, cases)."""
    equal = np.full(num_cases, 1 / num_cases)
    return np.random.default_rng(SEED).multinomial(num_cases, equal, size=RESAMPLES).astype(float)


def _mean_of_counted(table: np.ndarray) -> np.ndarray:
    """Mean of each row over what is not NaN."""
    counted = (~np.isnan(table)).sum(axis=1)
    sums = np.nansum(table, axis=1)
    return np.divide(sums, counted, out=np.full(len(table), np.nan), where=counted > 0)


def _interval(means: np.ndarray) -> tuple[float, float]:
    means = means[~np.isnan(means)]
    if not means.size:
        return float("nan"), float("nan")
    tail = 100 * (1 - CONFIDENCE) / 2
    low, high = np.percentile(means, (tail, 100 - tail))
    return float(low), float(high)
