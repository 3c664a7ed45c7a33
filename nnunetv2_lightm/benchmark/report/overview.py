"""Several comparisons at a glance: the average DSC of each method in each of them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from ...escaping import escape_markdown
from ...evaluation.bootstrap import mean_intervals
from ...evaluation.tables import format_markdown
from ..results import BenchmarkResults
from .contenders import find_contenders, short_name
from .markdown import MISSING, bold_best


def overview(comparisons: Sequence[BenchmarkResults]) -> str | None:
    """A row for each method that is scored in several comparisons, as Markdown; None if there is no such method."""
    columns = [_scores(results) for results in comparisons]
    counts = Counter(trainer for column in columns for trainer in column)
    trainers = [trainer for trainer, count in counts.items() if count > 1]
    if not trainers:
        return None
    rows = [["method", *(f"comparison {i}" for i in range(1, len(columns) + 1))]]
    rows += [
        [escape_markdown(short_name(name)), *(column.get(name, MISSING) for column in columns)] for name in trainers
    ]
    return (
        "Average DSC in % with its 95 % interval in brackets, for the methods that are scored in several comparisons; "
        f"the best of all methods in a comparison is bold:\n\n{format_markdown(rows)}"
    )


def _scores(results: BenchmarkResults) -> dict[str, str]:
    """The cell of each trainer that is scored."""
    scored = {contender.trainer: contender.evaluation for contender in find_contenders(results) if contender.evaluation}
    means = [evaluation.average("DSC") for evaluation in scored.values()]
    intervals = [mean_intervals(evaluation.scores["DSC"])[1] for evaluation in scored.values()]
    return dict(zip(scored, bold_best(means, intervals), strict=True))
