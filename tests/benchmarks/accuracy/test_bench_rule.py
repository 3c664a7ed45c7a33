"""The study's rule: an interval over cases and seeds, and what follows for the default."""

from __future__ import annotations

from dataclasses import replace

import pytest

from benchmarks.accuracy import rule
from benchmarks.accuracy.comparisons import RULE

from ...benchmark.make_results import make_results, make_run

STOCK, NEW = RULE


def results(stock: list[float], new: list[float]):
    runs = [make_run(name, dsc, seed=seed) for name, of in ((STOCK, stock), (NEW, new)) for seed, dsc in enumerate(of)]
    return make_results(RULE, runs=tuple(runs))


def test_means_over_seeds_and_cases():
    found = rule.difference(results([0.80, 0.82, 0.84], [0.90, 0.92, 0.94]))
    assert found.mean == pytest.approx(10.0, abs=0.5)
    assert found.seeds == (3, 3) and found.better and not found.worse
    low, high = found.interval
    assert 6 <= low < 9 and 11 < high <= 14, "seeds are drawn, of each method for itself"


def test_seeds_that_differ_more_than_the_methods_decide_nothing():
    found = rule.difference(results([0.80, 0.90, 0.85], [0.81, 0.92, 0.86]))
    assert found.mean > 0 and not found.better and not found.worse
    assert rule.difference(results([0.90] * 3, [0.80] * 3)).worse


def test_two_seeds_are_too_few():
    found = rule.difference(results([0.80, 0.80], [0.90, 0.90, 0.90]))
    assert found.interval[0] > 0 and not found.counts and not found.better


def test_incomplete_runs_and_cases_that_one_lacks_do_not_count():
    given = results([0.8], [0.9])
    unfinished = make_run(NEW, 0.1, seed=1, complete=False)
    assert rule.difference(replace(given, runs=(*given.runs, unfinished))).seeds == (1, 1)
    assert rule.difference(replace(given, runs=given.runs[:1])) is None
    cases = dict(list(given.runs[1].evaluation["cases"].items())[1:])
    fewer = replace(given.runs[1], evaluation={**given.runs[1].evaluation, "cases": cases})
    assert rule.difference(replace(given, runs=(given.runs[0], fewer))) is not None


def test_verdict():
    better, equal, worse = (
        rule.difference(results([0.8] * 3, [dsc] * 3)) for dsc in (0.9, 0.8, 0.7)
    )  # fmt: skip
    times, iterations = zip(*rule.COMPARISONS.values())

    def said(at_equal_time, at_equal_iterations) -> str:
        return rule.verdict({**dict.fromkeys(times, at_equal_time), **dict.fromkeys(iterations, at_equal_iterations)})

    assert said(better, better) == said(better, equal) == f"{NEW} becomes the default"
    assert said(equal, better) == said(better, worse) == "the default stays as it is"
    few = rule.difference(results([0.8], [0.9]))
    assert said(better, few).startswith("no verdict yet: 3 seeds of both") and said(better, None) == said(better, few)
