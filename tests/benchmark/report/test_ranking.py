"""Which methods are ranked and tested against each other: by the same cases, false positives included."""

from __future__ import annotations

import re
from dataclasses import replace

from nnunetv2_lightm.benchmark.report.contenders import find_contenders
from nnunetv2_lightm.benchmark.report.overview import overview
from nnunetv2_lightm.benchmark.report.score_tables import results_tables
from nnunetv2_lightm.evaluation.paired import PAIRS

from ..make_results import TRAINERS, make_results
from .test_report import table_rows


def of_folds(results, cases):
    """The same with the scores of some cases alone, of each trainer."""
    runs = []
    for run in results.runs:
        kept = {name: scores for name, scores in run.evaluation["cases"].items() if name in cases[run.trainer]}
        runs.append(replace(run, evaluation={**run.evaluation, "cases": kept}))
    return replace(results, runs=tuple(runs))


def test_methods_scored_on_different_cases_are_not_ranked():
    """Stock's folds are the hard and the easy cases, the others have only one of the two, and UNETR another one."""
    names = [f"case_{i}" for i in range(6)]
    folds = dict(zip(TRAINERS, (names, names[:4], names[4:]), strict=True))
    results = of_folds(make_results(), folds)
    text = results_tables(results, find_contenders(results))
    assert text.startswith("**Not ranked**: the methods are scored on different cases") and "Highest" not in text
    table = text.split("Each method minus")[0]
    assert "**" not in table.replace("**Not ranked**", "") and "none is bold" in table
    assert [table_rows(table, name)[0][-1] for name in ("nnUNetTrainer", "LightMUNet", "SegResNet")] == ["6", "4", "2"]
    several = overview([results, results])
    assert "**" not in several and "is bold, where all are scored on the same cases" in several
    same = make_results()
    assert overview([results, same]).count("**") == 2
    text = results_tables(same, find_contenders(same))
    assert text.startswith("Highest average DSC: nnUNetTrainer with ") and "the best of a column is bold" in text


def test_the_headline_names_first_and_second_and_the_reference_where_it_is_neither():
    headlines = []
    for best in range(3):
        runs = make_results(TRAINERS[1 : best + 1] + TRAINERS[:1] + TRAINERS[best + 1 :]).runs
        results = replace(make_results(), runs=runs)
        headlines.append(results_tables(results, find_contenders(results)).splitlines()[0])
    scores = [re.findall(r"(\w+)(?: with |, )(\d\d\.\d\d) %", headline) for headline in headlines]
    assert [[name for name, _ in row] for row in scores] == [
        ["nnUNetTrainer", "LightMUNet"],
        ["LightMUNet", "nnUNetTrainer"],
        ["LightMUNet", "SegResNet", "nnUNetTrainer"],
    ]
    assert all(row == sorted(row, key=lambda scored: float(scored[1]), reverse=True) for row in scores)
    assert "before SegResNet" in headlines[2] and "the tests below compare with nnUNetTrainer" in headlines[2]
    assert all("what the difference is worth" in headline for headline in headlines[:2])


def test_many_classes_are_not_ranked_either_where_cases_differ():
    names = [f"case_{i}" for i in range(6)]
    results = of_folds(
        make_results(classes=tuple("abcde")), dict(zip(TRAINERS, (names, names, names[1:]), strict=True))
    )
    text = results_tables(results, find_contenders(results))
    assert "**" not in text.replace("**Not ranked**", "")


def test_holm_counts_the_comparisons_that_were_made():
    names = [f"case_{i}" for i in range(6)]
    results = make_results()
    text = results_tables(results, find_contenders(results))
    assert "corrected by Holm for 2 comparisons" in text
    results = of_folds(results, dict(zip(TRAINERS, (names[:4], names, names[4:]), strict=True)))
    text = results_tables(results, find_contenders(results))
    assert "corrected by Holm" not in text
    ours = table_rows(text, "LightMUNet")[1]
    assert ours[3] == ours[4] and ours[5] == "4"
    assert table_rows(text, "SegResNet")[1][1:] == ["-", "-", "-", "-", "0"]


def test_false_positives_are_tested():
    """Two cases have no class; only the second method finds one there."""
    results = make_results(("nnUNetTrainer", "nnUNetTrainerUNETR"))
    for run, score in zip(results.runs, (None, 0.0), strict=True):
        for case in ("case_4", "case_5"):
            for scores in run.evaluation["cases"][case].values():
                scores.update(DSC=score, IoU=score)
    text = results_tables(results, find_contenders(results))
    table, tests = text.split("Each method minus")
    assert [table_rows(table, name)[0][-1] for name in ("nnUNetTrainer", "UNETR")] == ["4", "6"]
    row = table_rows(tests, "UNETR")[0]
    assert float(row[1]) < -30 and row[-1] == "6"
    assert PAIRS[1:] in tests
