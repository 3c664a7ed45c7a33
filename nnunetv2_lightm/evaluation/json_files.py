"""An evaluation as JSON and back, and the comparison with a second one."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from .bootstrap import MIN_CASES, RESAMPLES
from .paired import Comparison
from .scores import Evaluation, EvaluationError

RULES = {
    "neither": "a class that neither the reference nor the prediction of a case has is not counted: null",
    "one": "if only one of them has it, DSC, IoU and NSD are 0, and HD95 is the diagonal of the image",
    "average": "the mean of the classes' means; a class that no case has is left out",
    "std": "sample standard deviation over the cases; of the average: of the cases' means over their classes",
    "ci95": f"percentile bootstrap interval of the mean, {RESAMPLES} resamples of cases; null below {MIN_CASES} cases",
}
COMPARISON_RULES = {
    "mean": "this evaluation's score less the other's, over the cases that count in both; average: over the classes",
    "p_value": "two-sided Wilcoxon signed-rank test, zeros dropped, 1 if all are; average: of the cases' means; not "
    "corrected for the number of classes and metrics",
}


def to_json(evaluation: Evaluation, against: Evaluation | None = None, comparisons: Sequence[Comparison] = ()) -> str:
    """Statistics, every score, and the rules by which they are taken; what is not counted is null.

    Args:
        evaluation: The one whose statistics and scores stand at the top.
        against: A second one, below "against".
        comparisons: Of the two, below "comparison", by metric.
    """
    content = {**_content(evaluation), "rules": RULES}
    if against is not None:
        content["against"] = _content(against)
        content["comparison"] = {
            comparison.metric: {key: value for key, value in asdict(comparison).items() if key != "metric"}
            for comparison in comparisons
        }
        content["comparison_rules"] = COMPARISON_RULES
    return json.dumps(_without_nan(content), indent=2, allow_nan=False) + "\n"


def evaluation_from_json(content: Mapping[str, Any]) -> Evaluation:
    """The evaluation of which `to_json` made this content (of "against": give that part).

    Raises: EvaluationError: if it is none.
    """
    try:
        cases, classes = content["cases"], tuple(content["classes"])
        metrics = list(next(iter(cases.values()))[classes[0]])
        scores = {
            metric: np.array([[cases[case][name][metric] for name in classes] for case in cases], dtype=float)
            for metric in metrics
        }
        surface = content.get("surface") or {}
        return Evaluation(
            cases=tuple(cases),
            classes=classes,
            scores=scores,
            nsd_tolerance_mm=surface.get("nsd_tolerance_mm"),
            spacing_known=surface.get("unit", "mm") == "mm",
        )
    except (AttributeError, KeyError, IndexError, StopIteration, TypeError, ValueError) as error:
        raise EvaluationError(
            f'no evaluation as `nnUNetv2_lightm evaluate --json` writes it: "cases" must hold, for each case and class '
            f'of "classes", the same metrics ({type(error).__name__}: {error})'
        ) from error


def read_evaluation(path: Path) -> Evaluation:
    """Read what `nnUNetv2_lightm evaluate --json` wrote.

    Raises: EvaluationError: if the file is missing, no JSON, or no evaluation.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise EvaluationError(f"{path}: cannot be read: {error}") from error
    try:
        return evaluation_from_json(content)
    except EvaluationError as error:
        raise EvaluationError(f"{path}: {error}") from error


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
