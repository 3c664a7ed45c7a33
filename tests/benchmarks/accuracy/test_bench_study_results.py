"""Parts of a comparison put together: which run counts, and what does not belong together."""

from __future__ import annotations

from dataclasses import replace

import pytest

from benchmarks.accuracy.study_results import DifferentComparisons, combine

from ...benchmark.make_results import TRAINERS, make_results, make_run


def test_a_complete_run_counts_and_the_last_of_them():
    stock, ours, _ = TRAINERS
    first = make_results(runs=(make_run(stock, 0.9), make_run(ours, 0.8, complete=False), make_run(ours, 0.7, seed=1)))
    last = make_run(stock, 0.95)
    second = make_results(runs=(last, make_run(ours, 0.85), make_run(ours, 0.7, seed=1, complete=False)))
    runs = combine([first, second], TRAINERS).runs
    assert [(run.trainer, run.seed, run.complete) for run in runs] == [
        (stock, 0, True),
        (ours, 0, True),
        (ours, 1, True),
    ]
    assert runs[0].evaluation == last.evaluation


def test_costs_of_the_first_part_count():
    first, second = make_results(TRAINERS[:2]), make_results(TRAINERS)
    changed = replace(second, calibration={name: {"train_seconds": 9.0} for name in TRAINERS})
    combined = combine([first, changed], TRAINERS)
    assert combined.calibration == {**first.calibration, TRAINERS[2]: {"train_seconds": 9.0}}
    assert combined.machine == first.machine


def test_trainers_that_are_not_of_the_comparison_are_left_out():
    combined = combine([make_results(TRAINERS)], TRAINERS[1::-1])
    assert [run.trainer for run in combined.runs] == list(TRAINERS[1::-1])
    assert set(combined.calibration) == set(combined.complexity) == set(TRAINERS[:2])


def test_another_budget_is_refused():
    with pytest.raises(DifferentComparisons, match="budget '9epochs'"):
        combine([make_results(), make_results(budget="9epochs")], TRAINERS)
