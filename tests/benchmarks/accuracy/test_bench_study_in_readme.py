"""The tables of scores in the README and docs/study are what is published in benchmarks/accuracy/results."""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path

import pytest

from benchmarks.accuracy import comparisons, rule, study
from nnunetv2_lightm.benchmark.report.contenders import find_contenders
from nnunetv2_lightm.benchmark.report.markdown import percent
from nnunetv2_lightm.benchmark.report.significance import compare_with
from nnunetv2_lightm.benchmark.results import SECONDS, load_results

from ...markdown_tables import tables

ROOT = Path(__file__).resolve().parents[3]
README, STUDY = ROOT / "README.md", ROOT / "docs/study/README.md"
# Each with the comparison of the methods, and that of the recipes.
COLUMNS = {
    "X-rays, 8 minutes": ("chest_seconds", "chest_recipe_seconds"),
    "X-rays, 640 iterations": ("chest_iterations", "chest_recipe_iterations"),
    "hippocampus, 30 minutes": ("hippocampus_seconds", "hippocampus_recipe_seconds"),
    "hippocampus, 1,180 iterations": ("hippocampus_iterations", "hippocampus_recipe_iterations"),
}
ROWS = (*comparisons.METHODS, comparisons.NEW, *comparisons.SAME_RECIPE, comparisons.RESENC_M)
NOT_RUN = "-"
DIFFERENCE = "*LightMUNet minus stock, 95 % interval*"


def table_of(page):
    """The columns of the page's table, each a mapping from the first cell of a row to its cell."""
    found = tables(page.read_text(encoding="utf-8"))
    ((header, rows),) = [(header, rows) for header, rows in found if header[1:] == list(COLUMNS)]
    return {column: {row[0]: row[i] for row in rows} for i, column in enumerate(header[1:], start=1)}


@pytest.mark.parametrize("column", COLUMNS)
def test_all_scores_are_the_published_ones(column):
    published = {column: scores(column) for column in COLUMNS}
    expected = {
        f"stock `{trainer}`" if trainer == comparisons.RIVALS[0] else f"`{trainer}`": published[column].get(
            trainer, NOT_RUN
        )
        for trainer in ROWS
        if any(trainer in of_column for of_column in published.values())
    }
    of_methods, of_recipes = loaded(column)
    methods = contenders(of_recipes)
    stock, ours = (methods[trainer] for trainer in comparisons.RULE)
    (comparison,) = compare_with(stock, [stock, ours])
    expected[DIFFERENCE] = "{:+.2f} to {:+.2f}".format(*(100 * end for end in comparison.difference.interval))
    assert table_of(STUDY)[column] == expected
    assert cells(of_recipes)[comparisons.RIVALS[0]] == cells(of_methods)[comparisons.RIVALS[0]]


@pytest.mark.parametrize("column", COLUMNS)
def test_the_readme_has_some_of_them(column):
    """Also those in which LightMUNet is not ahead."""
    said = table_of(README)[column]
    assert said.items() <= table_of(STUDY)[column].items()
    assert said.keys() >= {"stock `nnUNetTrainer`", f"`{comparisons.NEW}`", DIFFERENCE, "`nnUNetTrainerPlainMuon`"}


def test_differences_in_the_text_are_the_published_ones():
    """As the rule computes them, in the columns' order."""
    differences = [rule.difference(loaded(column)[1]) for column in COLUMNS]
    published = {f"{abs(difference.mean):.2f}" for difference in differences}
    said = re.findall(r"\d+\.\d\d", paragraph("**LightMUNet"))
    assert set(said) == published and len(said) == len(COLUMNS)


def paragraph(beginning):
    section = README.read_text(encoding="utf-8").split("\n## Scores\n")[1].split("\n## ")[0]
    (found,) = [part for part in section.split("\n\n") if part.startswith(beginning)]
    return found


@cache
def loaded(column):
    return tuple(load_results(study.PUBLISHED / f"{name}.json") for name in COLUMNS[column])


def scores(column):
    """The cells of both comparisons, by trainer."""
    of_methods, of_recipes = map(cells, loaded(column))
    return of_recipes | of_methods


def contenders(results):
    return {method.trainer: method for method in find_contenders(results) if method.evaluation}


def cells(results):
    """The scores, with the iterations in a comparison of equal time."""
    found = {}
    for trainer, method in contenders(results).items():
        found[trainer] = percent(method.evaluation.average("DSC"))
        if results.equal == SECONDS:
            found[trainer] += f" ({iterations(method.scored[0]):,})"
    return found


def iterations(run):
    return len(run.epochs) * run.iterations_per_epoch
