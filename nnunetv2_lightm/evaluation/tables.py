"""Evaluations and comparisons as Markdown and CSV tables."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from ..escaping import escape_csv, escape_markdown
from .paired import Comparison
from .scores import Evaluation


def markdown_table(evaluation: Evaluation) -> str:
    """One row for each class and a last one for their average.

    A score is its mean ± standard deviation over the cases, and in brackets the bootstrap 95 % interval of the mean.
    """
    rows = [["class", *(column_title(metric, evaluation) for metric in evaluation.scores), "cases"]]
    for i, name in enumerate(evaluation.classes):
        cells = [
            _mean_std(metric, evaluation.mean(metric)[i], evaluation.std(metric)[i], evaluation.interval(metric)[i])
            for metric in evaluation.scores
        ]
        rows.append([escape_markdown(name, inner_underscores=False), *cells, str(evaluation.num_counted()[i])])
    averages = [
        _mean_std(
            metric, evaluation.average(metric), evaluation.average_std(metric), evaluation.average_interval(metric)
        )
        for metric in evaluation.scores
    ]
    rows.append(["**average**", *averages, str(evaluation.num_counted_in_average())])
    return format_markdown(rows)


def comparison_table(comparisons: Sequence[Comparison], evaluation: Evaluation) -> str:
    """One row for each metric and class: mean paired difference, its bootstrap 95 % interval and Wilcoxon's p.

    Args:
        comparisons: By one metric each.
        evaluation: One of the two that are compared, for the units.
    """
    rows = [["difference", "class", "mean", "95 % interval", "p", "cases"]]
    for comparison in comparisons:
        metric = comparison.metric
        classes = [
            (escape_markdown(name, inner_underscores=False), paired) for name, paired in comparison.classes.items()
        ]
        for name, paired in (*classes, ("**average**", comparison.average)):
            low, high = paired.interval
            interval = "-" if math.isnan(low) else f"[{_number(metric, low, '+')}, {_number(metric, high, '+')}]"
            mean = "-" if math.isnan(paired.mean) else _number(metric, paired.mean, "+")
            p = "-" if math.isnan(paired.p_value) else f"{paired.p_value:.2g}"
            rows.append([column_title(metric, evaluation), name, mean, interval, p, str(paired.cases)])
    return format_markdown(rows)


def column_title(metric: str, evaluation: Evaluation) -> str:
    """A metric's name in a table's header: a mean of IoU is mIoU, distances have their unit."""
    unit = "mm" if evaluation.spacing_known else "px"
    if metric == "NSD":
        return f"NSD at {evaluation.nsd_tolerance_mm:g} {unit}"
    return {"IoU": "mIoU", "HD95_mm": f"HD95 [{unit}]"}.get(metric, metric)


def format_markdown(rows: list[list[str]]) -> str:
    """A Markdown table whose columns line up; the first row is the header, the first column is left-aligned.

    Args:
        rows: Cells, as Markdown: names in them are escaped already.
    """
    widths = [max(3, *(len(row[i]) for row in rows)) for i in range(len(rows[0]))]
    rule = ["-" * width if i == 0 else "-" * (width - 1) + ":" for i, width in enumerate(widths)]
    return "\n".join(
        "| " + " | ".join(f"{cell:{'<' if i == 0 else '>'}{widths[i]}}" for i, cell in enumerate(row)) + " |"
        for row in [rows[0], rule, *rows[1:]]
    )


def to_csv(evaluation: Evaluation) -> str:
    """One line for each case and class; a score that is not counted is empty."""
    rows = [["case", "class", *evaluation.scores]]
    for i, case in enumerate(evaluation.cases):
        for j, name in enumerate(evaluation.classes):
            scores = [float(evaluation.scores[metric][i, j]) for metric in evaluation.scores]
            rows.append([case, name, *("" if math.isnan(score) else f"{score:.6f}" for score in scores)])
    return format_csv(rows)


def format_csv(rows: Iterable[Iterable[object]]) -> str:
    """One line per row; None becomes an empty cell. No spreadsheet takes a cell for a formula."""
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows([*map(escape_csv, row)] for row in rows)
    return text.getvalue()


def records_as_csv(records: Sequence[Mapping[str, object]]) -> str:
    """One line per record, below the names of their fields, which are the same in all."""
    return format_csv([records[0].keys(), *(record.values() for record in records)])


def _mean_std(metric: str, mean: float, std: float, interval: np.ndarray) -> str:
    if math.isnan(mean):
        return "-"
    text = _number(metric, mean)
    if not math.isnan(std):
        text += f" ± {_number(metric, std)}"
    if not math.isnan(interval[0]):
        text += f" [{_number(metric, interval[0])}, {_number(metric, interval[1])}]"
    return text


def _number(metric: str, value: float, sign: str = "") -> str:
    return f"{value:{sign}.{2 if metric == 'HD95_mm' else 4}f}"
