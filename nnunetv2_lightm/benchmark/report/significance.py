"""Tests of every method against one of them, paired by case and corrected for their number."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from ...evaluation.paired import PairedDifference, compare, holm
from ...evaluation.scores import Evaluation
from .contenders import Contender


@dataclass(frozen=True)
class AgainstReference:
    """A method's average DSC minus the reference's.

    Attributes:
        contender: The method.
        difference: Over the cases that both have; None if they share none.
        p_holm: Its p value, corrected for the number of methods; NaN without one.
    """

    contender: Contender
    difference: PairedDifference | None
    p_holm: float


def compare_with(reference: Contender, contenders: Sequence[Contender]) -> list[AgainstReference]:
    """Test every scored method but the reference against it, in their order."""
    compared = [contender for contender in contenders if contender.evaluation and contender is not reference]
    differences = [_difference(contender.evaluation, reference.evaluation) for contender in compared]
    p_values = holm([float("nan") if difference is None else difference.p_value for difference in differences])
    return [AgainstReference(*parts) for parts in zip(compared, differences, map(float, p_values), strict=True)]


def _difference(one: Evaluation, other: Evaluation) -> PairedDifference | None:
    # Methods trained on other folds have other validation cases.
    common = [case for case in one.cases if case in set(other.cases)]
    return compare(_only(one, common), _only(other, common), "DSC").average if common else None


def _only(evaluation: Evaluation, cases: Sequence[str]) -> Evaluation:
    rows = [evaluation.cases.index(case) for case in cases]
    scores = {metric: table[rows] for metric, table in evaluation.scores.items()}
    return replace(evaluation, cases=tuple(cases), scores=scores)
