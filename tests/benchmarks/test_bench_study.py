"""The study: its commands are ones that `benchmark` takes, a failure is seen, and no folder is published."""

from __future__ import annotations

from dataclasses import replace

import pytest
import study

from nnunetv2_lightm.study.benchmark.command import _parser
from nnunetv2_lightm.study.benchmark.results import load_results, write_results
from nnunetv2_lightm.study.benchmark.settings import check_trainers, parse_budget, parse_wall_clock

from ..study.benchmark.make_results import make_results, make_run


@pytest.mark.parametrize("name", study.COMPARISONS)
def test_the_commands_are_ones_that_benchmark_takes(name):
    program, command, *options = study.COMPARISONS[name].command(name)
    assert (program, command) == ("nnUNetv2_lightm", "benchmark")
    arguments = _parser().parse_args(options)
    check_trainers(arguments.tr)
    assert parse_wall_clock(arguments.wall_clock) if arguments.wall_clock else parse_budget(arguments.budget)
    if arguments.calibration_of:
        assert study.COMPARISONS[arguments.calibration_of.name].data == study.COMPARISONS[name].data


@pytest.mark.parametrize(("codes", "expected"), [((0, 0), 0), ((0, 1), 1), ((-15, 0), -15)])
def test_a_comparison_that_fails_is_seen(monkeypatch, tmp_path, codes, expected):
    left = list(codes)
    monkeypatch.setattr(study, "run", lambda folder, name: left.pop(0))
    assert study.main([str(tmp_path), "--only", "chest_seconds", "hippocampus_seconds"]) == expected


def test_missing_data_say_which_variable_to_set(monkeypatch, tmp_path):
    monkeypatch.delenv("NNUNETV2_LIGHTM_DATA", raising=False)
    with pytest.raises(SystemExit, match="export NNUNETV2_LIGHTM_DATA"):
        study.main([str(tmp_path)])


def test_published_results_name_no_folder(monkeypatch, tmp_path):
    monkeypatch.setattr(study, "PUBLISHED", tmp_path / "published")
    monkeypatch.setattr(study, "REPORT", tmp_path / "report")
    comparison = tmp_path / "comparisons" / "chest_seconds"
    comparison.mkdir(parents=True)
    run = replace(make_run("nnUNetTrainer", 0.9), predictions=tmp_path, references=tmp_path, images=tmp_path)
    write_results(make_results(runs=(run,)), comparison / "results.json")
    assert study.main([str(tmp_path), "--publish"]) == 0
    (published,) = load_results(tmp_path / "published" / "chest_seconds.json").runs
    assert (published.predictions, published.references, published.images) == (None, None, None)
    assert "which the results do not name" in (tmp_path / "report" / "report.md").read_text()
