"""The README's table of scores is what is published in benchmarks/accuracy/results."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.accuracy import comparisons, study
from nnunetv2_lightm.benchmark.report.contenders import find_contenders
from nnunetv2_lightm.benchmark.report.markdown import percent
from nnunetv2_lightm.benchmark.report.significance import compare_with
from nnunetv2_lightm.benchmark.results import SECONDS, load_results

from ...markdown_tables import tables

README = Path(__file__).resolve().parents[3] / "README.md"
COLUMNS = {
    "X-rays, 8 minutes": "chest_seconds",
    "X-rays, 640 iterations": "chest_iterations",
    "hippocampus, 30 minutes": "hippocampus_seconds",
    "hippocampus, 1,180 iterations": "hippocampus_iterations",
}
DIFFERENCE = "*LightMUNet minus stock, 95 % interval*"


@pytest.fixture(scope="module")
def readme():
    """The columns of the table, each a mapping from the first cell of a row to its cell."""
    found = tables(README.read_text(encoding="utf-8"))
    ((header, rows),) = [(header, rows) for header, rows in found if header[1:] == list(COLUMNS)]
    return {column: {row[0]: row[i] for row in rows} for i, column in enumerate(header[1:], start=1)}


@pytest.mark.parametrize("column", COLUMNS)
def test_scores_are_the_published_ones(readme, column):
    results = load_results(study.PUBLISHED / f"{COLUMNS[column]}.json")
    methods = {method.trainer: method for method in find_contenders(results) if method.evaluation}
    expected = {}
    for trainer in comparisons.METHODS:
        cell = "-"
        if trainer in methods:
            cell = percent(methods[trainer].evaluation.average("DSC"))
            if results.equal == SECONDS:
                cell += f" ({iterations(methods[trainer].scored[0]):,})"
        expected[f"stock `{trainer}`" if trainer == comparisons.RIVALS[0] else f"`{trainer}`"] = cell
    stock, ours = (methods[trainer] for trainer in comparisons.RIVALS)
    (comparison,) = compare_with(stock, [stock, ours])
    expected[DIFFERENCE] = "{:+.2f} to {:+.2f}".format(*(100 * end for end in comparison.difference.interval))
    assert readme[column] == expected


def iterations(run):
    return len(run.epochs) * run.iterations_per_epoch
