"""The command called again: what earlier calls have left is kept, made anew where it is stale, or refused by name."""

from __future__ import annotations

import json

import pytest

from nnunetv2_lightm.benchmark import comparison
from nnunetv2_lightm.benchmark.results import load_results
from nnunetv2_lightm.commands.benchmark import main
from nnunetv2_lightm.files import partial_path
from nnunetv2_lightm.json_input import MAX_LONG_TEXT
from nnunetv2_lightm.runs.process import CommandFailed

from .calls import RUNS, TRAINERS, all_of, arguments
from .conftest import DATASET
from .stand_ins import complete_training, save_square


def results_of(root):
    return load_results(root / "study" / "results.json")


def names(root):
    return [run.name for run in results_of(root).runs if run.complete]


def scores(root):
    return [run.evaluation["cases"]["x"]["square"]["DSC"] for run in results_of(root).runs]


def test_corrected_labels_are_scored_again(commands, nnunet):
    assert main(arguments(nnunet)) == 0
    commands.called.clear()
    save_square(nnunet / "nnUNet_raw" / DATASET / "labelsTs" / "x.png", 6)
    assert main(arguments(nnunet)) == 0
    assert commands.called == ["nnUNetv2_lightm evaluate"] * 2, "the predictions are those of before"
    assert scores(nnunet) == [1.0, 1.0]


def test_corrected_labels_of_the_validation_are_scored_again(commands, nnunet):
    (nnunet / "nnUNet_raw" / DATASET / "labelsTs").rename(nnunet / "elsewhere")
    assert main(arguments(nnunet)) == 0
    commands.called.clear()
    save_square(nnunet / "nnUNet_preprocessed" / DATASET / "gt_segmentations" / "c.png", 6)
    assert main(arguments(nnunet)) == 0
    assert commands.called == ["nnUNetv2_lightm evaluate"] * 2
    assert [run.evaluation["cases"]["c"]["square"]["DSC"] for run in results_of(nnunet).runs] == [1.0, 1.0]


def test_a_case_that_leaves_the_test_split_leaves_no_prediction(commands, nnunet):
    raw = nnunet / "nnUNet_raw" / DATASET
    assert main(arguments(nnunet)) == 0
    (raw / "imagesTs" / "y_0000.png").unlink()
    (raw / "labelsTs" / "y.png").unlink()
    assert main(arguments(nnunet)) == 0
    for run in results_of(nnunet).runs:
        assert list(run.evaluation["cases"]) == ["x"]
        assert sorted(path.name for path in run.predictions.iterdir()) == ["dataset.json", "x.png"]


@pytest.mark.parametrize("error", [CommandFailed("exit code 1: no memory"), KeyboardInterrupt()])
def test_a_preparation_that_fails_costs_no_results(commands, nnunet, monkeypatch, error):
    def fail(arguments):
        raise error

    assert main(arguments(nnunet)) == 0
    before = results_of(nnunet)
    monkeypatch.setattr(commands, "calibrate", fail)
    assert main(arguments(nnunet, "-tr", *TRAINERS, "nnUNetTrainerSegResNet")) != 0
    assert results_of(nnunet) == before


def test_seeds_and_trainers_of_other_calls_stay(commands, nnunet):
    assert main(arguments(nnunet)) == 0
    commands.called.clear()
    assert main(arguments(nnunet, "-tr", "nnUNetTrainerSegResNet", "--seeds", "1")) == 0
    other = "nnUNetTrainerSegResNet_2epochs_3iters_seed1"
    assert commands.called[-3:] == all_of(other)
    assert names(nnunet) == [*RUNS, other]
    results = results_of(nnunet)
    assert set(results.complexity) == set(results.calibration) == {*TRAINERS, "nnUNetTrainerSegResNet"}
    assert [command[command.index("-tr") + 1] for command in results.commands] == [TRAINERS[0], results.runs[2].trainer]
    assert main(arguments(nnunet)) == 0
    assert names(nnunet) == [other, *RUNS]
    assert len(results_of(nnunet).commands) == 2, "each once"


def test_what_other_calls_finished_is_predicted_again_and_never_trained(commands, nnunet):
    assert main(arguments(nnunet)) == 0
    complete_training(commands.fold(RUNS[0]))
    (commands.fold(RUNS[1]) / "checkpoint_final.pth").unlink()
    commands.called.clear()
    assert main(arguments(nnunet, "--seeds", "1")) == 0
    assert f"nnUNetv2_predict {RUNS[0]}" in commands.called and not any(RUNS[1] in line for line in commands.called)
    assert names(nnunet) == [RUNS[0], *(run.replace("seed0", "seed1") for run in RUNS)]


def test_an_interruption_costs_no_run_of_another_call(commands, nnunet, monkeypatch):
    """Whose scores were stale, because a label had been corrected."""

    def interrupt(arguments):
        if arguments[0] != "complexity":
            raise KeyboardInterrupt
        lightm(arguments)

    lightm = commands.lightm
    assert main(arguments(nnunet)) == 0
    save_square(nnunet / "nnUNet_raw" / DATASET / "labelsTs" / "x.png", 6)
    with monkeypatch.context() as interrupted:
        interrupted.setattr(commands, "lightm", interrupt)
        assert main(arguments(nnunet, "--seeds", "1")) == 130
    assert names(nnunet) == []
    assert main(arguments(nnunet, "--seeds", "1")) == 0
    assert names(nnunet) == [*RUNS, *(run.replace("seed0", "seed1") for run in RUNS)]
    assert scores(nnunet) == [1.0] * 4


