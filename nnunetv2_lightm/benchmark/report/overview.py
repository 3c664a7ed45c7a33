"""Several comparisons at a glance: the average DSC of each method in each of them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from ...escaping import escape_markdown
from ...evaluation.bootstrap import mean_intervals
from ...evaluation.tables import format_markdown
from ..results import BenchmarkResults
from .contenders import Contender, find_contenders, have_same_cases, short_name
from .markdown import MISSING, bold_best


def overview(comparisons: Sequence[BenchmarkResults]) -> str | None:
    """A row for each method that is scored in several comparisons, as Markdown; None if there is no such method."""
    methods = [[one for one in find_contenders(results) if one.evaluation] for results in comparisons]
    columns = [_scores(scored) for scored in methods]
    counts = Counter(trainer for column in columns for trainer in column)
    trainers = [trainer for trainer, count in counts.items() if count > 1]
    if not trainers:
        return None
    rows = [["method", *(f"comparison {i}" for i in range(1, len(columns) + 1))]]
    rows += [
        [escape_markdown(short_name(name)), *(column.get(name, MISSING) for column in columns)] for name in trainers
    ]
    condition = "" if all(map(have_same_cases, methods)) else ", where all are scored on the same cases"
    return (
        "Average DSC in % with its 95 % interval in brackets, for the methods that are scored in several comparisons; "
        f"the best of all methods in a comparison is bold{condition}:\n\n{format_markdown(rows)}"
    )


def _scores(scored: Sequence[Contender]) -> dict[str, str]:
    """The cell of each trainer of a comparison, all of them scored."""
    means = [contender.evaluation.average("DSC") for contender in scored]
    intervals = [mean_intervals(contender.evaluation.scores["DSC"])[1] for contender in scored]
    cells = bold_best(means, intervals, best=max if have_same_cases(scored) else None)
    return dict(zip((contender.trainer for contender in scored), cells, strict=True))
