"""Collects the current state of a comparison, finished or not, as results."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field

from ..complexity.plans import PlannedConfiguration
from ..json_input import MAX_LONG_TEXT, Amount, Content, Count, JsonInputError, check, read_json
from ..measure.machine import machine
from ..runs.training_log import EpochRecord, read_training_log
from .costs import load_costs
from .earlier import planned_sizes
from .results import BenchmarkResults, ResultsError, Run
from .settings import Settings
from .sharing import without_home
from .tasks import PlannedRun, complexity_file


class _Counted(Content):
    true_parameters: Count
    true_macs_sample: Amount
    true_scan_flops_sample: Amount
    forward_seconds: Amount | None = None
    training_seconds: Amount | None = None
    forward_transient_mib: Amount | None = None
    training_transient_mib: Amount | None = None


class _ComplexityFile(Content):
    trainers: Annotated[list[_Counted], Field(min_length=1, max_length=1)]


def collect(
    settings: Settings,
    planned: PlannedConfiguration,
    runs: Sequence[PlannedRun],
    *,
    commands: Sequence[Sequence[str]],
    complete: Collection[str],
    failures: Mapping[str, str],
) -> BenchmarkResults:
    """Read calibration, complexity, training logs and evaluations.

    Args:
        settings: The settings of the comparison.
        planned: The planned configuration.
        runs: All planned runs; empty before the costs are measured.
        commands: The commands that made them.
        complete: Keys of the complete runs.
        failures: Key of a failed run to the reason.
    Raises: ResultsError: naming a file that cannot be read.
    """
    file = settings.calibration_file
    measured = load_costs(file) if file.exists() else None
    costs = {} if measured is None else measured.trainers
    trainers = list(dict.fromkeys((*(run.trainer for run in runs), *settings.trainers)))
    files = {trainer: complexity_file(settings, trainer) for trainer in trainers}
    return BenchmarkResults(
        title=settings.title,
        dataset=settings.dataset,
        configuration=settings.configuration,
        plans=settings.plans,
        **planned_sizes(planned),
        labels=planned.dataset_json["labels"],
        file_ending=planned.dataset_json["file_ending"],
        reader=planned.dataset_json.get("overwrite_image_reader_writer"),
        equal=settings.equal,
        budget=settings.budget,
        scored_on="test" if settings.has_test_split else "validation",
        commands=tuple(map(tuple, commands)),
        machine=machine() if measured is None else measured.machine,
        calibration={name: costs[name].median.model_dump() for name in trainers if name in costs},
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
        failure=failure and without_home(failure)[-MAX_LONG_TEXT:],
    )


def _finished_epochs(fold_folder: Path) -> tuple[EpochRecord, ...]:
    """The finished epochs; none before the first has ended."""
    try:
        return tuple(read_training_log(fold_folder))
    except (FileNotFoundError, ValueError):
        return ()


def _read_complexity(file: Path) -> dict[str, float | None]:
    """The costs that `nnUNetv2_lightm complexity` wrote for one trainer; two FLOPs of a scan count as one MAC."""
    try:
        (counted,) = check(_read_json(file), _ComplexityFile, file).trainers
    except JsonInputError as error:
        raise ResultsError(f"{error}; remove it and it is made again") from error
    return {
        "parameters": counted.true_parameters,
        "macs": counted.true_macs_sample + counted.true_scan_flops_sample / 2,
        "forward_seconds": counted.forward_seconds,
        "step_seconds": counted.training_seconds,
        "forward_mib": counted.forward_transient_mib,
        "step_mib": counted.training_transient_mib,
    }


def _read_json(file: Path) -> Any:
    try:
        return read_json(file)
    except JsonInputError as error:
        raise ResultsError(f"{error}; remove it and it is made again") from error
