"""Methods against the reference, paired by the cases that both have."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from scipy.stats import wilcoxon

from nnunetv2_lightm.benchmark.report.contenders import find_contenders
from nnunetv2_lightm.benchmark.report.significance import compare_with

from ..make_results import make_results


def case_dsc(contender):
    return dict(zip(contender.evaluation.cases, contender.evaluation.scores["DSC"].mean(axis=1), strict=True))


def test_methods_are_paired_by_case_and_corrected_for_their_number():
    reference, *others = contenders = find_contenders(make_results())
    found = compare_with(reference, contenders)
    assert [one.contender.name for one in found] == ["LightMUNet", "SegResNet"]
    for one, other in zip(found, others, strict=True):
        differences = np.array(list(case_dsc(other).values())) - np.array(list(case_dsc(reference).values()))
        assert one.difference.mean == pytest.approx(differences.mean())
        assert one.difference.p_value == wilcoxon(differences).pvalue
        assert one.difference.interval[0] < one.difference.mean < one.difference.interval[1]
    smaller, larger = sorted(one.difference.p_value for one in found)
    assert min(one.p_holm for one in found) == pytest.approx(2 * smaller)
    assert max(one.p_holm for one in found) == pytest.approx(max(2 * smaller, larger))


def test_only_common_cases_are_compared():
    results = make_results(("nnUNetTrainer", "nnUNetTrainerUNETR"))
    del results.runs[1].evaluation["cases"]["case_2"]
    reference, other = contenders = find_contenders(results)
    (found,) = compare_with(reference, contenders)
    assert found.difference.cases == 5
    expected = np.mean([dsc - case_dsc(reference)[case] for case, dsc in case_dsc(other).items()])
    assert found.difference.mean == pytest.approx(expected)


def test_methods_without_a_common_case_are_not_compared():
    stock, other = make_results(("nnUNetTrainer", "nnUNetTrainerUNETR")).runs
    cases = {f"other_{case}": scores for case, scores in other.evaluation["cases"].items()}
    other = replace(other, evaluation={**other.evaluation, "cases": cases})
    contenders = find_contenders(make_results(runs=(stock, other)))
    (found,) = compare_with(contenders[0], contenders)
    assert found.difference is None and math.isnan(found.p_holm)
