"""Costs of an iteration and what fits into a time; the turns of an interrupted calibration."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from nnunetv2.paths import nnUNet_results

from nnunetv2_lightm.benchmark import measure_costs as process
from nnunetv2_lightm.benchmark.costs import (
    BudgetTooSmall,
    MeasuredCosts,
    TrainerCosts,
    Turn,
    largest_budget,
    load_costs,
    missing_turns,
    training_seconds,
    validation_iterations,
    write_costs,
)
from nnunetv2_lightm.benchmark.measure_costs import measure_costs, take_turn
from nnunetv2_lightm.benchmark.results import ResultsError


def make_turn(train, validation, epoch):
    return Turn(train_seconds=train, validation_seconds=validation, epoch_seconds=epoch)


def make_costs(turns):
    return TrainerCosts(iterations_per_epoch=250, validation_iterations_per_epoch=50, turns=turns)


def test_seconds_of_a_training_count_validation_and_overhead():
    # 3 epochs of 7 x 2 s, 2 x 1 s and 5 s
    assert training_seconds(make_turn(2, 1, 5), 3, 7) == 63


@pytest.mark.parametrize(
    "cost", [make_turn(2, 1, 5), make_turn(0.013, 0.4, 0), make_turn(1, 0.001, 0.5), make_turn(30, 10, 3)]
)
@pytest.mark.parametrize("seconds", [3600, 611.5, 99])
def test_largest_budget_is_the_best_of_all(cost, seconds):
    fitting = [
        (epochs * iterations, epochs, iterations)
        for epochs in range(20, 51)
        for iterations in range(1, int(seconds / epochs / cost.train_seconds) + 1)
        if training_seconds(cost, epochs, iterations) <= seconds
    ]
    epochs, iterations = largest_budget(cost, seconds)
    if fitting:
        assert (epochs * iterations, epochs, iterations) == max(fitting)
    else:
        assert iterations == 1 and epochs < 20
        assert training_seconds(cost, epochs, 1) <= seconds < training_seconds(cost, epochs + 1, 1)


def test_less_than_an_iteration_is_refused():
    assert largest_budget(make_turn(2, 1, 5), 8) == (1, 1)
    with pytest.raises(BudgetTooSmall, match=r"7\.9 s are less than one epoch of one iteration, 8\.0 s"):
        largest_budget(make_turn(2, 1, 5), 7.9)


def test_validation_iterations_are_those_of_the_budget_suffix(monkeypatch):
    from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer

    from nnunetv2_lightm.trainers import find_trainer

    def initialise(self, *_):
        self.save_every = 50

    monkeypatch.setattr(nnUNetTrainer, "__init__", initialise)
    for iterations in (1, 5, 6, 100):
        trainer = find_trainer(f"nnUNetTrainer_2epochs_{iterations}iters")({}, "2d", 0, {})
        assert trainer.num_val_iterations_per_epoch == validation_iterations(iterations)


def test_median_of_the_turns():
    turns = [make_turn(1, 5, 3), make_turn(9, 4, 2), make_turn(2, 6, 1)]
    assert make_costs(turns).median == make_turn(2, 5, 2)


def test_turns_alternate_and_go_on_where_they_were():
    turn = make_turn(1, 1, 1)
    calibration = MeasuredCosts(device="cpu", machine={}, trainers={})
    assert missing_turns(calibration, ["a", "b"], 2) == ["a", "b", "a", "b"]
    calibration = calibration.with_trainers({"a": make_costs([turn, turn]), "b": make_costs([turn])})
    assert missing_turns(calibration, ["a", "b", "c"], 3) == ["c", "b", "c", "a", "b", "c"]


def test_file_round_trip(tmp_path):
    file = tmp_path / "calibration.json"
    trainers = {"a": make_costs([make_turn(1, 2, 3)])}
    calibration = MeasuredCosts(device="cpu", machine={"processor": "P"}, trainers=trainers)
    write_costs(calibration, file)
    assert load_costs(file) == calibration
    for text in ("{", "[]", '{"device": "cpu", "machine": {}, "trainers": {"a": {"turns": [{}]}}}'):
        file.write_text(text)
        with pytest.raises(ResultsError, match=r"calibration.json: no calibration .*remove it"):
            load_costs(file)


class FakeTrainer:
    """Counts nnU-Net's calls."""

    num_iterations_per_epoch, num_val_iterations_per_epoch = 250, 50

    def __init__(self):
        self.calls = []
        self.dataloader_train, self.dataloader_val = iter(range(10**9)), iter(range(10**9))

    def __getattr__(self, name):
        if not name.startswith("on_"):
            raise AttributeError(name)
        return lambda *arguments: self.calls.append(name)

    def train_step(self, batch):
        self.calls.append("train_step")
        return {"loss": np.array(1.0)}

    def validation_step(self, batch):
        self.calls.append("validation_step")
        return {"loss": np.array(1.0)}


def test_a_turn_is_one_epoch_of_nnunet():
    trainer = FakeTrainer()
    turn = take_turn(trainer, 0)
    assert [name for name in trainer.calls if name.startswith("on_")] == [
        "on_train_start",
        "on_epoch_start",
        "on_train_epoch_start",
        "on_train_epoch_end",
        "on_validation_epoch_start",
        "on_validation_epoch_end",
        "on_epoch_end",
        "on_train_end",
    ]
    # two to warm up, two that count
    assert trainer.calls.count("train_step") == trainer.calls.count("validation_step") == 4
    assert min(vars(turn).values()) > 0


def test_calibration_goes_on_after_a_kill(tmp_path, monkeypatch):
    order, output = [], tmp_path / "calibration.json"

    def make(dataset, configuration, fold, name, plans, device):
        order.append(name)
        if len(order) == 4:
            raise KeyboardInterrupt
        Path(str(nnUNet_results)).mkdir(exist_ok=True)
        return FakeTrainer()

    monkeypatch.setenv("nnUNet_results", "/of/the/user")
    monkeypatch.setattr(process, "get_trainer_from_args", make)
    arguments = (["a", "b"], "d", "2d", "p", 0, "cpu", output)
    with pytest.raises(KeyboardInterrupt):
        measure_costs(*arguments, rounds=3, turn_seconds=0)
    assert [path.name for path in tmp_path.iterdir()] == ["calibration.json"]
    measure_costs(*arguments, rounds=3, turn_seconds=0)
    assert order == ["a", "b", "a", "b", "b", "a", "b"]
    found = load_costs(output).trainers
    assert {name: len(trainer.turns) for name, trainer in found.items()} == {"a": 3, "b": 3}
    assert found["a"].iterations_per_epoch == 250
    with pytest.raises(ResultsError, match="measured on cpu, not on cuda"):
        measure_costs(["a"], "d", "2d", "p", 0, "cuda", output, rounds=3, turn_seconds=0)
