"""Scores as tables: the layout of the paper's Tables 1 and 2, every class, and the tests."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence

from ...escaping import escape_markdown
from ...evaluation.bootstrap import MIN_CASES, RESAMPLES, mean_intervals
from ...evaluation.paired import PAIRS
from ...evaluation.scores import METRICS
from ...evaluation.tables import column_title, format_markdown
from ..results import BenchmarkResults
from .contenders import Contender, have_same_cases, reference_contender
from .markdown import MISSING, bold_best, collapsed, millimetres, percent
from .significance import compare_with

# With more classes the main table would be too wide to read: they get one of their own.
MAX_CLASSES_IN_MAIN_TABLE = 3
HEADINGS = {"DSC": "DSC", "IoU": "mIoU"}
DISTANCES = {"HD95_mm"}  # less is better, and they are not in percent


def results_tables(results: BenchmarkResults, contenders: Sequence[Contender]) -> str:
    """Everything about scores, as Markdown."""
    scored = [contender for contender in contenders if contender.evaluation]
    if not scored:
        return "No run is complete: there is no score yet."
    classes = scored[0].evaluation.classes
    wide = len(classes) <= MAX_CLASSES_IN_MAIN_TABLE
    intervals = {
        m.name: {metric: mean_intervals(scores) for metric, scores in m.evaluation.scores.items()} for m in scored
    }
    parts = [
        _headline(scored),
        format_markdown(_main_table(results, scored, classes if wide else (), intervals)),
        _legend(results, scored),
    ]
    if not wide:
        tables = [
            f"{HEADINGS[metric]} in %:\n\n{format_markdown(_class_table(scored, classes, metric, intervals))}"
            for metric in METRICS
        ]
        parts.append(collapsed(f"Each of the {len(classes)} classes", "\n\n".join(tables)))
    return "\n\n".join([*parts, _tests(scored)])


def _headline(scored: Sequence[Contender]) -> str:
    if not have_same_cases(scored):
        return (
            "**Not ranked**: the methods are scored on different cases, as when other folds of each are complete. The "
            "scores are over each method's own cases; the tests below compare the cases that two methods share."
        )
    by_score = sorted(scored, key=lambda contender: _sortable(contender.evaluation.average("DSC")), reverse=True)
    first, reference = by_score[:2], reference_contender(scored)
    headline = f"Highest average DSC: {', before '.join(_name_and_score(contender, ' with') for contender in first)}"
    if reference not in first:
        return f"{headline}; the tests below compare with {_name_and_score(reference, ',')}."
    return f"{headline}{'; the tests below say what the difference is worth' if len(first) > 1 else ''}."


def _name_and_score(contender: Contender, between: str) -> str:
    return f"{escape_markdown(contender.name)}{between} {percent(contender.evaluation.average('DSC'))} %"


def _main_table(
    results: BenchmarkResults, scored: Sequence[Contender], classes: Sequence[str], intervals: Mapping
) -> list[list[str]]:
    several = any(len(contender.seeds) > 1 for contender in scored)
    averaged = [metric for metric in scored[0].evaluation.scores if all(metric in m.evaluation.scores for m in scored)]
    header = ["method", "Params (M)", "MACs (G)"]
    header += [f"{escape_markdown(name)} {HEADINGS[metric]}" for name in classes for metric in METRICS]
    header += [f"average {column_title(metric, scored[0].evaluation)}" for metric in averaged]
    header += (["DSC of the seeds", "seeds"] if several else ["seeds"]) + ["cases"]
    columns = [
        bold_best(
            [m.evaluation.mean(metric)[i] for m in scored],
            [intervals[m.name][metric][0][i] for m in scored],
            best=_best(scored),
        )
        for i in range(len(classes))
        for metric in METRICS
    ] + [
        bold_best(
            [m.evaluation.average(metric) for m in scored],
            [intervals[m.name][metric][1] for m in scored],
            show=millimetres if metric in DISTANCES else percent,
            best=_best(scored, metric),
        )
        for metric in averaged
    ]
    rows = [header]
    for i, contender in enumerate(scored):
        costs = results.complexity.get(contender.trainer, {})
        sizes = [_scaled(costs.get("parameters"), 1e6), _scaled(costs.get("macs"), 1e9)]
        spread = [_spread(contender.averages_by_seed("DSC"))] if several else []
        numbers = [str(len(contender.seeds)), str(contender.evaluation.num_counted_in_average())]
        rows.append([escape_markdown(contender.name), *sizes, *(column[i] for column in columns), *spread, *numbers])
    return rows


def _class_table(
    scored: Sequence[Contender], classes: Sequence[str], metric: str, intervals: Mapping
) -> list[list[str]]:
    """A row for each class and a column for each method, so that many classes stay legible."""
    rows = [["class", *(escape_markdown(contender.name) for contender in scored)]]
    for i, name in enumerate(classes):
        means = [contender.evaluation.mean(metric)[i] for contender in scored]
        ends = [intervals[m.name][metric][0][i] for m in scored]
        rows.append([escape_markdown(name), *bold_best(means, ends, best=_best(scored))])
    return rows


def _best(scored: Sequence[Contender], metric: str = "DSC") -> Callable | None:
    """Chooses what is bold in a column: nothing if the methods are scored on different cases."""
    if not have_same_cases(scored):
        return None
    return min if metric in DISTANCES else max


def _legend(results: BenchmarkResults, scored: Sequence[Contender]) -> str:
    seeds = (
        " If a method has several seeds, the score of a case is the mean over them; *DSC of the seeds* is the range of "
        "the average DSC over the seeds."
        if any(len(contender.seeds) > 1 for contender in scored)
        else ""
    )
    bold = (
        "the best of a column is bold"
        if have_same_cases(scored)
        else "none is bold, since the methods are scored on different cases"
    )
    patch = "x".join(map(str, results.patch_size))
    return (
        "Scores in %, distances in their unit: means over the cases, with the 95 % interval in brackets, by bootstrap "
        f"over the cases ({RESAMPLES:,} resamples; none below {MIN_CASES} cases): what other cases would change, not "
        f"what another training would.{seeds} The average is over the classes; {bold}. "
        f"Parameters and MACs are true counts for one patch of {patch}: every parameter, and the MACs of convolutions, "
        "matrix products and scans (two FLOPs of a scan count as one), not the paper's convention, which leaves out "
        "Mamba (`nnUNetv2_lightm complexity --paper` prints both)."
    )


def _tests(scored: Sequence[Contender]) -> str:
    reference = reference_contender(scored)
    comparisons = compare_with(reference, scored)
    if not comparisons:
        return "One method is scored: there is nothing to test."
    rows = [["method", "difference of DSC, points", "95 % interval", "p", "p, Holm", "cases"]]
    for comparison in comparisons:
        paired = comparison.difference
        if paired is None or not paired.cases:
            rows.append([escape_markdown(comparison.contender.name), *[MISSING] * 4, "0"])
            continue
        low, high = paired.interval
        interval = MISSING if math.isnan(low) else f"{100 * low:+.2f} to {100 * high:+.2f}"
        p_values = [f"{p:.2g}" for p in (paired.p_value, comparison.p_holm)]
        rows.append(
            [
                escape_markdown(comparison.contender.name),
                f"{100 * paired.mean:+.2f}",
                interval,
                *p_values,
                str(paired.cases),
            ]
        )
    tested = sum(not math.isnan(comparison.p_holm) for comparison in comparisons)
    correction = f", corrected by Holm for {tested} comparisons" if tested > 1 else ""
    return (
        f"Each method minus {escape_markdown(reference.name)}, paired by case: mean difference with its bootstrap "
        f"interval, and the two-sided Wilcoxon signed-rank test of the cases' means over their classes{correction}. "
        f"{PAIRS[0].upper()}{PAIRS[1:]}.\n\n" + format_markdown(rows)
    )


def _spread(averages: Sequence[float]) -> str:
    counted = [average for average in averages if not math.isnan(average)]
    if len(counted) < 2:
        return MISSING
    return f"{percent(min(counted))}–{percent(max(counted))}"


def _scaled(count: float | None, unit: float) -> str:
    return MISSING if count is None else f"{count / unit:,.2f}"


def _sortable(score: float) -> float:
    return -1.0 if math.isnan(score) else score
