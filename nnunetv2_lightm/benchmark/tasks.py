"""The tasks of a comparison, each resumable on its own: complexity of a trainer, costs of iterations, runs."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from ..runs.nnunet_steps import (
    Training,
    evaluate_step,
    is_complete_training,
    predict_step,
    training_continuation,
    training_outputs,
)
from ..runs.pipeline import Pipeline, Step, software_versions
from .costs import BudgetTooSmall, MeasuredCosts, largest_budget, validation_iterations
from .results import BenchmarkResults
from .results_content import BUDGET
from .settings import Settings, nnunet_folder


@dataclass(frozen=True)
class Task:
    """Steps that one process runs, on this machine or another.

    Attributes:
        name: Names its folder and its log.
        folder: Holds the state of its steps.
        log_file: Log of all its steps.
        steps: The steps, in order.
    """

    name: str
    folder: Path
    log_file: Path
    steps: tuple[Step, ...]

    def pipeline(self) -> Pipeline:
        """Built where it runs, because its commands inherit that process's environment."""
        return Pipeline(self.folder, self.steps, environment={}, version=software_versions(), log_file=self.log_file)


@dataclass(frozen=True)
class PlannedRun:
    """One training with its prediction and evaluation.

    Attributes:
        trainer: Trainer name without budget and seed.
        name: Full trainer name, as nnU-Net knows it.
        fold: Fold of the split.
        seed: Seed of the training.
        epochs: Number of epochs.
        iterations_per_epoch: Training iterations per epoch.
        validation_iterations_per_epoch: Validation iterations per epoch.
    """

    trainer: str
    name: str
    fold: int
    seed: int
    epochs: int
    iterations_per_epoch: int
    validation_iterations_per_epoch: int

    @property
    def key(self) -> str:
        """Identifies its task and its files."""
        return f"{self.name}_fold{self.fold}"

    def training(self, settings: Settings) -> Training:
        return Training(settings.dataset, settings.configuration, settings.plans, self.name, self.fold, settings.device)

    def fold_folder(self, settings: Settings) -> Path:
        return self.training(settings).fold_folder(nnunet_folder("nnUNet_results"))

    def predictions(self, settings: Settings) -> Path:
        """Folder of the predicted test cases, or else of nnU-Net's final validation."""
        if settings.has_test_split:
            return settings.folder / "predictions" / self.key
        return self.fold_folder(settings) / "validation"

    def evaluation_file(self, settings: Settings) -> Path:
        return settings.folder / "evaluations" / f"{self.key}.json"


def plan_runs(settings: Settings, costs: MeasuredCosts | None) -> list[PlannedRun]:
    """All trainers with the first seed and fold, then with the next; a budget of iterations needs no calibration.

    Raises: BudgetTooSmall: naming the trainer for which not even one iteration fits.
    """
    budgets = {}
    for trainer in settings.trainers:
        try:
            budgets[trainer] = _budget(settings.budget, costs, trainer)
        except BudgetTooSmall as error:
            raise BudgetTooSmall(f"{trainer}: {error}") from error
    return [
        PlannedRun(trainer, f"{trainer}_{suffix}_seed{seed}", fold, seed, *sizes)
        for seed in settings.seeds
        for fold in settings.folds
        for trainer, (suffix, *sizes) in budgets.items()
    ]


def trained_before(settings: Settings, results: BenchmarkResults, runs: Sequence[PlannedRun]) -> list[PlannedRun]:
    """Runs of earlier calls that are trained and that this one does not name, e.g. those of other seeds.

    They stay in the comparison while their trainings exist, also where a call that was interrupted left them without
    scores: they are predicted and evaluated again where something has changed, but never trained again.

    Args:
        settings: The settings of the comparison.
        results: What earlier calls wrote.
        runs: The runs of this call.
    """
    named = {run.key for run in runs}
    earlier = [
        PlannedRun(
            run.trainer,
            run.name,
            run.fold,
            run.seed,
            epochs=len(run.epochs),
            iterations_per_epoch=run.iterations_per_epoch,
            validation_iterations_per_epoch=run.validation_iterations_per_epoch,
        )
        for run in results.runs
    ]
    return [run for run in earlier if run.key not in named and is_complete_training(run.fold_folder(settings))]


