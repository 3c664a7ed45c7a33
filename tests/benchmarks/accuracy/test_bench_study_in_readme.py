"""The README's table of scores is what is published in benchmarks/accuracy/results."""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path

import pytest

from benchmarks.accuracy import comparisons, rule, study
from nnunetv2_lightm.benchmark.report.contenders import find_contenders, short_name
from nnunetv2_lightm.benchmark.report.curves import training_curves
from nnunetv2_lightm.benchmark.report.markdown import percent
from nnunetv2_lightm.benchmark.report.significance import compare_with
from nnunetv2_lightm.benchmark.results import SECONDS, load_results

from ...markdown_tables import tables

README = Path(__file__).resolve().parents[3] / "README.md"
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


@pytest.fixture(scope="module")
def readme():
    """The columns of the table, each a mapping from the first cell of a row to its cell."""
    found = tables(README.read_text(encoding="utf-8"))
    ((header, rows),) = [(header, rows) for header, rows in found if header[1:] == list(COLUMNS)]
    return {column: {row[0]: row[i] for row in rows} for i, column in enumerate(header[1:], start=1)}


@pytest.mark.parametrize("column", COLUMNS)
def test_scores_are_the_published_ones(readme, column):
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
    assert readme[column] == expected
    assert cells(of_recipes)[comparisons.RIVALS[0]] == cells(of_methods)[comparisons.RIVALS[0]]


def test_differences_in_the_text_are_the_published_ones():
    """As the rule computes them, in the columns' order."""
    differences = [rule.difference(loaded(column)[1]) for column in COLUMNS]
    published = {f"{abs(difference.mean):.2f}" for difference in differences}
    said = re.findall(r"\d+\.\d\d", paragraph("**LightMUNet"))
    assert set(said) == published and len(said) == len(COLUMNS)


def test_scores_in_the_text_are_those_of_the_optimiser_on_both_networks():
    """With equal iterations, then in equal time with each one's number of iterations; then how soon they learn."""
    plain, ours = comparisons.SAME_RECIPE[0], comparisons.NEW
    chest, hippocampus = scores("X-rays, 640 iterations"), scores("hippocampus, 1,180 iterations")
    expected = [chest[plain], "640", chest[ours], hippocampus[plain], "1,180", hippocampus[ours]]
    for column in ("X-rays, 8 minutes", "hippocampus, 30 minutes"):
        for trainer in (plain, ours):
            expected += re.fullmatch(r"(\S+) \((\S+)\)", scores(column)[trainer]).groups()
    results = loaded("hippocampus, 30 minutes")[1]
    curves = training_curves(results, find_contenders(results))
    names = map(short_name, (plain, ours, comparisons.RIVALS[0]))
    expected += ["0.85", *(f"{curves[name].seconds_to_reach(0.85):,.0f}" for name in names)]
    assert re.findall(r"\d[\d,.]*\d\d", paragraph("**Is it the network")) == expected


def test_scores_in_the_text_are_those_of_the_larger_x_rays():
    results = load_results(study.PUBLISHED / "chest_256.json")
    methods = contenders(results)
    stock, ours = (methods[trainer] for trainer in comparisons.RULE)
    (comparison,) = compare_with(stock, [stock, ours])
    curves = training_curves(results, find_contenders(results))
    expected = []
    for method in (ours, stock):
        expected += [percent(method.evaluation.average("DSC")), str(iterations(method.scored[0]))]
    difference = (comparison.difference.mean, *comparison.difference.interval)
    expected += [f"{100 * points:.2f}" for points in difference]
    expected += [
        "0.95",
        *(f"{curves[short_name(name)].seconds_to_reach(0.95):,.0f}" for name in reversed(comparisons.RULE)),
    ]
    said = paragraph("**At 256x256**").partition(", one seed: ")[2]
    assert re.findall(r"\d[\d,.]*\d", said) == expected


def test_scores_in_the_text_are_those_of_the_ablations():
    found = cells(load_results(study.PUBLISHED / "chest_recipe_ablations.json"))
    said = re.findall(r"\d+\.\d\d", paragraph("**Does it need Mamba"))
    ablations = ("", "Conv3", "SelfAttention", "NoAdjustment", "NoResidual")
    assert said == [found[f"{comparisons.NEW}{name}"] for name in ablations]


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