@pytest.mark.parametrize("place", [(comparison, "write_results"), (comparison, "write_costs")])
def test_a_call_that_was_killed_at_once_is_called_again(commands, nnunet, monkeypatch, place):
    """After it had written only parts of a file; a new comparison with the costs of another one."""

    def kill(content, path):
        partial_path(path).write_text("{")
        raise KeyboardInterrupt

    assert main(arguments(nnunet)) == 0
    again = arguments(nnunet, "-o", str(nnunet / "other"), "--calibration-of", str(nnunet / "study"))
    with monkeypatch.context() as killed:
        killed.setattr(*place, kill)
        assert main(again) == 130
    assert main(again) == 0
    assert not [*(nnunet / "other").glob(".partial*")]


def plan_again(root, **changes):
    file = root / "nnUNet_preprocessed" / DATASET / "nnUNetPlans.json"
    plans = json.loads(file.read_text())
    plans["configurations"]["2d"].update(changes)
    file.write_text(json.dumps(plans))
    return plans


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"patch_size": [64, 32]}, "patch_size (32, 32); {} has (64, 32) now"),
        ({"batch_size": 4}, "batch_size 2; {} has 4 now"),
        ({"spacing": [1, 0.5]}, "spacing_mm (1.0, 1.0); {} has (1.0, 0.5) now"),
    ],
)
def test_other_plans_of_the_same_name_are_another_comparison(commands, nnunet, capsys, change, said):
    assert main(arguments(nnunet)) == 0
    plan_again(nnunet, **change)
    commands.called.clear()
    assert main(arguments(nnunet)) == 1
    plans_file = nnunet / "nnUNet_preprocessed" / DATASET / "nnUNetPlans.json"
    error = capsys.readouterr().err
    assert said.format(plans_file) in error and "give another folder with -o" in error
    assert main(arguments(nnunet, "-o", str(nnunet / "other"), "--calibration-of", str(nnunet / "study"))) == 1
    assert f"was measured with {said.partition(';')[0]}, not" in capsys.readouterr().err
    assert commands.called == []


def test_a_training_with_other_plans_is_not_adopted(commands, nnunet, capsys):
    plans = plan_again(nnunet)
    fold = commands.fold(RUNS[1])
    complete_training(fold)
    file = fold.parent / "plans.json"
    file.write_text(json.dumps(plans))
    plans = plan_again(nnunet, normalization_schemes=["NoNormalization"])
    assert main(arguments(nnunet)) == 1
    error = capsys.readouterr().err
    assert f"{fold} was trained with other plans" in error and f"Move {fold.parent} away" in error
    assert "normalization_schemes was None and is ['NoNormalization']. Move" in error, "and nothing else"
    assert not any("train " in line for line in commands.called)
    file.write_text("{")
    assert main(arguments(nnunet)) == 1
    assert "plans.json: cannot be read" in capsys.readouterr().err
    # Plans of other configurations, and what nnU-Net does not train with, may differ.
    plans["configurations"]["3d_fullres"] = {"patch_size": [8, 8, 8]}
    file.write_text(json.dumps({**plans, "experiment_planner_used": "another"}))
    assert main(arguments(nnunet)) == 0
    assert not any("train " in line and RUNS[1] in line for line in commands.called)


def test_what_is_begun_anew_may_have_had_other_plans(commands, nnunet):
    """nnU-Net writes its plans over those of the folder."""
    fold = commands.fold(RUNS[0])
    fold.mkdir(parents=True)
    (fold.parent / "plans.json").write_text(json.dumps(plan_again(nnunet)))
    plan_again(nnunet, batch_size=4)
    assert main(arguments(nnunet)) == 0


def test_results_that_cannot_be_read_do_not_hold_anything_up(commands, nnunet, capsys):
    assert main(arguments(nnunet)) == 0
    commands.called.clear()
    (nnunet / "study" / "results.json").write_text("{")
    assert main(arguments(nnunet)) == 1
    assert "Give another folder with -o: complete trainings are reused" in capsys.readouterr().err
    assert main(arguments(nnunet, "-o", str(nnunet / "other"))) == 0
    assert not any("train " in line for line in commands.called)


def test_a_failure_of_many_words_can_be_read_again(commands, nnunet):
    def fail(trainer):
        raise CommandFailed("exit code 1" + "Missing key in state_dict, " * 10_000 + "the end")

    commands.before_training_ends = fail
    assert main(arguments(nnunet)) == 1
    failure = results_of(nnunet).runs[0].failure
    assert len(failure) == MAX_LONG_TEXT and failure.endswith("the end")
    commands.before_training_ends = lambda trainer: None
    assert main(arguments(nnunet)) == 0


def test_results_that_could_not_be_read_again_are_refused_before_any_work(commands, nnunet, capsys):
    assert main(arguments(nnunet, "--title", "T" * 5000)) == 1
    assert "results.json: title is 'TTT" in capsys.readouterr().err
    assert commands.called == [] and not (nnunet / "study" / "results.json").exists()
    assert main(arguments(nnunet, "--title", "T")) == 0
