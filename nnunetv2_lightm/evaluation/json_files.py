"""An evaluation as JSON and back, and the comparison with a second one."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
from pydantic import Field

from ..escaping import to_json as dump_json
from ..json_input import Amount, Content, FileName, JsonInputError, Name, check, read_json
from .bootstrap import MIN_CASES, RESAMPLES
from .paired import PAIRS, Comparison
from .scores import METRICS, Evaluation, EvaluationError

RULES = {
    "neither": "a class that neither the reference nor the prediction of a case has is not counted: null",
    "one": "if only one of them has it, DSC, IoU and NSD are 0, and HD95 is the diagonal of the image",
    "average": "the mean of the classes' means; a class that no case has is left out",
    "std": "sample standard deviation over the cases; of the average: of the cases' means over their classes",
    "ci95": f"percentile bootstrap interval of the mean, {RESAMPLES} resamples of cases; null below {MIN_CASES} cases",
}
COMPARISON_RULES = {
    "pairs": PAIRS,
    "mean": "this evaluation's score minus the other's, over the pairs; average: over the classes",
    "p_value": "two-sided Wilcoxon signed-rank test, zeros dropped, 1 if all are; average: of the cases' means; not "
    "corrected for the number of classes and metrics",
}

FRACTIONS = {"DSC", "IoU", "NSD"}
Metric = Literal["DSC", "IoU", "HD95_mm", "NSD"]


class _Surface(Content):
    nsd_tolerance_mm: Amount
    unit: Literal["mm", "pixel"] = "mm"


class _EvaluationContent(Content):
    classes: Annotated[dict[Name, Any], Field(min_length=1)]
    cases: Annotated[dict[FileName, dict[Name, dict[Metric, Amount | None]]], Field(min_length=1)]
    surface: _Surface | None = None


def to_json(evaluation: Evaluation, against: Evaluation | None = None, comparisons: Sequence[Comparison] = ()) -> str:
    """Statistics, every score, and the rules behind them; null where a score does not count.

    Args:
        evaluation: The one whose statistics and scores stand at the top.
        against: A second one, below "against".
        comparisons: The comparisons of the two, written under "comparison" by metric.
    """
    content = {**_content(evaluation), "rules": RULES}
    if against is not None:
        content["against"] = _content(against)
        content["comparison"] = {
            comparison.metric: {key: value for key, value in asdict(comparison).items() if key != "metric"}
            for comparison in comparisons
        }
        content["comparison_rules"] = COMPARISON_RULES
    return dump_json(_without_nan(content))


def evaluation_from_json(content: object, place: object = "evaluation") -> Evaluation:
    """The evaluation that `to_json` turned into this content; for the second one, pass the part under "against".

    Args:
        content: As JSON gives it.
        place: Where it comes from, for messages: a file, or a place in one.
    Raises: EvaluationError: if it is not an evaluation; names the place and the key.
    """
    try:
        checked = check(content, _EvaluationContent, place)
    except JsonInputError as error:
        raise EvaluationError(f"not an evaluation as `nnUNetv2_lightm evaluate --json` writes it: {error}") from error
    classes = tuple(checked.classes)
    metrics = list(next(iter(next(iter(checked.cases.values())).values()), {}))
    for case, of_classes in checked.cases.items():
        if set(of_classes) != set(classes) or any(list(scores) != metrics for scores in of_classes.values()):
            raise EvaluationError(
                f'{place}: cases.{case} must hold, for each class of "classes", the same metrics as the other cases'
            )
    scores = {
        metric: np.array(
            [[checked.cases[case][name][metric] for name in classes] for case in checked.cases], dtype=float
        )
        for metric in metrics
    }
    for metric in METRICS:
        if metric not in scores:
            raise EvaluationError(f"{place}: lacks the metric {metric} in cases")
    for metric in FRACTIONS & scores.keys():
        if np.nanmax(scores[metric], initial=0) > 1:
            raise EvaluationError(f"{place}: cases: {metric} of {np.nanmax(scores[metric]):g}; it is at most 1")
    return Evaluation(
        cases=tuple(checked.cases),
        classes=classes,
        scores=scores,
        nsd_tolerance_mm=checked.surface and checked.surface.nsd_tolerance_mm,
        spacing_known=checked.surface is None or checked.surface.unit == "mm",
    )


def read_evaluation(path: Path) -> Evaluation:
    """Read what `nnUNetv2_lightm evaluate --json` wrote.

    Raises: EvaluationError: if the file is missing, not JSON, or not an evaluation.
    """
    try:
        content = read_json(path)
    except JsonInputError as error:
        raise EvaluationError(str(error)) from error
    return evaluation_from_json(content, path)


def _content(evaluation: Evaluation) -> dict[str, Any]:
    metrics = tuple(evaluation.scores)
    statistics = {
        metric: (evaluation.mean(metric), evaluation.std(metric), evaluation.interval(metric)) for metric in metrics
    }
    average = {
        metric: _statistics(
            evaluation.average(metric), evaluation.average_std(metric), evaluation.average_interval(metric)
        )
        for metric in metrics
    }
    counted = evaluation.num_counted()
    classes = {
        name: {
            **{metric: _statistics(*(values[j] for values in statistics[metric])) for metric in metrics},
            "cases": int(counted[j]),
        }
        for j, name in enumerate(evaluation.classes)
    }
    cases = {
        case: {
            name: {metric: float(evaluation.scores[metric][i, j]) for metric in metrics}
            for j, name in enumerate(evaluation.classes)
        }
        for i, case in enumerate(evaluation.cases)
    }
    content = {"average": average, "classes": classes, "cases": cases}
    if evaluation.nsd_tolerance_mm is not None:
        # The keys say mm; "unit" is what the files' spacing is in.
        unit = "mm" if evaluation.spacing_known else "pixel"
        content["surface"] = {"nsd_tolerance_mm": evaluation.nsd_tolerance_mm, "unit": unit}
    return content


def _statistics(mean: float, std: float, interval: np.ndarray) -> dict[str, Any]:
    return {"mean": float(mean), "std": float(std), "ci95": [float(end) for end in interval]}


def _without_nan(value: Any) -> Any:
    """NaN as null, and an interval of two NaN as one null."""
    if isinstance(value, dict):
        return {key: _without_nan(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        items = [_without_nan(item) for item in value]
        return None if items and all(item is None for item in items) else items
    return None if isinstance(value, float) and math.isnan(value) else value
