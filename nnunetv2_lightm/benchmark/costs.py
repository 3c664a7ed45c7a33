"""calibration.json: what an iteration of each trainer costs on this machine, and how many fit into a given time."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field

from ..escaping import to_json
from ..files import write_text
from ..json_input import Amount, ClassName, Content, Count, JsonInputError, Length, Positive, Text, check, read_json
from .results import ResultsError

# Bounds for the number of epochs: enough for a curve, and not so many that validation takes the time.
LEAST_EPOCHS, MOST_EPOCHS = 20, 50
TRAINING_PER_VALIDATION = 5  # nnU-Net's ratio, 250 to 50, which the budget suffixes keep


class BudgetTooSmall(ValueError):
    """The budget is too short for a single iteration."""


class Turn(Content):
    """What one turn of a trainer cost, in seconds.

    Attributes:
        train_seconds: One training iteration, loading its batch included.
        validation_seconds: One validation iteration, loading its batch included.
        epoch_seconds: The overhead of an epoch: scores, checkpoint, progress.png.
    """

    train_seconds: Length
    validation_seconds: Length
    epoch_seconds: Amount

    def training_seconds(self, epochs: int, iterations: int, validation_iterations: int) -> float:
        """Duration of a training: every epoch with its validation and its overhead."""
        validation = validation_iterations * self.validation_seconds
        return epochs * (iterations * self.train_seconds + validation + self.epoch_seconds)


class TrainerCosts(Content):
    """A trainer's turns.

    Attributes:
        iterations_per_epoch: Training iterations without a budget suffix.
        validation_iterations_per_epoch: Validation iterations without a budget suffix.
        turns: The measurements, in order.
    """

    iterations_per_epoch: Positive
    validation_iterations_per_epoch: Count
    turns: Annotated[list[Turn], Field(min_length=1, max_length=10**4)]

    @property
    def median(self) -> Turn:
        """The median over the turns, taken for each number separately."""
        names = Turn.model_fields
        return Turn(**{name: statistics.median(getattr(turn, name) for turn in self.turns) for name in names})


class MeasuredCosts(Content):
    """The content of calibration.json.

    Attributes:
        device: The device measured.
        machine: The machine, as :mod:`nnunetv2_lightm.measure.machine` describes it.
        trainers: Trainer name to its costs.
    """

    device: Literal["cpu", "cuda", "mps"]
    machine: dict[Text, Text]
    trainers: dict[ClassName, TrainerCosts]

    def num_turns(self, trainer: str) -> int:
        """Number of turns of a trainer so far."""
        return len(self.trainers[trainer].turns) if trainer in self.trainers else 0

    def with_trainers(self, trainers: Mapping[str, TrainerCosts]) -> MeasuredCosts:
        """The same with the costs of these trainers, in place of those that it has of them."""
        return self.model_copy(update={"trainers": {**self.trainers, **trainers}})


def load_costs(path: Path) -> MeasuredCosts:
    """Raises: ResultsError: naming the file and the key, if it cannot be read or holds something else."""
    try:
        return check(read_json(path), MeasuredCosts, path)
    except JsonInputError as error:
        raise ResultsError(f"{path}: no calibration ({error}); remove it to measure again") from error


def write_costs(costs: MeasuredCosts, path: Path) -> None:
    """Write the file in one step."""
    write_text(path, to_json(costs.model_dump()))


def validation_iterations(iterations: int) -> int:
    """Validation iterations per epoch for this many training iterations."""
    return -(-iterations // TRAINING_PER_VALIDATION)


def training_seconds(cost: Turn, epochs: int, iterations: int) -> float:
    """Duration of a training with this many iterations per epoch, validation included."""
    return cost.training_seconds(epochs, iterations, validation_iterations(iterations))


def largest_budget(cost: Turn, seconds: float) -> tuple[int, int]:
    """Epochs, and training iterations per epoch, that fit the most iterations into a time.

    Ties go to more epochs. Where an iteration is too slow for ``LEAST_EPOCHS``, each epoch has one iteration.
    Raises: BudgetTooSmall: if not one iteration fits.
    """
    choices = range(MOST_EPOCHS, LEAST_EPOCHS - 1, -1)
    budgets = [(epochs, _iterations_that_fit(cost, seconds / epochs)) for epochs in choices]
    best = max(budgets, key=lambda budget: budget[0] * budget[1])
    if best[1]:
        return best
    shortest = training_seconds(cost, 1, 1)
    if seconds < shortest:
        raise BudgetTooSmall(f"{seconds:g} s are less than one epoch of one iteration, {shortest:.1f} s")
    return int(seconds / shortest), 1


def _iterations_that_fit(cost: Turn, seconds: float) -> int:
    """Training iterations that fit into an epoch of this many seconds."""
    rest = seconds - cost.epoch_seconds
    # This many would fit if validation cost nothing; count down to what fits together with it.
    iterations = max(0, int(rest / cost.train_seconds))
    while iterations and training_seconds(cost, 1, iterations) > seconds:
        group = TRAINING_PER_VALIDATION * cost.train_seconds + cost.validation_seconds
        excess = training_seconds(cost, 1, iterations) - seconds
        iterations -= max(1, int(excess / group) * TRAINING_PER_VALIDATION)
    return iterations


def missing_turns(costs: MeasuredCosts, trainers: Sequence[str], rounds: int) -> list[str]:
    """The trainers that still have turns to run, in order: one turn each per round."""
    return [name for number in range(rounds) for name in trainers if costs.num_turns(name) <= number]
