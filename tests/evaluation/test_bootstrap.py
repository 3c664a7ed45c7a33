"""Bootstrap intervals: against scipy's, with scores that do not count, and with few cases."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
from scipy.stats import bootstrap

from nnunetv2_lightm.evaluation import bootstrap as intervals
from nnunetv2_lightm.evaluation.bootstrap import mean_intervals


@pytest.fixture
def draw_at_once(monkeypatch):
    """Sets how many cases times resamples are drawn at a time."""

    def at_once(number):
        monkeypatch.setattr(intervals, "DRAWN_AT_ONCE", number)
        intervals._intervals.cache_clear()

    yield at_once
    intervals._intervals.cache_clear()


def test_intervals_are_scipys():
    scores = np.random.default_rng(1).beta(8, 2, (25, 2))
    of_classes, of_average = mean_intervals(scores)
    for values, interval in (
        (scores[:, 0], of_classes[0]),
        (scores[:, 1], of_classes[1]),
        (scores.mean(1), of_average),
    ):
        theirs = bootstrap((values,), np.mean, n_resamples=10_000, method="percentile").confidence_interval
        np.testing.assert_allclose(interval, theirs, atol=0.005)  # two samples of resamples: about 0.001 apart


def test_all_resamples_of_three_cases_by_hand():
    # Each of 27 resamples is as likely: mean 0 and mean 1 have 1/27 = 3.7 % each, more than 2.5 %.
    of_classes, of_average = mean_intervals(np.array([[0.0], [0.5], [1.0]]))
    np.testing.assert_array_equal(of_classes, [[0, 1]])
    np.testing.assert_array_equal(of_average, [0, 1])


def test_uncounted_scores_are_left_out():
    scores = np.random.default_rng(2).random((40, 1))
    with_gaps = np.concatenate([scores, np.full((10, 1), np.nan)])
    np.testing.assert_allclose(mean_intervals(with_gaps)[0], mean_intervals(scores)[0], atol=0.01)


def test_classes_of_a_case_stay_together():
    # Opposite classes: every resample's average is the same.
    scores = np.random.default_rng(3).random((10, 1))
    np.testing.assert_allclose(mean_intervals(np.hstack([scores, 1 - scores]))[1], [0.5, 0.5])


@pytest.mark.parametrize("num_cases", [1, 2])
def test_one_and_two_cases_have_no_interval(num_cases):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        of_classes, of_average = mean_intervals(np.full((num_cases, 2), 0.5))
    assert np.isnan(of_classes).all()
    assert np.isnan(of_average).all()


def test_rare_and_absent_classes():
    scores = np.full((6, 3), np.nan)
    scores[:, 0], scores[0, 1] = 0.5, 1
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        of_classes, of_average = mean_intervals(scores)
    np.testing.assert_array_equal(of_classes, [[0.5, 0.5], [np.nan, np.nan], [np.nan, np.nan]])
    np.testing.assert_array_equal(of_average, [0.5, 0.75])


def test_it_is_the_same_every_time():
    scores = np.random.default_rng(4).random((12, 2))
    np.testing.assert_array_equal(mean_intervals(scores)[0], mean_intervals(scores.copy())[0])


@pytest.mark.parametrize("resamples", [1, 16, 1000, 3333, 9999, 10_000])
def test_intervals_do_not_depend_on_how_many_resamples_are_drawn_at_a_time(draw_at_once, resamples):
    scores = np.random.default_rng(5).random((40, 3))
    scores[::7, 1] = np.nan
    draw = np.random.default_rng(0).multinomial(40, np.full(40, 1 / 40), size=10_000)  # all of them
    draw_at_once(40 * resamples)
    assert np.array_equal(np.concatenate(list(intervals._times_drawn(40))), draw)
    of_classes, of_average = mean_intervals(scores)
    draw_at_once(40 * 10_000)
    at_once = mean_intervals(scores)
    np.testing.assert_allclose(of_classes, at_once[0], rtol=1e-13)
    np.testing.assert_allclose(of_average, at_once[1], rtol=1e-13)


@pytest.mark.parametrize("num_cases", [839, 20_000])
def test_memory_does_not_grow_with_the_cases(num_cases):
    assert next(intervals._times_drawn(num_cases)).size <= 2**23


def test_a_change_of_the_result_changes_no_other(draw_at_once):
    scores = np.random.default_rng(6).random((12, 2))
    of_classes, of_average = mean_intervals(scores)
    before = of_classes.copy(), of_average.copy()
    of_classes[:], of_average[:] = 7, 7
    for found, expected in zip(mean_intervals(scores), before, strict=True):
        np.testing.assert_array_equal(found, expected)
