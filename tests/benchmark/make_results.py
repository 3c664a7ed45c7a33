"""Results of trainings that never were, for tests: scores, curves and, if asked for, the images behind them."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
from PIL import Image

from nnunetv2_lightm.benchmark.results import ITERATIONS, BenchmarkResults, Run
from nnunetv2_lightm.evaluation.json_files import to_json
from nnunetv2_lightm.evaluation.scores import Evaluation, score_case
from nnunetv2_lightm.runs.training_log import EpochRecord

TRAINERS = ("nnUNetTrainer", "nnUNetTrainerLightMUNet", "nnUNetTrainerSegResNet")


def make_evaluation(quality: float, *, cases=6, classes=("left_lung", "right_lung"), seed=0) -> dict:
    """Scores around `quality`; every method finds the same cases hard."""
    hardness = np.random.default_rng(0).uniform(-0.05, 0.05, (cases, len(classes)))
    noise = np.random.default_rng(seed + round(1e4 * quality)).normal(0, 0.004, hardness.shape)
    dsc = np.clip(quality + hardness + noise, 0, 1)
    names = tuple(f"case_{i}" for i in range(cases))
    return json.loads(to_json(Evaluation(names, tuple(classes), {"DSC": dsc, "IoU": dsc / (2 - dsc)})))


def make_epochs(quality: float, *, epochs=8, classes=2, rate=0.5, seconds=10.0) -> tuple[EpochRecord, ...]:
    """A course that approaches `quality`."""
    dice = [quality * (1 - np.exp(-rate * (epoch + 1))) for epoch in range(epochs)]
    return tuple(
        EpochRecord(epoch, 0.9 - 1.7 * d, 1.0 - 1.7 * d, tuple(min(d + 0.01 * i, 1.0) for i in range(classes)), seconds)
        for epoch, d in enumerate(map(float, dice))
    )


def make_run(trainer: str, quality: float, *, seed=0, fold=0, complete=True, rate=0.5, **evaluation) -> Run:
    classes = evaluation.get("classes", ("left_lung", "right_lung"))
    return Run(
        trainer=trainer,
        name=f"{trainer}_8epochs_50iters" + (f"_seed{seed}" if seed else ""),
        fold=fold,
        seed=seed,
        complete=complete,
        iterations_per_epoch=50,
        validation_iterations_per_epoch=10,
        epochs=make_epochs(quality + 0.003 * seed, rate=rate, classes=len(classes)),
        evaluation=make_evaluation(quality + 0.003 * seed, seed=seed, **evaluation) if complete else None,
        predictions=None,
        references=None,
        images=None,
    )


def make_results(trainers=TRAINERS, *, seeds=(0,), classes=("left_lung", "right_lung"), **changes) -> BenchmarkResults:
    """Trainers of which each is a little worse and slower than the one before."""
    runs = [
        make_run(trainer, 0.93 - 0.01 * i, seed=seed, rate=0.2 + 0.5 / (1 + i), classes=classes)
        for i, trainer in enumerate(trainers)
        for seed in seeds
    ]
    results = BenchmarkResults(
        title="Chest X-rays, equal iterations",
        dataset="Dataset802_MontgomeryShenzhen",
        configuration="2d",
        plans="nnUNetPlans",
        patch_size=(256, 256),
        batch_size=4,
        spacing_mm=(1.0, 1.0),
        labels={"background": 0, **{name: i + 1 for i, name in enumerate(classes)}},
        file_ending=".png",
        reader=None,
        equal=ITERATIONS,
        budget="8epochs_50iters",
        scored_on="test",
        commands=(("nnUNetv2_lightm", "benchmark", "-d", "802", "-c", "2d", "-tr", *trainers, "-o", "FOLDER"),),
        machine={"processor": "a processor, 2 cores", "torch": "2.14.1", "nnunetv2": "2.8.1"},
        calibration={t: {"train_seconds": 0.5 + 0.3 * i, "validation_seconds": 0.2} for i, t in enumerate(trainers)},
        complexity={
            t: {
                "parameters": 30_000_000 // (1 + 3 * i),
                "macs": 40_000_000_000 // (1 + i),
                "forward_seconds": 0.1 + 0.05 * i,
                "step_seconds": 0.4,
                "forward_mib": 300.0,
                "step_mib": 900.0 if i else None,
            }
            for i, t in enumerate(trainers)
        },
        runs=tuple(runs),
    )
    return replace(results, **changes)


def with_images(results: BenchmarkResults, folder: Path, size=48) -> BenchmarkResults:
    """The same with small images, their ground truth, and predictions that differ from it, and the scores of these."""
    cases = list(results.runs[0].evaluation["cases"])
    images, references = folder / "imagesTs", folder / "labelsTs"
    images.mkdir(parents=True)
    references.mkdir()
    y, x = np.mgrid[:size, :size] / size
    truths = {}
    for i, case in enumerate(cases):
        left = (x - 0.28) ** 2 / 0.03 + (y - 0.5) ** 2 / 0.1 < 1
        right = (x - 0.72) ** 2 / 0.03 + (y - 0.45) ** 2 / (0.08 + 0.01 * i) < 1
        truths[case] = (left + 2 * right).astype(np.uint8)
        noise = np.random.default_rng(i).normal(0, 8, (size, size))
        intensities = np.clip(180 - 110 * (left | right) + 20 * y + noise, 0, 255).astype(np.uint8)
        Image.fromarray(intensities).save(images / f"{case}_0000.png")
        Image.fromarray(truths[case]).save(references / f"{case}.png")
    runs = [
        _with_predictions(run, i, truths, images, references, folder / f"predictions_{i}")
        for i, run in enumerate(results.runs)
    ]
    return replace(results, runs=tuple(runs))


def _with_predictions(run: Run, number: int, truths: dict, images: Path, references: Path, predictions: Path) -> Run:
    predictions.mkdir()
    scores = []
    for i, (case, truth) in enumerate(truths.items()):
        prediction = np.roll(truth, 1 + (number + i) % 5, axis=0)
        prediction[-8:, : 4 * (number % 3)] = 1  # surplus, far from both
        prediction[20:24][truth[20:24] == 2] = 1 + number % 2  # the wrong side
        Image.fromarray(prediction).save(predictions / f"{case}.png")
        scores.append(score_case(prediction, truth, {"left_lung": (1,), "right_lung": (2,)}))
    table = {metric: np.stack(scores)[:, i] for i, metric in enumerate(("DSC", "IoU"))}
    evaluation = json.loads(to_json(Evaluation(tuple(truths), ("left_lung", "right_lung"), table)))
    folders = {"images": images, "references": references, "predictions": predictions}
    return replace(run, evaluation=evaluation, **folders)
