"""The study: its commands are ones that `benchmark` takes, a failure is seen, and no folder is published."""

from __future__ import annotations

import os
from dataclasses import replace
from types import SimpleNamespace

import pytest

from benchmarks.accuracy import comparisons, study
from nnunetv2_lightm.benchmark.costs import load_costs, missing_turns
from nnunetv2_lightm.benchmark.measure_costs import ROUNDS
from nnunetv2_lightm.benchmark.results import load_results, write_results
from nnunetv2_lightm.benchmark.settings import check_trainers, parse_budget, parse_wall_clock
from nnunetv2_lightm.commands.benchmark import _parser
from nnunetv2_lightm.files import RECORD_FILE

from ...benchmark.make_results import make_results, make_run


@pytest.fixture
def published(monkeypatch, tmp_path):
    """Where the study publishes, in a folder of its own."""
    monkeypatch.setattr(study, "PUBLISHED", tmp_path / "published")
    monkeypatch.setattr(study, "REPORT", tmp_path / "report")
    return tmp_path / "published"


@pytest.fixture
def calls(monkeypatch):
    """The comparisons that the study calls, instead of their running."""
    found = []

    def call(command, env, **_):
        assert str(study.VARIANT_TRAINERS) in env[study.EXT_TRAINER].split(os.pathsep)
        found.append(_parser().parse_args(command[2:]))
        return SimpleNamespace(returncode=0)

    monkeypatch.setattr(study, "prepare", lambda *_: None)
    monkeypatch.setattr(study.subprocess, "run", call)
    return found


@pytest.mark.parametrize("name", study.COMPARISONS)
def test_the_commands_are_ones_that_benchmark_takes(name, monkeypatch):
    monkeypatch.setenv(study.EXT_TRAINER, str(study.VARIANT_TRAINERS))
    program, command, *options = study.COMPARISONS[name].command(comparisons.RIVALS, 1, "out", None)
    assert (program, command) == ("nnUNetv2_lightm", "benchmark")
    arguments = _parser().parse_args(options)
    check_trainers(study.COMPARISONS[name].methods)
    assert parse_wall_clock(arguments.wall_clock) if arguments.wall_clock else parse_budget(arguments.budget)
    assert study.COMPARISONS[study.COMPARISONS[name].costs_of].data == study.COMPARISONS[name].data


@pytest.mark.parametrize(("name", "number"), [("Dataset004_Hippocampus", 4), ("Dataset1234_X", 1234)])
def test_a_data_set_has_the_id_of_its_name(name, number):
    assert replace(comparisons.HIPPOCAMPUS, name=name).number == number


def test_all_methods_run_once_and_the_rivals_twice(published, calls, tmp_path):
    assert study.main([str(tmp_path), "--only", "hippocampus_seconds"]) == 0
    assert [(tuple(call.tr), call.seeds, call.calibration_of) for call in calls] == [
        (comparisons.METHODS, [0], None),
        (comparisons.RIVALS, [1], None),
    ]


def test_what_is_published_is_not_run_again_and_its_costs_count(published, calls, tmp_path):
    done = [make_run(trainer, 0.9) for trainer in comparisons.METHODS[1:]] + [
        make_run(comparisons.RIVALS[0], 0.9, seed=1)
    ]
    published.mkdir()
    results = make_results(comparisons.METHODS, runs=tuple(done))
    costs = {name: {**cost, "epoch_seconds": 1.0} for name, cost in results.calibration.items()}
    write_results(replace(results, calibration=costs), published / "chest_seconds.json")
    assert study.main([str(tmp_path), "--only", "chest_seconds"]) == 0
    assert [(call.tr, call.seeds) for call in calls] == [
        ([comparisons.METHODS[0]], [0]),
        ([comparisons.RIVALS[1]], [1]),
    ]
    taken = load_costs(tmp_path / calls[0].calibration_of / "calibration.json")
    assert {name: vars(found.median) for name, found in taken.trainers.items()} == costs
    assert not missing_turns(taken, comparisons.METHODS, ROUNDS)
    calls.clear()
    assert study.main([str(tmp_path), "--only", "chest_seconds", "--anew", "--seeds", "1"]) == 0
    assert [(call.tr, call.seeds, call.calibration_of) for call in calls] == [(list(comparisons.RIVALS), [1], None)]


def test_a_run_of_another_comparison_with_the_same_iterations_counts(published, calls, tmp_path):
    _, budget = study.COMPARISONS["chest_iterations"].budget
    stock, ours = comparisons.RIVALS
    runs = [
        replace(make_run(stock, 0.9), name=f"{stock}_{budget}_seed0"),
        replace(make_run(ours, 0.9), name=f"{ours}_20epochs_41iters_seed0"),
    ]
    published.mkdir()
    results = make_results(runs=tuple(runs), equal="seconds", budget=480.0, calibration={})
    write_results(results, published / "chest_seconds.json")
    assert study.main([str(tmp_path), "--only", "chest_iterations"]) == 0
    methods = study.COMPARISONS["chest_iterations"].methods
    assert [(tuple(call.tr), call.seeds) for call in calls] == [(methods[1:], [0]), (comparisons.RIVALS, [1])]

    study.publish(tmp_path)
    assert not (published / "chest_iterations.json").exists()  # one method is no comparison
    folder = tmp_path / "comparisons" / "chest_iterations" / "seed0"
    folder.mkdir(parents=True)
    own = make_results(runs=(make_run(ours, 0.9),), budget=budget)
    write_results(own, folder / "results.json")
    study.publish(tmp_path)
    taken = load_results(published / "chest_iterations.json")
    assert (taken.equal, taken.budget, [run.trainer for run in taken.runs]) == ("iterations", budget, [stock, ours])


