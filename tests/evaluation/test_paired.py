"""Paired comparison: differences and p values by hand, empty classes, Holm's correction."""

from __future__ import annotations

import warnings

import numpy as np
import pytest

from nnunetv2_lightm.evaluation.paired import compare, holm, signed_rank_p
from nnunetv2_lightm.evaluation.scores import Evaluation, EvaluationError


def evaluation(scores, cases=None, classes=("liver", "tumor"), **options):
    scores = np.asarray(scores, dtype=float)
    cases = cases or tuple(f"case_{i}" for i in range(len(scores)))
    return Evaluation(cases, classes[: scores.shape[1]], {"DSC": scores, "NSD": scores}, **options)


def test_differences_by_hand():
    a = evaluation([[0.9, 0.5], [0.8, np.nan], [0.7, 0.6], [0.9, np.nan]])
    b = evaluation([[0.8, 0.2], [0.6, 0.3], [0.4, 0.5], [0.5, np.nan]])
    result = compare(a, b, "DSC")
    liver, tumor = result.classes["liver"], result.classes["tumor"]
    assert (liver.mean, liver.cases) == (pytest.approx(0.25), 4)
    assert liver.p_value == pytest.approx(2 / 2**4)  # all positive: the two extremes of 16 signs
    assert 0.1 <= liver.interval[0] < 0.25 < liver.interval[1] <= 0.4
    assert (tumor.mean, tumor.cases) == (pytest.approx(0.2), 2)  # a case counts where both count
    assert np.isnan(tumor.interval).all()
    assert result.average.mean == pytest.approx((0.25 + 0.2) / 2)
    assert result.average.cases == 4
    assert result.average.p_value == pytest.approx(1 / 8)  # of the cases' means: 0.2, 0.2, 0.2, 0.4
    assert result.average.interval[0] < result.average.mean < result.average.interval[1]


def test_order_of_cases_and_classes_does_not_matter():
    scores = np.random.default_rng(0).random((6, 2))
    a, b = (
        evaluation(scores),
        evaluation(scores[::-1, ::-1], tuple(f"case_{i}" for i in range(6))[::-1], ("tumor", "liver")),
    )
    result = compare(a, b, "DSC")
    for paired in (*result.classes.values(), result.average):
        assert (paired.mean, paired.p_value, paired.interval) == (0, 1, (0, 0))


def test_sign_is_first_less_second():
    a, b = evaluation(np.linspace(0.1, 0.4, 8)[:, None]), evaluation(np.linspace(0.2, 0.8, 8)[:, None])
    forth, back = compare(a, b, "DSC").average, compare(b, a, "DSC").average
    assert forth.mean == -back.mean < 0
    assert forth.p_value == back.p_value == 2 / 2**8
    np.testing.assert_allclose(forth.interval, np.negative(back.interval)[::-1])


@pytest.mark.parametrize(
    ("differences", "p"),
    [
        ([0, 0, 0], 1),
        ([np.nan, 0.0], 1),
        ([np.nan], np.nan),
        ([0.3], 1),
        ([0.1, 0.2, 0.3, 0.4, 0.5, 0.6], 2 / 2**6),
        ([0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.0, np.nan], 2 / 2**6),
        ([-0.1, 0.2, 0.3, 0.4, 0.5, 0.6], 4 / 2**6),  # the sums of ranks 0 and 1 have one arrangement each
        ([0.1, 0.1, 0.1, 0.1, 0.1], 2 / 2**5),  # ties
        ([0.3 - 0.2, 0.1, 0.2 - 0.1, 0.4 - 0.3, 0.1], 2 / 2**5),  # ties but for rounding
    ],
)
def test_signed_rank_by_hand(differences, p):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        result = signed_rank_p(np.array(differences, dtype=float))
    np.testing.assert_allclose(result, p)


def test_signed_rank_of_a_textbook_example():
    # Darwin's maize, 15 differences in eighths of an inch: the ranks of -67 and -48 are 14 and 10, W- = 24.
    differences = [49, -67, 8, 16, 6, 23, 28, 41, 14, 29, 56, 24, 75, 60, -48]
    assert signed_rank_p(np.array(differences, dtype=float)) == pytest.approx(0.0413, abs=2e-4)


def test_holm_by_hand():
    np.testing.assert_allclose(holm([0.01, 0.04, 0.03]), [0.03, 0.06, 0.06])
    np.testing.assert_allclose(holm([0.5, 0.9]), [1, 1])
    np.testing.assert_allclose(holm([np.nan, 0.02, 0.01]), [np.nan, 0.02, 0.02])
    assert holm([]).shape == (0,)


@pytest.mark.parametrize(
    ("other", "metric", "words"),
    [
        (evaluation([[0.5, 0.5]], ("case_7",)), "DSC", "same cases; only one of them has: case_0, case_7"),
        (evaluation([[0.5, 0.5]], classes=("liver", "vessel")), "DSC", "same classes; .* tumor, vessel"),
        (evaluation([[0.5, 0.5]]), "HD95_mm", "no HD95_mm among DSC, NSD"),
        (evaluation([[0.5, 0.5]], nsd_tolerance_mm=1.0), "NSD", "cannot be compared"),
    ],
)
def test_what_cannot_be_compared(other, metric, words):
    with pytest.raises(EvaluationError, match=words):
        compare(evaluation([[0.5, 0.5]], nsd_tolerance_mm=2.0), other, metric)
