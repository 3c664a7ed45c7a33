"""Costs of trainers that came later: multiples of stock nnU-Net's, measured only where that is needed and allowed."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import pytest

from benchmarks.accuracy import comparisons, costs, study
from nnunetv2_lightm.benchmark.costs import MeasuredCosts, TrainerCosts, Turn, load_costs, write_costs
from nnunetv2_lightm.benchmark.results import write_results
from nnunetv2_lightm.commands.benchmark import _parser

from ...benchmark.make_results import make_results, make_run

COMPARISON = comparisons.COMPARISONS["chest_recipe_seconds"]
STOCK, NEW = comparisons.RULE
KNOWN = {"train_seconds": 0.5, "validation_seconds": 0.2, "epoch_seconds": 1.0}


def write_measured(file, *, turns: int = costs.ROUNDS, **seconds: float) -> None:
    trainers = {}
    for name, value in seconds.items():
        turn = Turn(train_seconds=value, validation_seconds=value / 2, epoch_seconds=value * 3)
        iterations = {"iterations_per_epoch": 250, "validation_iterations_per_epoch": 50}
        trainers[name] = TrainerCosts(**iterations, turns=[turn] * turns)
    file.parent.mkdir(parents=True, exist_ok=True)
    write_costs(MeasuredCosts(device="cpu", machine={"processor": "another"}, trainers=trainers), file)


@pytest.fixture
def published(monkeypatch, tmp_path):
    """Results in equal time of the trainers that the study began with, and their costs."""
    folder = tmp_path / "published"
    folder.mkdir()
    monkeypatch.setattr(study, "PUBLISHED", folder)
    runs = tuple(make_run(name, 0.9, seed=seed) for name in comparisons.RIVALS for seed in (0, 1))
    results = make_results(comparisons.METHODS, runs=runs, equal="seconds", budget=480.0)
    results = replace(results, calibration=dict.fromkeys(comparisons.METHODS, KNOWN))
    write_results(results, folder / "chest_seconds.json")


@pytest.fixture
def called(monkeypatch):
    """What the study measured, and the comparisons that it called."""
    found = SimpleNamespace(measured=[], compared=[])

    def measure(command, **_):
        trainers, output = command[command.index("-tr") + 1 :], command[command.index("-o") + 1]
        found.measured.append(trainers)
        write_measured(study.Path(output), **dict.fromkeys(trainers, 1.0))
        return SimpleNamespace(returncode=0)

    def compare(command, **_):
        found.compared.append(_parser().parse_args(command[2:]))
        return SimpleNamespace(returncode=0)

    monkeypatch.setattr(study, "prepare", lambda *_: None)
    monkeypatch.setattr(study, "subprocess", SimpleNamespace(run=compare))
    monkeypatch.setattr(costs, "subprocess", SimpleNamespace(run=measure))
    return found


def test_a_cost_is_a_multiple_of_stocks(tmp_path):
    results = replace(make_results((STOCK,)), calibration={STOCK: KNOWN})
    assert costs.with_costs_beside_stock(results, COMPARISON, tmp_path) == results
    file = tmp_path / "costs" / "beside_stock" / f"{COMPARISON.data.name}.json"
    # A machine of half the speed.
    write_measured(file, **{STOCK: 1.0, NEW: 1.5, "nnUNetTrainerNotCompared": 9.0})
    calibration = costs.with_costs_beside_stock(results, COMPARISON, tmp_path).calibration
    assert calibration[STOCK] == KNOWN
    assert calibration[NEW] == pytest.approx({"train_seconds": 0.75, "validation_seconds": 0.3, "epoch_seconds": 1.5})
    assert set(calibration) == {STOCK, NEW}
    # On another day, with turns of stock of its own; and one that was interrupted.
    later, last = comparisons.SAME_RECIPE[:2]
    write_measured(file.with_stem(f"{file.stem}_later"), **{STOCK: 2.0, later: 3.0})
    write_measured(file.with_stem(f"{file.stem}_last"), turns=costs.ROUNDS - 1, **{STOCK: 2.0, last: 3.0})
    both = costs.with_costs_beside_stock(results, COMPARISON, tmp_path).calibration
    assert both == calibration | {later: calibration[NEW]}
    without_stock = replace(results, calibration={})
    assert costs.with_costs_beside_stock(without_stock, COMPARISON, tmp_path) == without_stock


def test_what_is_unknown_is_measured_once_next_to_stock(published, called, tmp_path):
    folder = tmp_path / "study"
    assert study.main([str(folder), "--only", "chest_recipe_seconds"]) == 0
    unknown = [NEW, *comparisons.SAME_RECIPE, comparisons.RESENC_M]
    assert called.measured == [[STOCK, *unknown]]
    assert [call.tr for call in called.compared] == [unknown, [NEW], [STOCK, NEW]]
    taken = load_costs(folder / called.compared[0].calibration_of / "calibration.json").trainers
    assert {STOCK, *unknown} <= set(taken) and vars(taken[NEW].median) == KNOWN


def test_a_failed_measurement_ends_the_study_before_anything_is_compared(published, called, monkeypatch, tmp_path):
    monkeypatch.setattr(costs, "subprocess", SimpleNamespace(run=lambda *_, **__: SimpleNamespace(returncode=3)))
    with pytest.raises(SystemExit, match="exit code 3"):
        study.main([str(tmp_path / "study"), "--only", "chest_recipe_seconds"])
    assert called.compared == []


def test_a_shared_machine_runs_what_needs_no_measurement(published, called, tmp_path):
    folder = tmp_path / "study"
    arguments = [str(folder), "--only", "chest_recipe_seconds", "--shared-machine"]
    assert study.main(arguments) == 0
    assert [(call.tr, call.seeds) for call in called.compared] == [([STOCK], [2])]
    called.compared.clear()
    write_measured(folder / "costs" / "beside_stock" / f"{COMPARISON.data.name}.json", **{STOCK: 1.0, NEW: 1.5})
    assert study.main(arguments) == 0
    assert [(call.tr, call.seeds) for call in called.compared] == [([NEW], [0]), ([NEW], [1]), ([STOCK, NEW], [2])]
    assert all(call.no_timings and call.calibration_of for call in called.compared)
    assert called.measured == []
