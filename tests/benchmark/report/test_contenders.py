"""Runs of several seeds and folds make one method."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest

from nnunetv2_lightm.benchmark.report.contenders import (
    find_contenders,
    have_same_cases,
    natural_order,
    pool,
    reference_contender,
    short_name,
)

from ..make_results import make_results, make_run


def run_with(cases: dict, **fields):
    table = {case: {"lung": {"DSC": dsc, "IoU": None if dsc is None else dsc / 2}} for case, dsc in cases.items()}
    return replace(make_run("nnUNetTrainer", 0.9), evaluation={"classes": {"lung": {}}, "cases": table}, **fields)


def test_seeds_are_averaged_case_by_case():
    pooled = pool([run_with({"a": 0.8, "b": 0.4}), run_with({"a": 0.6, "b": 0.2}, seed=1)])
    assert pooled.cases == ("a", "b")
    np.testing.assert_allclose(pooled.scores["DSC"][:, 0], [0.7, 0.3])
    np.testing.assert_allclose(pooled.scores["IoU"][:, 0], [0.35, 0.15])


def test_folds_are_put_together_in_natural_order():
    pooled = pool([run_with({"case_10": 0.8}), run_with({"case_9": 0.4}, fold=1)])
    assert pooled.cases == ("case_9", "case_10")
    assert pooled.average("DSC") == pytest.approx(0.6)


def test_a_score_that_is_not_counted_does_not_count():
    pooled = pool([run_with({"a": 0.6, "b": None}), run_with({"a": 0.6, "b": None}, seed=1)])
    assert pooled.scores["DSC"][0, 0] == 0.6
    assert math.isnan(pooled.scores["DSC"][1, 0])


def test_a_false_positive_of_one_seed_is_none_of_the_others():
    pooled = pool([run_with({"a": None}), run_with({"a": None}, seed=1), run_with({"a": 0.0}, seed=2)])
    assert pooled.scores["DSC"][0, 0] == pooled.scores["IoU"][0, 0] == pytest.approx(2 / 3)


def test_digits_that_are_no_decimals_are_sorted_as_text():
    names = ["case_10", "case_1²", "case_²", "case_٣", "case_9", "case_1"]
    assert sorted(names, key=natural_order) == ["case_1", "case_1²", "case_٣", "case_9", "case_10", "case_²"]


def test_methods_are_scored_on_the_same_cases_or_not():
    stock, ours = make_results(("nnUNetTrainer", "nnUNetTrainerUNETR")).runs
    assert have_same_cases([]) and have_same_cases(find_contenders(make_results(runs=(stock, ours))))
    del ours.evaluation["cases"]["case_2"]
    assert not have_same_cases(find_contenders(make_results(runs=(stock, ours))))
    assert have_same_cases(find_contenders(make_results(runs=(stock, replace(ours, complete=False)))))


def test_unfinished_runs_do_not_count():
    runs = (run_with({"a": 0.8}), run_with({"a": 0.2}, seed=1, complete=False))
    (contender,) = find_contenders(make_results(runs=runs))
    assert contender.seeds == [0]
    assert contender.averages_by_seed("DSC") == pytest.approx([0.8])
    assert contender.evaluation.average("DSC") == pytest.approx(0.8)


def test_each_seed_alone():
    runs = (run_with({"a": 0.5}, seed=1), run_with({"a": 0.8}), run_with({"b": 0.4}, fold=1))
    (contender,) = find_contenders(make_results(runs=runs))
    assert contender.averages_by_seed("DSC") == pytest.approx([0.6, 0.5])


def test_stock_nnunet_is_the_reference_wherever_it_stands():
    contenders = find_contenders(make_results(("nnUNetTrainerLightMUNet", "nnUNetTrainer")))
    assert reference_contender(contenders).trainer == "nnUNetTrainer"
    assert reference_contender(contenders[:1]).trainer == "nnUNetTrainerLightMUNet"
    assert reference_contender([]) is None


def test_short_names():
    assert short_name("nnUNetTrainerUNETR") == "UNETR"
    assert short_name("nnUNetTrainer") == "nnUNetTrainer"
    assert short_name("MyTrainer") == "MyTrainer"
