"""results.json: what a comparison of trainers leaves behind."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import MISSING, asdict, dataclass, fields, replace
from pathlib import Path

from ..files import write_text
from ..runs.training_log import EpochRecord

FORMAT = 1
ITERATIONS, SECONDS = "iterations", "seconds"
FOLDERS = ("predictions", "references", "images")  # of a run


class ResultsError(ValueError):
    """A results file that cannot be read; the message names it and says what is wrong."""


@dataclass(frozen=True)
class Run:
    """One training and what came of it.

    Attributes:
        trainer: Class name without budget and seed.
        name: Full name, as nnU-Net knows it.
        fold: Of the five-fold split.
        seed: Of the initial weights, and of what else is random in the training process (trainers/budgets.py).
        complete: Trained to the end, predicted and evaluated.
        iterations_per_epoch: Of training.
        validation_iterations_per_epoch: Of validation.
        epochs: The finished ones, in order.
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
        title: For people.
        dataset: Full name.
        configuration: E.g. "3d_fullres".
        plans: Plans identifier.
        patch_size: Voxels, (z, y, x) or (y, x).
        batch_size: Patches per iteration.
        spacing_mm: Of the configuration, in the order of `patch_size`.
        labels: dataset.json's `labels`.
        file_ending: dataset.json's `file_ending`.
        reader: dataset.json's `overwrite_image_reader_writer`, or None.
        equal: What all trainers had alike: ``ITERATIONS`` or ``SECONDS``.
        budget: Suffix of the trainers, or seconds of training.
        scored_on: "test" or "validation" cases.
        command: That made it.
        machine: What :mod:`nnunetv2_lightm.measure.machine` says.
        calibration: Trainer to `train_seconds` and `validation_seconds`, each of one iteration, and `epoch_seconds`,
            what an epoch takes besides.
        complexity: Trainer to `parameters`, `macs`, `forward_seconds`, `step_seconds`, `forward_mib`, `step_mib`, for
            one patch; a value that was not measured is None.
        runs: Finished and unfinished.
        not_pictured: Why a report pictures none of the images, e.g. their licence; None: it pictures some.
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
    command: str
    machine: Mapping[str, object]
    calibration: Mapping[str, Mapping[str, float]]
    complexity: Mapping[str, Mapping[str, float | None]]
    runs: tuple[Run, ...]
    not_pictured: str | None = None


def load_results(path: Path) -> BenchmarkResults:
    """Read a results file. Folders in it that are not absolute are relative to its own.

    Raises: ResultsError: if it cannot be read, is of another format, or lacks a field.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ResultsError(f"{path}: cannot be read: {error}") from error
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        found = content.get("format") if isinstance(content, dict) else type(content).__name__
        raise ResultsError(f"{path}: format {found}; this version reads the results.json of format {FORMAT}")
    _need_fields(content, BenchmarkResults, str(path))
    if content["equal"] not in (ITERATIONS, SECONDS):
        raise ResultsError(f'{path}: "equal" is {content["equal"]!r}; expected "{ITERATIONS}" or "{SECONDS}"')
    tuples = {name: tuple(content[name]) for name in ("patch_size", "spacing_mm")}
    runs = tuple(_load_run(run, f"{path}, run {i}", path.parent) for i, run in enumerate(content["runs"]))
    return BenchmarkResults(**{**_known(content, BenchmarkResults), **tuples, "runs": runs})


def write_results(results: BenchmarkResults, path: Path) -> None:
    """Write a results file in one step. Folders in it are relative to its own: they may move together."""
    runs = [{**asdict(run), **_relative_folders(run, path.absolute().parent)} for run in results.runs]
    content = {"format": FORMAT, **asdict(replace(results, runs=())), "runs": runs}
    write_text(path, json.dumps(_plain(content), indent=2, ensure_ascii=False, allow_nan=False) + "\n")


def _load_run(run: Mapping, place: str, folder: Path) -> Run:
    _need_fields(run, Run, place)
    for epoch in run["epochs"]:
        _need_fields(epoch, EpochRecord, place)
    paths = {name: None if run[name] is None else Path(os.path.normpath(folder / run[name])) for name in FOLDERS}
    return Run(**{**_known(run, Run), **paths, "epochs": tuple(_load_epoch(epoch) for epoch in run["epochs"])})


def _relative_folders(run: Run, start: Path) -> dict[str, str | None]:
    folders = {name: getattr(run, name) for name in FOLDERS}
    return {name: None if path is None else os.path.relpath(path, start) for name, path in folders.items()}


def _load_epoch(epoch: Mapping) -> EpochRecord:
    numbers = {name: _or_nan(epoch[name]) for name in ("train_loss", "val_loss", "seconds")}
    return EpochRecord(epoch=epoch["epoch"], pseudo_dice=tuple(map(_or_nan, epoch["pseudo_dice"])), **numbers)


def _need_fields(content: object, kind: type, place: str) -> None:
    names = [field.name for field in fields(kind) if field.default is MISSING]
    missing = [name for name in names if not isinstance(content, Mapping) or name not in content]
    if missing:
        raise ResultsError(f"{place}: lacks {', '.join(missing)}; `nnUNetv2_lightm benchmark` writes them")


def _known(content: Mapping, kind: type) -> dict:
    return {field.name: content[field.name] for field in fields(kind) if field.name in content}


def _or_nan(number: float | None) -> float:
    return float("nan") if number is None else float(number)


def _plain(value: object) -> object:
    """Only what JSON has: paths as text, NaN and infinity as null."""
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, Sequence) and not isinstance(value, str):
        return [_plain(item) for item in value]
    if isinstance(value, Path):
        return str(value)
    return None if isinstance(value, float) and value - value != 0 else value
