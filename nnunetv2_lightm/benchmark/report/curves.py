"""The course of a method's training, over its runs, on axes that make methods comparable; time-to-accuracy."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from ...runs.training_log import EpochRecord
from ..results import BenchmarkResults, Run
from .contenders import Contender

LEVELS = (0.1, 0.3, 0.5, 0.7, 0.8, 0.85, 0.9, 0.95, 0.98)
MAX_LEVELS = 6


@dataclass(frozen=True)
class Curve:
    """Means over the runs of a method, one number for each epoch that all of them have finished.

    Attributes:
        iterations: Training iterations up to the end of the epoch.
        seconds: Seconds up to the end of the epoch, including validation and overhead.
        calibrated: Whether the seconds are iterations times calibrated seconds; otherwise they were recorded.
        train_loss: Training loss per epoch.
        val_loss: Validation loss per epoch.
        pseudo_dice: Mean over the foreground classes, then over the runs.
        lowest: `pseudo_dice` of the lowest run at each epoch.
        highest: `pseudo_dice` of the highest run at each epoch.
        num_runs: Number of runs averaged.
    """

    iterations: np.ndarray
    seconds: np.ndarray
    calibrated: bool
    train_loss: np.ndarray
    val_loss: np.ndarray
    pseudo_dice: np.ndarray
    lowest: np.ndarray
    highest: np.ndarray
    num_runs: int

    def seconds_to_reach(self, level: float) -> float | None:
        """Seconds until the mean pseudo Dice is at least `level` for the first time; None if it never is."""
        reached = self.pseudo_dice >= level
        return float(self.seconds[reached.argmax()]) if reached.any() else None


def training_curves(results: BenchmarkResults, contenders: Sequence[Contender]) -> dict[str, Curve]:
    """Method name to curve; methods without a finished epoch are left out.

    Complete runs decide; where there is none, the unfinished ones are shown as far as they got.
    """
    curves = {}
    for contender in contenders:
        runs = [run for run in contender.runs if run.complete and run.epochs] or [
            run for run in contender.runs if run.epochs
        ]
        common = set.intersection(*({record.epoch for record in run.epochs} for run in runs)) if runs else set()
        if common:
            curves[contender.name] = _mean_curve(runs, sorted(common), results.calibration.get(contender.trainer))
    return curves


def reached_levels(curves: Mapping[str, Curve]) -> list[float]:
    """The highest of the round values that at least one method reaches."""
    reached = [level for level in LEVELS if any(curve.seconds_to_reach(level) is not None for curve in curves.values())]
    return reached[-MAX_LEVELS:]


def foreground_mean(record: EpochRecord) -> float:
    """Mean of an epoch's pseudo Dice over the classes that have one, NaN without any."""
    dice = np.array(record.pseudo_dice, dtype=float)
    return float(dice[~np.isnan(dice)].mean()) if np.isfinite(dice).any() else float("nan")


def _mean_curve(runs: Sequence[Run], epochs: list[int], calibration: Mapping[str, float] | None) -> Curve:
    tables = [_course(run, epochs, calibration) for run in runs]
    mean = {name: np.mean([table[name] for table in tables], axis=0) for name in tables[0]}
    dice = np.array([table["pseudo_dice"] for table in tables])
    return Curve(
        **mean,
        calibrated=calibration is not None,
        lowest=dice.min(axis=0),
        highest=dice.max(axis=0),
        num_runs=len(runs),
    )


def _course(run: Run, epochs: list[int], calibration: Mapping[str, float] | None) -> dict[str, np.ndarray]:
    records = {record.epoch: record for record in run.epochs}
    number = np.array(epochs) + 1
    if calibration is None:
        recorded = [sum(r.seconds for r in run.epochs if r.epoch <= epoch) for epoch in epochs]
        seconds = np.array(recorded, dtype=float)
    else:
        training = run.iterations_per_epoch * calibration["train_seconds"]
        validation = run.validation_iterations_per_epoch * calibration["validation_seconds"]
        seconds = number * (training + validation + calibration.get("epoch_seconds", 0.0))
    return {
        "iterations": number * float(run.iterations_per_epoch),
        "seconds": seconds,
        "train_loss": np.array([records[epoch].train_loss for epoch in epochs]),
        "val_loss": np.array([records[epoch].val_loss for epoch in epochs]),
        "pseudo_dice": np.array([foreground_mean(records[epoch]) for epoch in epochs]),
    }
