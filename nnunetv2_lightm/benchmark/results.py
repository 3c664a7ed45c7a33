"""results.json: the outcome of a comparison of trainers."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from pydantic import TypeAdapter, ValidationError

from ..escaping import to_json
from ..evaluation.json_files import evaluation_from_json
from ..evaluation.scores import EvaluationError, foreground_classes
from ..files import relative_path, write_text
from ..json_input import Amount, Content, Fraction, JsonInputError, Number, check, read_json
from ..runs.training_log import EpochRecord
from .results_content import ITERATIONS, SECONDS, EpochContent, ResultsContent, RunContent

__all__ = ["ITERATIONS", "SECONDS", "BenchmarkResults", "ResultsError", "Run", "load_results", "write_results"]

FORMAT = 1
FOLDERS = ("predictions", "references", "images")  # of a run
_NUMBER, _AMOUNT, _FRACTION = map(TypeAdapter, (Number, Amount, Fraction))


class ResultsError(ValueError):
    """A results file that cannot be read; the message names it and says what is wrong."""


@dataclass(frozen=True)
class Run:
    """One training and its outcome.

    Attributes:
        trainer: Class name without budget and seed.
        name: Full name, as nnU-Net knows it.
        fold: Fold of the five-fold split.
        seed: Seed of the initial weights and of all other randomness in the training process (trainers/budgets.py).
        complete: Trained to the end, predicted and evaluated.
        iterations_per_epoch: Training iterations per epoch.
        validation_iterations_per_epoch: Validation iterations per epoch.
        epochs: The finished epochs, in order.
        evaluation: What ``nnUNetv2_lightm evaluate --json`` writes, or None.
        predictions: Folder of the predicted segmentations, or None.
        references: Folder of their ground truth, or None.
        images: Folder of their images, or None.
        failure: The end of the log of a run that failed, or None.
    """

    trainer: str
    name: str
    fold: int
    seed: int
    complete: bool
    iterations_per_epoch: int
    validation_iterations_per_epoch: int
    epochs: tuple[EpochRecord, ...]
    evaluation: Mapping | None
    predictions: Path | None
    references: Path | None
    images: Path | None
    failure: str | None = None


@dataclass(frozen=True)
class BenchmarkResults:
    """A comparison: trainers on one configuration of one data set, with one budget.

    Attributes:
        title: Human-readable title.
        dataset: Full name.
        configuration: E.g. "3d_fullres".
        plans: Plans identifier.
        patch_size: Voxels, (z, y, x) or (y, x).
        batch_size: Patches per iteration.
        spacing_mm: Target spacing of the configuration, in the order of `patch_size`.
        labels: dataset.json's `labels`.
        file_ending: dataset.json's `file_ending`.
        reader: dataset.json's `overwrite_image_reader_writer`, or None.
        equal: What was equal for all trainers: ``ITERATIONS`` or ``SECONDS``.
        budget: Suffix of the trainers, or seconds of training.
        scored_on: "test" or "validation" cases.
        commands: The commands that made it, the last one last; each as its words.
        machine: The machine, as :mod:`nnunetv2_lightm.measure.machine` describes it.
        calibration: Trainer to `train_seconds` and `validation_seconds`, each of one iteration, and `epoch_seconds`,
            the overhead of an epoch.
        complexity: Trainer to `parameters`, `macs`, `forward_seconds`, `step_seconds`, `forward_mib`, `step_mib`, for
            one patch; a value that was not measured is None.
        runs: All runs, finished or not.
        not_pictured: Why a report shows none of the images, e.g. their licence; None: it shows some.
    """

    title: str
    dataset: str
    configuration: str
    plans: str
    patch_size: tuple[int, ...]
    batch_size: int
    spacing_mm: tuple[float, ...]
    labels: Mapping[str, int | list[int]]
    file_ending: str
    reader: str | None
    equal: str
    budget: str | float
    scored_on: str
    commands: tuple[tuple[str, ...], ...]
    machine: Mapping[str, object]
    calibration: Mapping[str, Mapping[str, float]]
    complexity: Mapping[str, Mapping[str, float | None]]
    runs: tuple[Run, ...]
    not_pictured: str | None = None


def load_results(path: Path) -> BenchmarkResults:
    """Read a results file of any origin. Relative folders in it are relative to the file's folder.

    Raises: ResultsError: naming the key, if the file cannot be read, is in another format, or lacks what it needs.
    """
    try:
        content = read_json(path)
        if not isinstance(content, dict) or content.get("format") != FORMAT:
            given = repr(content.get("format")) if isinstance(content, dict) else type(content).__name__
            raise ResultsError(f"{path}: format {given}; this version reads the results.json of format {FORMAT}")
        return _from_content(content, path)
    except (JsonInputError, EvaluationError) as error:
        raise ResultsError(f"{error}; `nnUNetv2_lightm benchmark` writes such files") from error


def _from_content(content: dict, path: Path) -> BenchmarkResults:
    checked = check(content, ResultsContent, path)
    classes = list(foreground_classes(checked.labels)[0])
    runs = tuple(_load_run(run, f"{path}, run {i}", path.parent, classes) for i, run in enumerate(checked.runs))
    tuples = {name: tuple(getattr(checked, name)) for name in ("patch_size", "spacing_mm")}
    costs = {name: _plain_costs(getattr(checked, name)) for name in ("calibration", "complexity")}
    commands = tuple(map(tuple, checked.commands))
    return BenchmarkResults(**{**dict(checked), **tuples, **costs, "commands": commands, "runs": runs})


def write_results(results: BenchmarkResults, path: Path) -> None:
    """Write a results file atomically. Folders are stored relative to it where a way leads there: all may be moved.

    Raises: ResultsError: naming the key, if it could not be read again. The file that is there stays.
    """
    runs = [
        {**asdict(run), "epochs": [*map(_epoch_content, run.epochs)], **_relative_folders(run, path.absolute().parent)}
        for run in results.runs
    ]
    content = _plain({"format": FORMAT, **asdict(replace(results, runs=())), "runs": runs})
    try:
        _from_content(content, path)
    except (JsonInputError, EvaluationError) as error:
        raise ResultsError(f"{error}; such results are not written, as nothing could read them") from error
    write_text(path, to_json(content))


def _load_run(content: object, place: str, folder: Path, classes: Sequence[str]) -> Run:
    checked = check(content, RunContent, place)
    if checked.evaluation is not None:
        evaluated = evaluation_from_json(checked.evaluation, f"{place}: evaluation")
        if list(evaluated.classes) != classes:
            raise ResultsError(f"{place}: evaluation.classes are {list(evaluated.classes)}; the labels name {classes}")
    paths = {name: getattr(checked, name) for name in FOLDERS}
    paths = {name: None if path is None else Path(os.path.normpath(folder / path)) for name, path in paths.items()}
    return Run(**{**dict(checked), **paths, "epochs": tuple(map(_load_epoch, checked.epochs))})


def _relative_folders(run: Run, start: Path) -> dict[str, str | None]:
    folders = {name: getattr(run, name) for name in FOLDERS}
    return {name: None if path is None else relative_path(path, start) for name, path in folders.items()}


def _epoch_content(epoch: EpochRecord) -> dict[str, object]:
    """The values of :class:`EpochContent`: null for NaN and for numbers beyond its bounds, such as the loss of a
    training that diverges, or the seconds of an epoch in which the clock was set back."""
    return {
        "epoch": epoch.epoch,
        "train_loss": _or_null(epoch.train_loss, _NUMBER),
        "val_loss": _or_null(epoch.val_loss, _NUMBER),
        "pseudo_dice": [_or_null(dice, _FRACTION) for dice in epoch.pseudo_dice],
        "seconds": _or_null(epoch.seconds, _AMOUNT),
    }


def _or_null(number: float, kind: TypeAdapter[float]) -> float | None:
    try:
        return kind.validate_python(number)
    except ValidationError:
        return None


def _load_epoch(epoch: EpochContent) -> EpochRecord:
    numbers = {name: _or_nan(getattr(epoch, name)) for name in ("train_loss", "val_loss", "seconds")}
    return EpochRecord(epoch=epoch.epoch, pseudo_dice=tuple(map(_or_nan, epoch.pseudo_dice)), **numbers)


def _plain_costs(costs: Mapping[str, Content]) -> dict[str, dict]:
    """The numbers that the file contains."""
    return {trainer: cost.model_dump(exclude_unset=True) for trainer, cost in costs.items()}


def _or_nan(number: float | None) -> float:
    return math.nan if number is None else number


def _plain(value: object) -> object:
    """Convert to what JSON can hold: paths become text, NaN and infinity null."""
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, Sequence) and not isinstance(value, str):
        return [_plain(item) for item in value]
    if isinstance(value, Path):
        return str(value)
    return None if isinstance(value, float) and not math.isfinite(value) else value
