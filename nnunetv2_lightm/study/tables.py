"""Tables as Markdown and CSV, and an evaluation as these and as JSON."""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Iterable
from pathlib import Path

from .scores import METRICS, Evaluation


def markdown_table(evaluation: Evaluation) -> str:
    """One row for each class and a last one for their average; scores as mean ± standard deviation over the cases."""
    rows = [["class", "DSC", "mIoU", "cases"]]
    counted = evaluation.num_counted()
    means = {metric: evaluation.mean(metric) for metric in METRICS}
    stds = {metric: evaluation.std(metric) for metric in METRICS}
    for i, name in enumerate(evaluation.classes):
        scores = [_mean_std(means[metric][i], stds[metric][i]) for metric in METRICS]
        rows.append([name, *scores, str(counted[i])])
    averages = [_mean_std(evaluation.average(metric), evaluation.average_std(metric)) for metric in METRICS]
    rows.append(["**average**", *averages, str(len(evaluation.cases))])
    return format_markdown(rows)


def format_markdown(rows: list[list[str]]) -> str:
    """A Markdown table whose columns line up; the first row is the header, the first column is left-aligned."""
    widths = [max(3, *(len(row[i]) for row in rows)) for i in range(len(rows[0]))]
    rule = ["-" * width if i == 0 else "-" * (width - 1) + ":" for i, width in enumerate(widths)]
    return "\n".join(
        "| " + " | ".join(f"{cell:{'<' if i == 0 else '>'}{widths[i]}}" for i, cell in enumerate(row)) + " |"
        for row in [rows[0], rule, *rows[1:]]
    )


def to_csv(evaluation: Evaluation) -> str:
    """One line for each case and class; a score that is not counted is empty."""
    rows = [["case", "class", *METRICS]]
    for i, case in enumerate(evaluation.cases):
        for j, name in enumerate(evaluation.classes):
            scores = [float(evaluation.scores[metric][i, j]) for metric in METRICS]
            rows.append([case, name, *("" if math.isnan(score) else f"{score:.6f}" for score in scores)])
    return format_csv(rows)


def format_csv(rows: Iterable[Iterable[object]]) -> str:
    """A line for each row; None gives an empty cell."""
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(rows)
    return text.getvalue()


def to_json(evaluation: Evaluation) -> str:
    """Statistics and every score; a score that is not counted is null."""
    counted = evaluation.num_counted()
    summary = {
        name: {
            **{
                metric: {
                    "mean": _or_none(evaluation.mean(metric)[j]),
                    "std": _or_none(evaluation.std(metric)[j]),
                }
                for metric in METRICS
            },
            "cases": int(counted[j]),
        }
        for j, name in enumerate(evaluation.classes)
    }
    average = {
        metric: {"mean": _or_none(evaluation.average(metric)), "std": _or_none(evaluation.average_std(metric))}
        for metric in METRICS
    }
    cases = {
        case: {
            name: {metric: _or_none(evaluation.scores[metric][i, j]) for metric in METRICS}
            for j, name in enumerate(evaluation.classes)
        }
        for i, case in enumerate(evaluation.cases)
    }
    return json.dumps({"average": average, "classes": summary, "cases": cases}, indent=2, allow_nan=False) + "\n"


def write_text(path: Path, text: str) -> None:
    """Write a file in one step, so that an interrupted run leaves the old one or none."""
    partial = path.with_name(f".{path.name}.partial")
    partial.write_text(text, encoding="utf-8")
    partial.replace(path)


def _mean_std(mean: float, std: float) -> str:
    if math.isnan(mean):
        return "-"
    return f"{mean:.4f}" if math.isnan(std) else f"{mean:.4f} ± {std:.4f}"


def _or_none(score: float) -> float | None:
    return None if math.isnan(score) else float(score)
