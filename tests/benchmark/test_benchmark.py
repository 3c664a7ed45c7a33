"""`nnUNetv2_lightm benchmark` with stand-ins for the commands that take long: what runs, resumes, fails, is written."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from nnunetv2_lightm.benchmark import comparison
from nnunetv2_lightm.benchmark.results import load_results
from nnunetv2_lightm.commands.benchmark import main
from nnunetv2_lightm.runs.process import CommandFailed
from nnunetv2_lightm.trainers import comes_from_here

from .calls import RUNS, TRAINERS, after_training, all_of, arguments, preparation
from .conftest import DATASET
from .stand_ins import complete_training


def test_everything_runs_once_and_is_reported(commands, nnunet, capsys):
    assert main(arguments(nnunet)) == 0
    assert commands.called == [*preparation(), *all_of(RUNS[0]), *all_of(RUNS[1])]
    output = capsys.readouterr().out
    assert "[6/6] LightMUNet_seed0_fold0 evaluate" in output
    folder = nnunet / "study"
    results = load_results(folder / "results.json")
    assert commands.reported == [([results], folder, f"{DATASET}, 2d: 2epochs_3iters each")]
    assert (results.dataset, results.configuration, results.plans) == (DATASET, "2d", "nnUNetPlans")
    assert (results.patch_size, results.batch_size, results.spacing_mm) == ((32, 32), 2, (1.0, 1.0))
    assert (results.equal, results.budget, results.scored_on) == ("iterations", "2epochs_3iters", "test")
    assert results.machine == {"processor": "P"}
    cost = {"train_seconds": 2.0, "validation_seconds": 1.0, "epoch_seconds": 3.0}
    assert results.calibration == dict.fromkeys(TRAINERS, cost)
    measured = {"forward_seconds": 0.1, "step_seconds": 0.3, "forward_mib": 2.0, "step_mib": None}
    assert results.complexity["nnUNetTrainer"] == {"parameters": 5, "macs": 64, **measured}
    runs = [(run.trainer, run.name, run.complete) for run in results.runs]
    assert runs == [(trainer, name, True) for trainer, name in zip(TRAINERS, RUNS)]
    run = results.runs[1]
    assert (run.fold, run.seed, run.iterations_per_epoch, run.validation_iterations_per_epoch) == (0, 0, 3, 1)
    assert (run.epochs[0].pseudo_dice, run.epochs[0].seconds) == ((0.75,), 2.5)
    # squares of 6 in squares of 8
    assert run.evaluation["cases"]["x"]["square"]["DSC"] == pytest.approx(2 * 36 / (36 + 64))
    assert run.images == nnunet / "nnUNet_raw" / DATASET / "imagesTs"
    assert run.references == nnunet / "nnUNet_raw" / DATASET / "labelsTs"
    assert sorted(path.name for path in run.predictions.iterdir()) == ["dataset.json", "x.png", "y.png"]
    for name in RUNS:
        assert "log of nnUNetv2_train\nlog of nnUNetv2_predict\n" in (folder / "logs" / f"{name}_fold0.log").read_text()

    commands.called.clear()
    assert main(arguments(nnunet)) == 0
    assert commands.called == []
    assert capsys.readouterr().out.count("complete already") == 9


def test_without_test_split_the_validation_counts(commands, nnunet):
    (nnunet / "nnUNet_raw" / DATASET / "labelsTs").rename(nnunet / "elsewhere")
    assert main(arguments(nnunet)) == 0
    assert not any("predict" in line for line in commands.called)
    results = load_results(nnunet / "study" / "results.json")
    assert results.scored_on == "validation"
    run = results.runs[0]
    assert list(run.evaluation["cases"]) == ["c"]
    assert run.predictions == commands.fold(RUNS[0]) / "validation"
    assert run.references == nnunet / "nnUNet_preprocessed" / DATASET / "gt_segmentations"
    assert run.images == nnunet / "nnUNet_raw" / DATASET / "imagesTr"


def test_surface_scores_are_an_option(commands, nnunet):
    assert main(arguments(nnunet)) == 0
    commands.called.clear()
    assert main(arguments(nnunet, "--surface", "--nsd-tolerance-mm", "1")) == 0
    assert commands.called == ["nnUNetv2_lightm evaluate"] * 2, "nothing else depends on it"
    run = load_results(nnunet / "study" / "results.json").runs[0]
    # In each dimension 2 pixels, less than the distance of the corners.
    assert 2 <= run.evaluation["cases"]["x"]["square"]["HD95_mm"] <= 8**0.5
    assert 0 <= run.evaluation["cases"]["x"]["square"]["NSD"] < 1
    with pytest.raises(SystemExit):
        main(arguments(nnunet, "--nsd-tolerance-mm", "1"))


def test_folds_and_seeds(commands, nnunet):
    assert main(arguments(nnunet, "--folds", "0", "1", "--seeds", "4", "5")) == 0
    runs = load_results(nnunet / "study" / "results.json").runs
    assert [(run.seed, run.fold) for run in runs[::2]] == [(4, 0), (4, 1), (5, 0), (5, 1)]
    assert runs[-1].name == "nnUNetTrainerLightMUNet_2epochs_3iters_seed5"


def test_training_of_others_is_adopted(commands, nnunet):
    complete_training(commands.fold(RUNS[0]))
    before = (commands.fold(RUNS[0]) / "checkpoint_final.pth").read_bytes()
    assert main(arguments(nnunet)) == 0
    assert commands.called == [*preparation(), *after_training(RUNS[0]), *all_of(RUNS[1])]
    assert (commands.fold(RUNS[0]) / "checkpoint_final.pth").read_bytes() == before


@pytest.mark.parametrize(("missing", "option"), [("validation/summary.json", "--val"), ("checkpoint_final.pth", "--c")])
def test_begun_training_of_others_goes_on(commands, nnunet, missing, option):
    fold = commands.fold(RUNS[0])
    complete_training(fold)
    (fold / "checkpoint_best.pth").write_bytes((fold / "checkpoint_final.pth").read_bytes())
    (fold / missing).unlink()
    assert main(arguments(nnunet)) == 0
    assert f"nnUNetv2_train {RUNS[0]} {option}" in commands.called


def test_other_checkpoint_is_predicted_again(commands, nnunet):
    assert main(arguments(nnunet)) == 0
    commands.called.clear()
    complete_training(commands.fold(RUNS[1]))
    commands.predicted_size = 8
    assert main(arguments(nnunet)) == 0
    assert commands.called == after_training(RUNS[1])
    scores = [run.evaluation["average"]["DSC"]["mean"] for run in load_results(nnunet / "study" / "results.json").runs]
    assert scores == [pytest.approx(0.72), 1.0]


def test_more_trainers_and_seeds_keep_what_is_there(commands, nnunet):
    assert main(arguments(nnunet)) == 0
    commands.called.clear()
    assert main(arguments(nnunet, "-tr", *TRAINERS, "nnUNetTrainerSegResNet", "--seeds", "0", "1")) == 0
    trained = [line.split()[1] for line in commands.called if "train " in line]
    assert trained == [
        "nnUNetTrainerSegResNet_2epochs_3iters_seed0",
        *(f"{trainer}_2epochs_3iters_seed1" for trainer in (*TRAINERS, "nnUNetTrainerSegResNet")),
    ]


@pytest.mark.parametrize("budget", ["20epochs", "2epochs_3iters"])
def test_every_training_has_the_lock_and_the_checks_of_this_package(commands, nnunet, budget):
    """A stock trainer gets them by its suffix, also where nnU-Net has one of its own, as in nnUNetTrainer_20epochs."""
    stock = ("nnUNetTrainer", "nnUNetTrainerAdam")
    assert main(arguments(nnunet, "-tr", *stock, budget=("--budget", budget))) == 0
    trained = [line.split()[1] for line in commands.called if "train " in line]
    assert [name.partition("_")[0] for name in trained] == list(stock)
    assert all(map(comes_from_here, trained))


def test_failed_run_stops_no_other_and_is_tried_again(commands, nnunet, capsys):
    def diverge(trainer):
        if trainer == RUNS[0]:
            print("the loss is nan")
            raise CommandFailed("exit code 1. The end of the log: the loss is nan")

    commands.before_training_ends = diverge
    assert main(arguments(nnunet)) == 1
    assert "the loss is nan" in capsys.readouterr().out
    first, second = load_results(nnunet / "study" / "results.json").runs
    assert not first.complete and first.evaluation is None and "the loss is nan" in first.failure
    assert len(first.epochs) == 1
    assert second.complete and second.failure is None
    assert len(commands.reported) == 1

    commands.called.clear()
    assert main(arguments(nnunet)) == 0
    assert commands.called == [f"nnUNetv2_train {RUNS[0]} --c", *after_training(RUNS[0])]
    first = load_results(nnunet / "study" / "results.json").runs[0]
    assert first.complete and first.failure is None
    assert [epoch.epoch for epoch in first.epochs] == [0, 1]


def test_failed_preparation_ends_it_before_any_training(commands, nnunet, monkeypatch):
    def fail(arguments):
        raise CommandFailed("exit code 1: no memory")

    monkeypatch.setattr(commands, "calibrate", fail)
    assert main(arguments(nnunet)) == 1
    assert not any("train " in line for line in commands.called)


def test_results_are_there_in_the_middle(commands, nnunet):
    seen = []
    commands.before_training_ends = lambda trainer: seen.append(load_results(nnunet / "study" / "results.json"))
    assert main(arguments(nnunet)) == 0
    assert [[run.complete for run in results.runs] for results in seen] == [[False, False], [True, False]]


def test_running_training_is_read_from_its_log(commands, nnunet, monkeypatch):
    monkeypatch.setattr(comparison, "SECONDS_BETWEEN_RESULTS", 0)
    epochs = []

    def tick(trainer):
        commands.on_tick("")
        epochs.append([len(run.epochs) for run in load_results(nnunet / "study" / "results.json").runs])

    commands.before_training_ends = tick
    assert main(arguments(nnunet)) == 0
    assert epochs == [[1, 0], [1, 1]]


@pytest.mark.slow
@pytest.mark.skipif(os.name != "posix", reason="sends SIGKILL")
def test_goes_on_after_sigkill(commands, nnunet):
    code = (
        f"import sys, time; from pathlib import Path; sys.path.insert(0, {str(Path(__file__).parent)!r})\n"
        "from stand_ins import Commands; from nnunetv2_lightm.commands.benchmark import main\n"
        f"stop = lambda trainer: time.sleep(60 * (trainer == {RUNS[1]!r}))\n"
        f"Commands(Path({str(nnunet)!r}), stop).install(); main({arguments(nnunet)!r})"
    )
    checkpoint = commands.fold(RUNS[1]) / "checkpoint_latest.pth"
    process = subprocess.Popen([sys.executable, "-c", code], start_new_session=True)
    deadline = time.monotonic() + 60
    while process.poll() is None and not checkpoint.exists() and time.monotonic() < deadline:
        time.sleep(0.1)
    assert process.poll() is None and checkpoint.exists()
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    assert [run.complete for run in load_results(nnunet / "study" / "results.json").runs] == [True, False]
    assert main(arguments(nnunet)) == 0
    assert commands.called == [f"nnUNetv2_train {RUNS[1]} --c", *after_training(RUNS[1])]


def test_second_command_in_the_same_folder_is_refused(commands, nnunet):
    codes = []
    commands.before_training_ends = lambda trainer: codes.append(main(arguments(nnunet)))
    assert main(arguments(nnunet)) == 0
    assert codes == [1, 1]
    # The commands' standard error is their log.
    assert "another run is working" in (nnunet / "study" / "logs" / f"{RUNS[0]}_fold0.log").read_text()


def test_folder_of_another_comparison_is_refused(commands, nnunet, capsys):
    assert main(arguments(nnunet)) == 0
    assert main(arguments(nnunet, budget=("--budget", "3epochs"))) == 1
    error = capsys.readouterr().err
    assert "results.json belongs to another comparison, with budget '2epochs_3iters' instead of '3epochs'" in error
    (nnunet / "study" / "results.json").write_text(json.dumps({"format": 7}))
    assert main(arguments(nnunet)) == 1
    assert "results.json: format 7" in capsys.readouterr().err
    (nnunet / "study" / "results.json").unlink()
    assert main(arguments(nnunet)) == 1
    assert "is not empty and has no results.json" in capsys.readouterr().err


def test_faults_are_said_before_any_work(commands, nnunet, capsys):
    assert main(arguments(nnunet, "--folds", "7")) == 1
    assert main(arguments(nnunet, "-tr", "nnUNetTrainerLightMUnet")) == 1
    assert main(arguments(nnunet, budget=("--wall-clock", "60m"))) == 1
    error = capsys.readouterr().err
    assert "no fold 7" in error and "did you mean 'nnUNetTrainerLightMUNet'" in error and "60min" in error
    assert commands.called == [] and not (nnunet / "study").exists()
    with pytest.raises(SystemExit):
        main(arguments(nnunet, "--slurm", "time=5"))
    with pytest.raises(SystemExit):
        main(arguments(nnunet, "--wall-clock", "1h"))
