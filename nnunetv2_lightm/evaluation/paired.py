"""Two methods on the same cases: paired difference with bootstrap interval, Wilcoxon's test, Holm's correction."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.stats import wilcoxon

from .bootstrap import mean_intervals
from .scores import Evaluation, EvaluationError, case_means, credit_rightly_empty

# Differences that agree to this many decimals are ties: they differ only by rounding.
DECIMALS = 6
# Which pairs there are, as reports and JSON files say it.
PAIRS = (
    "a case counts for a class if it counts for at least one of the two methods; if for one alone, the other one has "
    "rightly found nothing, and its DSC, IoU and NSD are 1, its HD95 0"
)


@dataclass(frozen=True)
class PairedDifference:
    """The first method's score minus the second's.

    Attributes:
        mean: NaN if there is no pair.
        interval: Bootstrap 95 % interval of the mean; NaN below three pairs.
        p_value: Wilcoxon's signed-rank test, two-sided; NaN if there is no pair.
        cases: Number of pairs.
    """

    mean: float
    interval: tuple[float, float]
    p_value: float
    cases: int


@dataclass(frozen=True)
class Comparison:
    """Two methods compared by one metric, per class and for the average of the classes."""

    metric: str
    classes: dict[str, PairedDifference]
    average: PairedDifference


def compare(evaluation_a: Evaluation, evaluation_b: Evaluation, metric: str) -> Comparison:
    """Compare two evaluations of the same cases, a minus b.

    A case counts for a class if it counts in at least one of the two; `credit_rightly_empty` scores the other.
    The difference of the averages is the mean over the classes' differences; its test takes each case's mean
    difference.

    Raises: EvaluationError: if the cases or classes differ, or one of the two has no such metric.

    Examples:
        >>> import numpy as np
        >>> from nnunetv2_lightm.evaluation.paired import compare
        >>> from nnunetv2_lightm.evaluation.scores import Evaluation
        >>> cases, classes = ("a", "b", "c", "d"), ("liver",)
        >>> ours = Evaluation(cases, classes, {"DSC": np.array([[0.91], [0.88], [0.95], [0.90]])})
        >>> theirs = Evaluation(cases, classes, {"DSC": np.array([[0.90], [0.86], [0.92], [0.90]])})
        >>> difference = compare(ours, theirs, "DSC").average
        >>> round(difference.mean, 3), difference.cases
        (0.015, 4)
    """
    for kind in ("cases", "classes"):
        names_a, names_b = getattr(evaluation_a, kind), getattr(evaluation_b, kind)
        if set(names_a) != set(names_b):
            odd = ", ".join(sorted(set(names_a) ^ set(names_b))[:5])
            raise EvaluationError(f"two methods can only be compared on the same {kind}; only one of them has: {odd}")
    for evaluation in (evaluation_a, evaluation_b):
        if metric not in evaluation.scores:
            raise EvaluationError(
                f"no {metric} among {', '.join(evaluation.scores)}; evaluate both with the same options"
            )
    if metric == "NSD" and evaluation_a.nsd_tolerance_mm != evaluation_b.nsd_tolerance_mm:
        raise EvaluationError(
            f"NSD at {evaluation_a.nsd_tolerance_mm} and at {evaluation_b.nsd_tolerance_mm} mm cannot be compared; "
            "evaluate both with the same --nsd-tolerance-mm"
        )
    rows = [evaluation_b.cases.index(case) for case in evaluation_a.cases]
    columns = [evaluation_b.classes.index(name) for name in evaluation_a.classes]
    scores, dsc = (
        np.stack([evaluation_a.scores[name], evaluation_b.scores[name][np.ix_(rows, columns)]])
        for name in (metric, "DSC")
    )
    differences = np.subtract(*credit_rightly_empty(metric, scores, dsc))

    of_classes, of_average = mean_intervals(differences)
    classes = {name: _paired(differences[:, i], of_classes[i]) for i, name in enumerate(evaluation_a.classes)}
    means = [difference.mean for difference in classes.values() if difference.cases]
    average = _paired(case_means(differences), of_average, mean=float(np.mean(means)) if means else np.nan)
    return Comparison(metric, classes, average)


def signed_rank_p(differences: np.ndarray) -> float:
    """Two-sided p of Wilcoxon's signed-rank test by `scipy.stats.wilcoxon`.

    Zeros are dropped, as by Wilcoxon; if nothing else is left, p is 1. The distribution is exact for up to 50
    differences without ties and, by all permutations, for up to 13 with ties; beyond, it is the normal approximation,
    corrected for ties (scipy's method "auto").
    """
    counted = np.round(differences[~np.isnan(differences)], DECIMALS)
    if not counted.size:
        return float("nan")
    different = counted[counted != 0]
    return float(wilcoxon(different).pvalue) if different.size else 1.0


def holm(p_values: Sequence[float]) -> np.ndarray:
    """p values in the given order, corrected for their number (Holm 1979); NaN is not a test and stays NaN."""
    p = np.asarray(p_values, dtype=float)
    order = np.argsort(p)[: np.count_nonzero(~np.isnan(p))]  # NaN comes last
    corrected = np.full(p.shape, np.nan)
    corrected[order] = np.minimum(1, np.maximum.accumulate(p[order] * np.arange(len(order), 0, -1)))
    return corrected


def _paired(differences: np.ndarray, interval: np.ndarray, mean: float | None = None) -> PairedDifference:
    counted = differences[~np.isnan(differences)]
    if mean is None:
        mean = float(np.mean(counted)) if counted.size else np.nan
    return PairedDifference(mean, tuple(map(float, interval)), signed_rank_p(differences), int(counted.size))
