"""Paired comparison: differences and p values by hand, empty classes, false positives, Holm's correction."""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
import pytest

from nnunetv2_lightm.evaluation.paired import PAIRS, compare, holm, signed_rank_p
from nnunetv2_lightm.evaluation.scores import FAULTLESS, Evaluation, EvaluationError

GUIDE = Path(__file__).resolve().parents[2] / "docs" / "guides" / "evaluation.md"


def evaluation(scores, cases=None, classes=("liver", "tumor"), **options):
    scores = np.asarray(scores, dtype=float)
    cases = cases or tuple(f"case_{i}" for i in range(len(scores)))
    return Evaluation(cases, classes[: scores.shape[1]], {"DSC": scores, "NSD": scores}, **options)


def test_differences_by_hand():
    a = evaluation([[0.9, 0.5], [0.8, np.nan], [0.7, 0.6], [0.9, np.nan]])
    b = evaluation([[0.8, 0.2], [0.6, np.nan], [0.4, 0.5], [0.5, np.nan]])
    result = compare(a, b, "DSC")
    liver, tumor = result.classes["liver"], result.classes["tumor"]
    assert (liver.mean, liver.cases) == (pytest.approx(0.25), 4)
    assert liver.p_value == pytest.approx(2 / 2**4)  # all positive: the two extremes of 16 signs
    assert 0.1 <= liver.interval[0] < 0.25 < liver.interval[1] <= 0.4
    assert (tumor.mean, tumor.cases) == (pytest.approx(0.2), 2)  # no case without a score counts
    assert np.isnan(tumor.interval).all()
    assert result.average.mean == pytest.approx((0.25 + 0.2) / 2)
    assert result.average.cases == 4
    assert result.average.p_value == pytest.approx(1 / 8)  # of the cases' means: 0.2, 0.2, 0.2, 0.4
    assert result.average.interval[0] < result.average.mean < result.average.interval[1]


@pytest.mark.parametrize(("metric", "worst"), [("DSC", 0), ("IoU", 0), ("NSD", 0), ("HD95_mm", 30.0)])
def test_a_method_that_rightly_finds_nothing_is_faultless_where_the_other_finds_something(metric, worst):
    """Three cases with the class, three without, in which only b finds it: each is a pair."""
    dsc = np.array([[0.9], [0.9], [0.9], [np.nan], [np.nan], [np.nan]])
    shared = np.full((3, 1), 0.9)
    cases = tuple("uvwxyz")
    ours = {"DSC": dsc, metric: np.concatenate([shared, np.full((3, 1), np.nan)])}
    theirs = {"DSC": np.where(np.isnan(dsc), 0, dsc), metric: np.concatenate([shared, np.full((3, 1), float(worst))])}
    a, b = (Evaluation(cases, ("tumor",), scores, nsd_tolerance_mm=1.0) for scores in (ours, theirs))
    forth, back = compare(a, b, metric), compare(b, a, metric)
    for paired in (forth.classes["tumor"], forth.average):
        assert (paired.mean, paired.cases) == (pytest.approx((FAULTLESS[metric] - worst) / 2), 6)
        assert paired.p_value == pytest.approx(2 / 2**3)
    assert back.average.mean == -forth.average.mean and back.average.cases == 6


def test_a_case_in_which_both_rightly_find_nothing_is_no_pair():
    result = compare(
        evaluation([[0.5, np.nan], [np.nan, np.nan]]), evaluation([[0.5, np.nan], [np.nan, np.nan]]), "DSC"
    )
    assert [paired.cases for paired in (*result.classes.values(), result.average)] == [1, 0, 1]


def test_a_distance_that_is_undefined_for_another_reason_is_no_pair():
    dsc = np.array([[0.8], [0.0], [np.nan]])
    a = Evaluation(("x", "y", "z"), ("tumor",), {"DSC": dsc, "HD95_mm": np.array([[2.0], [np.nan], [np.nan]])})
    b = Evaluation(("x", "y", "z"), ("tumor",), {"DSC": dsc, "HD95_mm": np.array([[3.0], [9.0], [np.nan]])})
    average = compare(a, b, "HD95_mm").average
    assert (average.mean, average.cases) == (-1, 1)


def test_the_guide_says_which_pairs_there_are():
    assert PAIRS in " ".join(GUIDE.read_text(encoding="utf-8").split())


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
