"""Bootstrap 95 % intervals of means over the cases.

The percentile interval (Efron 1979) of 10,000 resamples of the cases with a fixed seed: it lies within the range of the
scores and exists for equal scores, where BCa has none. Drawing n of n cases with replacement is drawing how often each
occurs, from a multinomial distribution; a resample's means are then products of matrices. Whole
cases are resampled, since the classes of a case are correlated. `scipy.stats.bootstrap` agrees, but has no missing
scores.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np

RESAMPLES = 10_000
SEED = 0
MIN_CASES = 3  # with fewer, there are too few different resamples


def mean_intervals(scores: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Intervals of the classes' means and of these means' average.

    Args:
        scores: (cases, classes); NaN where not counted. A resample in which no case counts for a class says nothing
            about that class, and its average is over the others.
    Returns: Lower and upper ends, (classes, 2) and (2,); NaN for fewer than three cases that count.

    Examples:
        >>> import numpy as np
        >>> from nnunetv2_lightm.evaluation.bootstrap import mean_intervals
        >>> scores = np.array([[0.90, 0.7], [0.80, 0.5], [0.85, np.nan], [0.95, 0.6]])  # NaN: no such class
        >>> of_classes, of_average = mean_intervals(scores)
        >>> of_classes.round(3).tolist()
        [[0.825, 0.925], [0.5, 0.7]]
    """
    counted = ~np.isnan(scores)
    of_classes, of_average = np.full((scores.shape[1], 2), np.nan), np.full(2, np.nan)
    if counted.any(axis=1).sum() < MIN_CASES:
        return of_classes, of_average
    times = _times_drawn(len(scores))
    sums, numbers = times @ np.where(counted, scores, 0), times @ counted
    drawn = numbers > 0
    means = np.divide(sums, numbers, out=np.zeros_like(sums), where=drawn)
    for i in np.flatnonzero(counted.sum(axis=0) >= MIN_CASES):
        of_classes[i] = _ends(means[drawn[:, i], i])
    some = drawn.any(axis=1)
    of_average[:] = _ends(means[some].sum(axis=1) / drawn[some].sum(axis=1))
    return of_classes, of_average


@lru_cache(maxsize=1)
def _times_drawn(num_cases: int) -> np.ndarray:
    """How often each case occurs in each resample, (resamples, cases)."""
    draw = np.random.default_rng(SEED).multinomial(num_cases, np.full(num_cases, 1 / num_cases), size=RESAMPLES)
    return draw.astype(float)


def _ends(means: np.ndarray) -> np.ndarray:
    return np.percentile(means, [2.5, 97.5])