@pytest.mark.parametrize(("code", "seeds"), [(1, 2), (130, 1), (-15, 1)])
def test_a_run_that_fails_stops_no_other_but_an_interruption_does(published, monkeypatch, tmp_path, code, seeds):
    calls = []
    monkeypatch.setattr(study, "prepare", lambda *_: None)
    monkeypatch.setattr(study.subprocess, "run", lambda *_, **__: calls.append(1) or SimpleNamespace(returncode=code))
    assert study.main([str(tmp_path), "--only", "chest_seconds"]) == code
    assert len(calls) == seeds


@pytest.mark.parametrize(("codes", "expected"), [((0, 0), 0), ((0, 1), 1), ((-15, 0), -15)])
def test_a_comparison_that_fails_is_seen(monkeypatch, tmp_path, codes, expected):
    left = list(codes)
    monkeypatch.setattr(study, "run", lambda *_, **__: left.pop(0))
    assert study.main([str(tmp_path), "--only", "chest_seconds", "hippocampus_seconds"]) == expected


def test_missing_data_say_which_variable_to_set(monkeypatch, tmp_path):
    monkeypatch.delenv("NNUNETV2_LIGHTM_DATA", raising=False)
    with pytest.raises(SystemExit, match="export NNUNETV2_LIGHTM_DATA"):
        study.main([str(tmp_path)])


@pytest.mark.slow
def test_published_results_keep_predictions_that_may_be_pictured_and_no_folder_of_the_machine(published, tmp_path):
    for name, ending in (("chest_seconds", ".png"), ("hippocampus_seconds", ".nii.gz")):
        comparison = tmp_path / "comparisons" / name / "seed0"
        predictions = comparison / "predictions"
        predictions.mkdir(parents=True)
        run = make_run("nnUNetTrainer", 0.9)
        for case in run.evaluation["cases"]:
            (predictions / f"{case}{ending}").write_text("segmentation")
        (predictions / "summary.json").write_text("/a/folder")
        run = replace(run, predictions=predictions, references=tmp_path, images=tmp_path)
        other = make_run("nnUNetTrainerLightMUNetAdamW", 0.9)
        unfinished = make_run("nnUNetTrainerSegResNet", 0.9, complete=False)
        results = make_results(runs=(run, other, unfinished), file_ending=ending)
        write_results(results, comparison / "results.json")
    study.publish(tmp_path)
    chest, _ = load_results(published / "chest_seconds.json").runs
    assert (chest.predictions, chest.references, chest.images) == (None, None, None)
    pictured, _ = load_results(published / "hippocampus_seconds.json").runs
    assert (pictured.references, pictured.images) == (None, None)
    assert sorted(path.name for path in pictured.predictions.iterdir()) == [
        f"{case}.nii.gz" for case in sorted(pictured.evaluation["cases"])
    ]
    assert pictured.predictions.is_relative_to(published)
    text = (tmp_path / "report" / "report.md").read_text()
    assert "Not pictured: the licence of the Shenzhen masks" in text
    assert "-m benchmarks.accuracy.study FOLDER --only chest_seconds" in text

    # Published once more on another machine, which has another run: the first one stays.
    other = tmp_path / "other"
    folder = other / "comparisons" / "hippocampus_seconds" / "seed1"
    folder.mkdir(parents=True)
    again = make_results(runs=(make_run("nnUNetTrainer", 0.9, seed=1),), file_ending=".nii.gz")
    write_results(again, folder / "results.json")
    # A fresh clone has the report without the record of its files.
    (tmp_path / "report" / "figures" / RECORD_FILE).unlink(missing_ok=True)
    (tmp_path / "report" / "figures" / "comparison9_training.png").touch()
    study.publish(other)
    assert not list((tmp_path / "report").rglob("kept_*"))
    assert not (tmp_path / "report" / "figures" / "comparison9_training.png").exists()
    runs = load_results(published / "hippocampus_seconds.json").runs
    assert [(run.seed, run.predictions) for run in runs] == [(0, pictured.predictions), (0, None), (1, None)]
    assert "chest_seconds" in (tmp_path / "report" / "report.md").read_text()


def test_a_shared_machine_has_iterations_alone_and_no_timings(published, calls, tmp_path):
    assert study.main([str(tmp_path), "--shared-machine"]) == 0
    assert calls and all(call.no_timings and call.budget for call in calls)
    rule_seeds = {call.seeds[0] for call in calls if set(call.tr) == set(comparisons.RULE)}
    assert rule_seeds == {2}, "the third seed is that of the rule's rivals"
    calls.clear()
    assert study.main([str(tmp_path), "--only", "chest_recipe_seconds"]) == 0
    assert [call.seeds for call in calls] == [[0], [1], [2]] and not any(call.no_timings for call in calls)
    assert calls[2].tr == list(comparisons.RULE)


def test_runs_of_another_comparison_alone_are_not_published(published, tmp_path):
    stock, ours = comparisons.RIVALS
    published.mkdir()
    results = make_results((stock, ours), equal="seconds", budget=480.0)
    write_results(results, published / "chest_seconds.json")
    study.publish(tmp_path)
    assert [file.name for file in published.glob("*.json")] == ["chest_seconds.json"]
    folder = tmp_path / "comparisons" / "chest_recipe_seconds" / "seed0"
    folder.mkdir(parents=True)
    own = make_results((comparisons.NEW,), equal="seconds", budget=480.0)
    write_results(own, folder / "results.json")
    study.publish(tmp_path)
    runs = load_results(published / "chest_recipe_seconds.json").runs
    assert {run.trainer for run in runs} == {stock, ours, comparisons.NEW}, "they count there"
