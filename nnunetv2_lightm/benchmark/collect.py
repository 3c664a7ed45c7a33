"""What is there of a comparison, finished or in the middle of it, as results."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

from ..complexity.plans import PlannedConfiguration
from ..measure.machine import machine
from ..runs.training_log import EpochRecord, read_training_log
from .calibration import load_calibration
from .results import BenchmarkResults, ResultsError, Run
from .settings import Settings
from .tasks import PlannedRun, complexity_file


def collect(
    settings: Settings,
    planned: PlannedConfiguration,
    runs: Sequence[PlannedRun],
    *,
    complete: Collection[str],
    failures: Mapping[str, str],
) -> BenchmarkResults:
    """Read calibration, complexity, training logs and evaluations.

    Args:
        settings: Of the comparison.
        planned: Its configuration.
        runs: All of it; empty before the calibration.
        complete: Keys of the runs that are complete.
        failures: Why runs failed, by key.
    Raises: ResultsError: naming a file that cannot be read.
    """
    file = settings.calibration_file
    calibration = load_calibration(file) if file.exists() else None
    costs = {} if calibration is None else calibration.trainers
    files = {trainer: complexity_file(settings, trainer) for trainer in settings.trainers}
    return BenchmarkResults(
        title=settings.title,
        dataset=settings.dataset,
        configuration=settings.configuration,
        plans=settings.plans,
        patch_size=tuple(map(int, planned.configuration.patch_size)),
        batch_size=planned.configuration.batch_size,
        spacing_mm=tuple(map(float, planned.configuration.spacing)),
        labels=planned.dataset_json["labels"],
        file_ending=planned.dataset_json["file_ending"],
        reader=planned.dataset_json.get("overwrite_image_reader_writer"),
        equal=settings.equal,
        budget=settings.budget,
        scored_on="test" if settings.has_test_split else "validation",
        command=settings.command,
        machine=machine() if calibration is None else calibration.machine,
        calibration={name: vars(costs[name].median) for name in settings.trainers if name in costs},
        complexity={trainer: _read_complexity(file) for trainer, file in files.items() if file.exists()},
        runs=tuple(_collect_run(settings, run, run.key in complete, failures.get(run.key)) for run in runs),
    )


def _collect_run(settings: Settings, run: PlannedRun, complete: bool, failure: str | None) -> Run:
    test = settings.has_test_split
    return Run(
        trainer=run.trainer,
        name=run.name,
        fold=run.fold,
        seed=run.seed,
        complete=complete,
        iterations_per_epoch=run.iterations_per_epoch,
        validation_iterations_per_epoch=run.validation_iterations_per_epoch,
        epochs=_finished_epochs(run.fold_folder(settings)),
        evaluation=_read_json(run.evaluation_file(settings)) if complete else None,
        predictions=run.predictions(settings),
        references=settings.raw / "labelsTs" if test else settings.preprocessed / "gt_segmentations",
        images=settings.raw / ("imagesTs" if test else "imagesTr"),
        failure=failure,
    )


def _finished_epochs(fold_folder: Path) -> tuple[EpochRecord, ...]:
    """None before the first is finished."""
    try:
        return tuple(read_training_log(fold_folder))
    except (FileNotFoundError, ValueError):
        return ()


def _read_complexity(file: Path) -> dict[str, float | None]:
    """Of what `nnUNetv2_lightm complexity` writes for one trainer; two FLOPs of a scan are worth a MAC."""
    (found,) = _read_json(file)["trainers"]
    return {
        "parameters": found["true_parameters"],
        "macs": found["true_macs_sample"] + found["true_scan_flops_sample"] / 2,
        "forward_seconds": found.get("forward_seconds"),
        "step_seconds": found.get("training_seconds"),
        "forward_mib": found.get("forward_transient_mib"),
        "step_mib": found.get("training_transient_mib"),
    }


def _read_json(file: Path) -> dict:
    try:
        return json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ResultsError(f"{file}: cannot be read: {error}; remove it and it is made again") from error
