"""Intervals and tests, against the definition and hand-computed numbers."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.stats import wilcoxon

from nnunetv2_lightm.study.benchmark.methods import find_methods
from nnunetv2_lightm.study.benchmark.significance import compare_with, holm, score_intervals
from nnunetv2_lightm.study.scores import Evaluation

from .make_results import make_results


def evaluation(dsc):
    dsc = np.array(dsc, dtype=float)
    names = tuple(f"case_{i}" for i in range(len(dsc)))
    return Evaluation(names, tuple(f"class_{i}" for i in range(dsc.shape[1])), {"DSC": dsc, "IoU": dsc})


def test_interval_is_that_of_the_mean_over_drawn_cases():
    dsc = np.random.default_rng(0).normal(0.8, 0.05, (200, 2))
    classes, average = score_intervals(evaluation(dsc), "DSC")
    for (low, high), column in zip([*classes, average], [*dsc.T, dsc.mean(axis=1)], strict=True):
        expected = 1.96 * column.std(ddof=1) / math.sqrt(200)
        assert (high - low) / 2 == pytest.approx(expected, rel=0.08)
        assert (high + low) / 2 == pytest.approx(column.mean(), abs=0.001)


def test_scores_that_are_not_counted_do_not_count_and_one_case_has_no_interval():
    classes, average = score_intervals(evaluation([[0.5, math.nan], [0.5, 0.7], [0.5, math.nan]]), "DSC")
    np.testing.assert_allclose(classes, [[0.5, 0.5], [0.7, 0.7]])
    assert average[0] == pytest.approx(0.5) and average[1] == pytest.approx(0.6)
    assert np.isnan(score_intervals(evaluation([[0.5]]), "DSC")[1]).all()


def test_holm_steps_down():
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert holm([0.6, 0.9]) == pytest.approx([1.0, 1.0])
    corrected = holm([math.nan, 0.02])
    assert math.isnan(corrected[0]) and corrected[1] == 0.02


def test_methods_are_paired_by_case():
    reference, other, _ = methods = find_methods(make_results())
    found = compare_with(reference, methods)
    assert [comparison.method.name for comparison in found] == ["LightMUNet", "SegResNet"]
    differences = (other.evaluation.scores["DSC"] - reference.evaluation.scores["DSC"]).mean(axis=1)
    assert found[0].difference == pytest.approx(differences.mean())
    assert found[0].p == wilcoxon(differences).pvalue
    assert found[0].interval[0] < found[0].difference < found[0].interval[1]
    assert found[0].p_holm >= found[0].p and found[0].cases == 6