def _budget(budget: str | float, costs: MeasuredCosts | None, trainer: str) -> tuple[str, int, int, int]:
    """Suffix, epochs, and training and validation iterations of an epoch."""
    if isinstance(budget, str):
        match = BUDGET.fullmatch(budget)
        suffix, epochs = budget, int(match["epochs"])
        if match["iterations"] is None:
            measured = costs.trainers[trainer]
            return suffix, epochs, measured.iterations_per_epoch, measured.validation_iterations_per_epoch
        iterations = int(match["iterations"])
    else:
        epochs, iterations = largest_budget(costs.trainers[trainer].median, budget)
        suffix = f"{epochs}epochs_{iterations}iters"
    return suffix, epochs, iterations, validation_iterations(iterations)


def run_task(settings: Settings, run: PlannedRun) -> Task:
    """Train, predict the test cases if any, evaluate. An existing complete training is adopted."""
    fold_folder, predictions = run.fold_folder(settings), run.predictions(settings)
    output, title = run.evaluation_file(settings), f"{_short(run.trainer)}_seed{run.seed}_fold{run.fold}"
    steps = [
        Step(
            f"{title} train",
            run.training(settings).train_command,
            outputs=training_outputs(fold_folder),
            continuation=partial(training_continuation, fold_folder),
            found=partial(is_complete_training, fold_folder),
        )
    ]
    dataset_json = settings.preprocessed / "dataset.json"
    options = ("--dataset-json", str(dataset_json), *settings.evaluation)
    if settings.has_test_split:
        images, references = settings.raw / "imagesTs", settings.raw / "labelsTs"
        steps.append(predict_step(run.training(settings), fold_folder, images, predictions, name=f"{title} predict"))
    else:
        references = settings.preprocessed / "gt_segmentations"
        options += ("--chill",)  # these are the references of all folds
    name = f"{title} evaluate"
    steps.append(evaluate_step(predictions, references, output, *options, name=name, inputs=(dataset_json,)))
    return _task(settings, run.key, steps)


def preparation_tasks(settings: Settings) -> list[Task]:
    """Count and measure each trainer's network, then measure the costs of all trainers in turns."""
    counted = [_task(settings, f"complexity_{name}", [_complexity(settings, name)]) for name in settings.trainers]
    return [*counted, _task(settings, "calibration", [_calibration(settings)])] if settings.timings else counted


def complexity_file(settings: Settings, trainer: str) -> Path:
    return settings.folder / "complexity" / f"{trainer}.json"


def _complexity(settings: Settings, trainer: str) -> Step:
    output = complexity_file(settings, trainer)
    model = ("-tr", trainer, "-d", settings.dataset, "-c", settings.configuration, "-p", settings.plans)
    # The memory of a patch can be measured on these two.
    measurable = settings.timings and settings.device in ("cpu", "cuda")
    measured = ("-device", settings.device) if measurable else ("--count-only",)
    written = ("--format", "json", "-o", str(output), "--overwrite")
    command = ("nnUNetv2_lightm", "complexity", *model, *measured, *written)
    return Step(f"{_short(trainer)} complexity", command, outputs=(output,))


def _calibration(settings: Settings) -> Step:
    output = settings.calibration_file
    command = (
        "python",
        "-m",
        "nnunetv2_lightm.benchmark.measure_costs",
        "-tr",
        *settings.trainers,
        "-d",
        settings.dataset,
        "-c",
        settings.configuration,
        "-p",
        settings.plans,
        "-f",
        str(settings.folds[0]),
        "-device",
        settings.device,
        "-o",
        str(output),
    )
    # It resumes from the turns in its file, also when trainers were added.
    return Step("calibration", command, outputs=(output,))


def _task(settings: Settings, name: str, steps: Sequence[Step]) -> Task:
    return Task(name, settings.folder / "state" / name, settings.folder / "logs" / f"{name}.log", tuple(steps))


def _short(trainer: str) -> str:
    return re.sub("^nnUNetTrainer(?=.)", "", trainer)
