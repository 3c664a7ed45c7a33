"""The study's results: those published in benchmarks/accuracy/results, combined with newer ones in a folder.

A study takes longer than some machines are available. Published runs count as done wherever the study continues: they
are not run again, and the costs of iterations are taken from them, so that "equal seconds" stay those of one machine.
"""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from nnunetv2_lightm.benchmark.costs import MeasuredCosts, TrainerCosts, Turn, write_costs
from nnunetv2_lightm.benchmark.measure_costs import ROUNDS
from nnunetv2_lightm.benchmark.results import BenchmarkResults, Run, load_results, write_results
from nnunetv2_lightm.benchmark.settings import CALIBRATION_FILE, RESULTS_FILE

SAME = ("dataset", "configuration", "plans", "patch_size", "batch_size", "equal", "budget", "scored_on")
# Of an epoch without a budget, which every run of the study has.
NNUNET_ITERATIONS = {"iterations_per_epoch": 250, "validation_iterations_per_epoch": 50}


class DifferentComparisons(ValueError):
    """Results that do not belong together; the message says where they differ."""


def combine(parts: Sequence[BenchmarkResults], trainers: Sequence[str]) -> BenchmarkResults:
    """One comparison of several parts, such as its seeds or what was done on another machine.

    If several parts have a run, the last complete one counts. Costs are those of the first part that has them.
    `trainers` gives the order; others are left out.

    Raises: DifferentComparisons: if plans, budget or another of ``SAME`` differ.
    """
    first = parts[0]
    for part in parts[1:]:
        for name in SAME:
            if getattr(part, name) != getattr(first, name):
                raise DifferentComparisons(
                    f"{part.title!r} has {name} {getattr(part, name)!r}, what was published {getattr(first, name)!r}"
                )
    runs: dict[tuple, Run] = {}
    for run in (run for part in parts for run in part.runs if run.trainer in trainers):
        key = run.seed, run.fold, trainers.index(run.trainer)
        if run.complete or not (key in runs and runs[key].complete):
            runs[key] = run
    costs = {}
    for name in ("calibration", "complexity"):
        known = {key: value for part in reversed(parts) for key, value in getattr(part, name).items()}
        costs[name] = {trainer: known[trainer] for trainer in trainers if trainer in known}
    return replace(first, **costs, runs=tuple(runs[key] for key in sorted(runs)))


def write_costs_of(results: BenchmarkResults, folder: Path) -> None:
    """Write a folder for ``benchmark --calibration-of``.

    Only medians are published: equal turns have that median.
    """
    folder.mkdir(parents=True, exist_ok=True)
    write_results(replace(results, runs=()), folder / RESULTS_FILE)
    trainers = {
        name: TrainerCosts(**NNUNET_ITERATIONS, turns=[Turn(**cost)] * ROUNDS)
        for name, cost in results.calibration.items()
    }
    costs = MeasuredCosts(device="cpu", machine=results.machine, trainers=trainers)
    write_costs(costs, folder / CALIBRATION_FILE)


def publish_results(results: BenchmarkResults, file: Path, *, predictions: bool) -> None:
    """Write the complete runs without the folders of this machine; with ``predictions``, copy the predicted
    segmentations into a folder next to the file."""
    runs = []
    for run in results.runs:
        if not run.complete:
            continue
        kept = None
        if predictions and run.predictions is not None and run.predictions.is_dir():
            kept = file.with_suffix("") / f"{run.name}_fold{run.fold}"
            if kept != run.predictions:
                _copy_segmentations(run.predictions, kept, run.evaluation["cases"], results.file_ending)
        runs.append(replace(run, predictions=kept, references=None, images=None))
    file.parent.mkdir(parents=True, exist_ok=True)
    write_results(replace(results, runs=tuple(runs)), file)


def with_images(results: BenchmarkResults, references: Path, images: Path) -> BenchmarkResults:
    """The same results, with this machine's folders of references and images."""
    return replace(results, runs=tuple(replace(run, references=references, images=images) for run in results.runs))


def load_parts(files: Sequence[Path]) -> list[BenchmarkResults]:
    """Load the files that exist."""
    return [load_results(file) for file in files if file.exists()]


def _copy_segmentations(source: Path, target: Path, cases: Sequence[str], file_ending: str) -> None:
    target.mkdir(parents=True, exist_ok=True)
    for case in cases:
        shutil.copyfile(source / f"{case}{file_ending}", target / f"{case}{file_ending}")
