"""`nnUNetv2_lightm benchmark` in equal time, and what it knows, takes and measures of the trainers' costs."""

from __future__ import annotations

import json

import pytest

from nnunetv2_lightm.benchmark.results import load_results
from nnunetv2_lightm.commands.benchmark import main

from .calls import RUNS, TRAINERS, all_of, arguments, preparation


def test_wall_clock_becomes_iterations_by_the_costs(commands, nnunet, capsys):
    assert main(arguments(nnunet, budget=("--wall-clock", "10min"))) == 0
    results = load_results(nnunet / "study" / "results.json")
    assert (results.equal, results.budget) == ("seconds", 600.0)
    run = results.runs[0]
    # 24 epochs of 10 x 2 s, 2 x 1 s and 3 s are 600 s
    assert run.name == "nnUNetTrainer_24epochs_10iters_seed0"
    assert (run.iterations_per_epoch, run.validation_iterations_per_epoch) == (10, 2)
    assert "0 of 2 runs are complete; training the others takes about 20m00s" in capsys.readouterr().out


def test_without_timings_nothing_is_measured(commands, nnunet, capsys):
    """Iterations can share a machine with other work; what they take there would say nothing."""
    assert main(arguments(nnunet, "--no-timings")) == 0
    assert commands.called == [*preparation()[:-1], *all_of(RUNS[0]), *all_of(RUNS[1])]
    assert "0 of 2 runs are complete\n" in capsys.readouterr().out
    results = load_results(nnunet / "study" / "results.json")
    assert results.calibration == {}
    assert [run.complete for run in results.runs] == [True, True]
    for iterations in ("2epochs_1iter", "1epoch_3iters"):
        assert (
            main(arguments(nnunet, "-o", str(nnunet / iterations), "--no-timings", budget=("--budget", iterations)))
            == 0
        )
    for budget in (("--wall-clock", "10min"), ("--budget", "2epochs")):
        with pytest.raises(SystemExit, match="2"):
            main(arguments(nnunet, "--no-timings", budget=budget))
        assert "--no-timings goes with a --budget of iterations" in capsys.readouterr().err


def test_equal_time_needs_no_measurement_where_the_costs_are_known(commands, nnunet, capsys):
    assert main(arguments(nnunet)) == 0
    time_budget = ("--wall-clock", "10min")
    options = ("-o", str(nnunet / "other"), "--calibration-of", str(nnunet / "study"), "--no-timings")
    commands.called.clear()
    assert main(arguments(nnunet, *options, budget=time_budget)) == 0
    runs = [f"{trainer}_24epochs_10iters_seed0" for trainer in TRAINERS]
    assert commands.called == [*preparation()[:-1], *all_of(runs[0]), *all_of(runs[1])], "no calibration"
    assert [run.name for run in load_results(nnunet / "other" / "results.json").runs] == runs
    calibration = nnunet / "study" / "calibration.json"
    measured = json.loads(calibration.read_text())
    del measured["trainers"][TRAINERS[1]]
    calibration.write_text(json.dumps(measured))
    options = ("-o", str(nnunet / "third"), *options[2:])
    capsys.readouterr()
    assert main(arguments(nnunet, *options, budget=time_budget)) == 1
    assert f"has no costs of {TRAINERS[1]}; leave out --no-timings" in capsys.readouterr().err
    assert not (nnunet / "third").exists()


def test_a_trainer_that_comes_later_gets_its_known_costs(commands, nnunet):
    """Those that a comparison began with stay: they decided the budgets of its runs."""
    assert main(arguments(nnunet)) == 0
    options = ("-o", str(nnunet / "other"), "--calibration-of", str(nnunet / "study"), "--no-timings")
    time_budget = ("--wall-clock", "10min")
    assert main([*arguments(nnunet, *options, budget=time_budget), "-tr", TRAINERS[0]]) == 0
    calibrations = [nnunet / name / "calibration.json" for name in ("study", "other")]
    known, own = (json.loads(file.read_text()) for file in calibrations)
    own["trainers"] = {TRAINERS[0]: own["trainers"][TRAINERS[0]]}  # as if the other had been measured since
    calibrations[1].write_text(json.dumps(own))
    known["trainers"][TRAINERS[0]]["turns"] = [{"train_seconds": 4, "validation_seconds": 2, "epoch_seconds": 6}]
    calibrations[0].write_text(json.dumps(known))
    assert main(arguments(nnunet, *options, budget=time_budget)) == 0
    taken = json.loads(calibrations[1].read_text())["trainers"]
    assert taken == {TRAINERS[0]: own["trainers"][TRAINERS[0]], TRAINERS[1]: known["trainers"][TRAINERS[1]]}


def test_calibration_of_another_comparison_is_taken(commands, nnunet, capsys):
    assert main(arguments(nnunet)) == 0
    measured = json.loads((nnunet / "study" / "calibration.json").read_text())
    measured["trainers"][TRAINERS[0]]["turns"] = [{"train_seconds": 4, "validation_seconds": 2, "epoch_seconds": 6}]
    (nnunet / "study" / "calibration.json").write_text(json.dumps(measured))
    commands.called.clear()
    other = arguments(nnunet, "-o", str(nnunet / "other"), "--calibration-of", str(nnunet / "study"))
    assert main(other) == 0
    assert load_results(nnunet / "other" / "results.json").calibration[TRAINERS[0]]["train_seconds"] == 4

    capsys.readouterr()
    file = nnunet / "study" / "results.json"
    file.write_text(file.read_text().replace('"configuration": "2d"', '"configuration": "3d_fullres"'))
    assert main(arguments(nnunet, "-o", str(nnunet / "third"), "--calibration-of", str(nnunet / "study"))) == 1
    assert f"{file} was measured with configuration '3d_fullres'" in capsys.readouterr().err
    assert not (nnunet / "third").exists()


def test_time_for_no_iteration_is_refused_before_any_training(commands, nnunet, capsys):
    assert main(arguments(nnunet, budget=("--wall-clock", "5s"))) == 1
    assert "nnUNetTrainer: 5 s are less than one epoch" in capsys.readouterr().err
    assert commands.called == preparation()


def test_budget_without_iterations_is_the_trainers_own(commands, nnunet):
    assert main(arguments(nnunet, budget=("--budget", "2epochs"))) == 0
    run = load_results(nnunet / "study" / "results.json").runs[0]
    assert run.name == "nnUNetTrainer_2epochs_seed0"
    assert (run.iterations_per_epoch, run.validation_iterations_per_epoch) == (250, 50)
