"""calibration.json: what an iteration of each trainer costs here, and how many fit into a time."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field

from ..escaping import to_json
from ..files import write_text
from ..json_input import Amount, ClassName, Content, Count, JsonInputError, Length, Positive, Text, check, read_json
from .results import ResultsError

# Between these the number of epochs is chosen: enough for a curve, and few enough not to spend the time on validation.
LEAST_EPOCHS, MOST_EPOCHS = 20, 50
TRAINING_PER_VALIDATION = 5  # nnU-Net's ratio, 250 to 50, which the budget suffixes keep


class BudgetTooSmall(ValueError):
    """Not even one iteration fits."""


@dataclass(frozen=True)
class Turn:
    """What a trainer took in one turn, in seconds.

    Attributes:
        train_seconds: Of a training iteration, its batch included.
        validation_seconds: Of a validation iteration, its batch included.
        epoch_seconds: What an epoch takes besides: scores, checkpoint, progress.png.
    """

    train_seconds: float
    validation_seconds: float
    epoch_seconds: float

    def training_seconds(self, epochs: int, iterations: int, validation_iterations: int) -> float:
        """What a training takes: every epoch with its validation and what comes besides."""
        validation = validation_iterations * self.validation_seconds
        return epochs * (iterations * self.train_seconds + validation + self.epoch_seconds)


@dataclass
class TrainerCalibration:
    """A trainer's turns.

    Attributes:
        iterations_per_epoch: Of training, without a budget suffix.
        validation_iterations_per_epoch: Likewise.
        turns: In order.
    """

    iterations_per_epoch: int
    validation_iterations_per_epoch: int
    turns: list[Turn] = field(default_factory=list)

    @property
    def median(self) -> Turn:
        """Of the turns, each number for itself."""
        return Turn(*(statistics.median(numbers) for numbers in zip(*(asdict(turn).values() for turn in self.turns))))


@dataclass
class Calibration:
    """The file.

    Attributes:
        device: On which it was measured.
        machine: What :mod:`nnunetv2_lightm.measure.machine` says of it.
        trainers: By name.
    """

    device: str
    machine: Mapping[str, str]
    trainers: dict[str, TrainerCalibration] = field(default_factory=dict)


class _TurnContent(Content):
    train_seconds: Length
    validation_seconds: Length
    epoch_seconds: Amount


class _TrainerContent(Content):
    iterations_per_epoch: Positive
    validation_iterations_per_epoch: Count
    turns: Annotated[list[_TurnContent], Field(min_length=1, max_length=10**4)]


class _CalibrationContent(Content):
    device: Literal["cpu", "cuda", "mps"]
    machine: dict[Text, Text]
    trainers: dict[ClassName, _TrainerContent]


def load_calibration(path: Path) -> Calibration:
    """Raises: ResultsError: if the file cannot be read or holds something else; it names the file and the key."""
    try:
        found = check(read_json(path), _CalibrationContent, path)
    except JsonInputError as error:
        raise ResultsError(f"{path}: no calibration ({error}); remove it to measure anew") from error
    trainers = {
        name: TrainerCalibration(
            trainer.iterations_per_epoch,
            trainer.validation_iterations_per_epoch,
            [Turn(**dict(turn)) for turn in trainer.turns],
        )
        for name, trainer in found.trainers.items()
    }
    return Calibration(found.device, found.machine, trainers)


def write_calibration(calibration: Calibration, path: Path) -> None:
    """Write the file in one step."""
    write_text(path, to_json(asdict(calibration)))


def validation_iterations(iterations: int) -> int:
    """That go with so many training iterations an epoch."""
    return -(-iterations // TRAINING_PER_VALIDATION)


def training_seconds(cost: Turn, epochs: int, iterations: int) -> float:
    """Of so many training iterations an epoch, with the validation that goes with them."""
    return cost.training_seconds(epochs, iterations, validation_iterations(iterations))


def largest_budget(cost: Turn, seconds: float) -> tuple[int, int]:
    """Epochs and training iterations an epoch with the most iterations altogether that fit.

    Of equal ones the most epochs. Where an iteration takes too long for ``LEAST_EPOCHS``, epochs of one iteration.
    Raises: BudgetTooSmall: if none fits.
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
    """Training iterations in an epoch of so many seconds."""
    rest = seconds - cost.epoch_seconds
    # So many fit if validation cost nothing; from there down to what fits with it.
    iterations = max(0, int(rest / cost.train_seconds))
    while iterations and training_seconds(cost, 1, iterations) > seconds:
        group = TRAINING_PER_VALIDATION * cost.train_seconds + cost.validation_seconds
        excess = training_seconds(cost, 1, iterations) - seconds
        iterations -= max(1, int(excess / group) * TRAINING_PER_VALIDATION)
    return iterations


def missing_turns(calibration: Calibration, trainers: Sequence[str], rounds: int) -> list[str]:
    """Whose turn it is, in order: in each round every trainer has one."""

    def done(name: str) -> int:
        return len(calibration.trainers[name].turns) if name in calibration.trainers else 0

    return [name for number in range(rounds) for name in trainers if done(name) <= number]
