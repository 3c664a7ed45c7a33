"""Bootstrap 95 % intervals of means over the cases.

The percentile interval (Efron 1979) of 10,000 resamples of the cases with a fixed seed: it lies within the range of the
scores and exists for equal scores, where BCa has none. Drawing n of n cases with replacement is drawing how often each
occurs, from a multinomial distribution; a resample's means are then products of matrices. Resamples are drawn some at a
time, so that the memory does not grow with the cases. Whole cases are resampled, since the classes of a case are
correlated. `scipy.stats.bootstrap` agrees, but has no missing scores.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache

import numpy as np

RESAMPLES = 10_000
SEED = 0
MIN_CASES = 3  # with fewer, there are too few different resamples
# Cases times resamples drawn at a time; they take 16 bytes each.
DRAWN_AT_ONCE = 2**23
# Resamples at a time are a multiple of this one, as `RESAMPLES` is: a product of matrices rounds the last few rows
# differently from whole blocks of rows, and an interval should not depend on `DRAWN_AT_ONCE`.
ROWS_OF_A_BLOCK = 16


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
    # A table asks for the classes and for their average, and a JSON file again.
    of_classes, of_average = _intervals(np.asarray(scores, dtype=float).tobytes(), scores.shape)
    return of_classes.copy(), of_average.copy()


@lru_cache(maxsize=16)
def _intervals(content: bytes, shape: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    scores = np.frombuffer(content).reshape(shape)
    counted = ~np.isnan(scores)
    of_classes, of_average = np.full((scores.shape[1], 2), np.nan), np.full(2, np.nan)
    if counted.any(axis=1).sum() < MIN_CASES:
        return of_classes, of_average
    known = np.where(counted, scores, 0)
    products = [(times @ known, times @ counted) for times in _times_drawn(len(scores))]
    sums, numbers = map(np.concatenate, zip(*products))
    drawn = numbers > 0
    means = np.divide(sums, numbers, out=np.zeros_like(sums), where=drawn)
    for i in np.flatnonzero(counted.sum(axis=0) >= MIN_CASES):
        of_classes[i] = _ends(means[drawn[:, i], i])
    some = drawn.any(axis=1)
    of_average[:] = _ends(means[some].sum(axis=1) / drawn[some].sum(axis=1))
    return of_classes, of_average


def _times_drawn(num_cases: int) -> Iterator[np.ndarray]:
    """How often each case occurs in each resample, (resamples, cases), some resamples at a time."""
    at_once = DRAWN_AT_ONCE // num_cases
    if at_once >= RESAMPLES:
        yield _all_times_drawn(num_cases)
        return
    yield from _draw(num_cases, max(1, at_once // ROWS_OF_A_BLOCK) * ROWS_OF_A_BLOCK)


@lru_cache(maxsize=1)
def _all_times_drawn(num_cases: int) -> np.ndarray:
    """Kept, since all metrics and methods have the same number of cases."""
    return next(_draw(num_cases, RESAMPLES))


def _draw(num_cases: int, at_once: int) -> Iterator[np.ndarray]:
    random = np.random.default_rng(SEED)
    for start in range(0, RESAMPLES, at_once):
        size = min(at_once, RESAMPLES - start)
        yield random.multinomial(num_cases, np.full(num_cases, 1 / num_cases), size=size).astype(float)


def _ends(means: np.ndarray) -> np.ndarray:
    return np.percentile(means, [2.5, 97.5])
