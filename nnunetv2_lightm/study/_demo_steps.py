"""The demo's settings and its steps as commands."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from ..nnunet_files import CHECKPOINTS, is_whole_checkpoint
from ._pipeline import Step

DATASET_ID = 801
DATASET = "Dataset801_LiTS"
PLANS = "nnUNetPlans_demo"
CONFIGURATION = "3d_fullres"
TRAINER = "nnUNetTrainerLightMUNet_15epochs_20iters"


@dataclass(frozen=True)
class DemoSettings:
    """What the demo makes and how it trains.

    Attributes:
        folder: Receives everything.
        trainer: nnU-Net trainer.
        device: "cpu", "cuda" or "mps".
        num_cases: Phantoms; the converter trains on 70 %, validates on 10 % and holds out 20 %.
        shape: Voxels of a phantom, (z, y, x).
        spacing_mm: Voxel size at which nnU-Net trains, (z, y, x).
        gpu_memory_gb: Memory that nnU-Net's planner plans for; decides the patch size.
        seed: Of the phantoms and of the split.
    """

    folder: Path
    trainer: str = TRAINER
    device: str = "cpu"
    num_cases: int = 20
    shape: tuple[int, int, int] = (40, 96, 96)
    spacing_mm: tuple[float, float, float] = (12.0, 7.0, 7.0)
    gpu_memory_gb: float = 1.0
    seed: int = 1

    @property
    def raw_dataset(self) -> Path:
        return self.folder / "nnUNet_raw" / DATASET

    @property
    def fold_folder(self) -> Path:
        model = f"{self.trainer}__{PLANS}__{CONFIGURATION}"
        return self.folder / "nnUNet_results" / DATASET / model / "fold_0"

    @property
    def predictions(self) -> Path:
        return self.folder / "predictions"

    @property
    def evaluation_json(self) -> Path:
        return self.folder / "evaluation.json"


def demo_environment(folder: Path) -> dict[str, str]:
    """The demo's own three folders, and what suits a small machine unless the user set it."""
    workers = str(min(2, os.cpu_count() or 1))
    small = dict.fromkeys(("nnUNet_n_proc_DA", "nnUNet_def_n_proc", "nnUNet_npp", "nnUNet_nps"), workers)
    # Threads that spin while they wait take the cores from the augmentation workers and from everything else.
    small["OMP_WAIT_POLICY"] = "PASSIVE"
    folders = {name: str(folder / name) for name in ("nnUNet_raw", "nnUNet_preprocessed", "nnUNet_results")}
    return {**folders, **{name: os.environ.get(name, value) for name, value in small.items()}}


def demo_steps(settings: DemoSettings) -> list[Step]:
    """The commands, in order."""
    phantoms = settings.folder / "phantoms"
    preprocessed = settings.folder / "nnUNet_preprocessed" / DATASET
    train = ("nnUNetv2_train", str(DATASET_ID), CONFIGURATION, "0", "-tr", settings.trainer, "-p", PLANS)
    model = ("-d", str(DATASET_ID), "-c", CONFIGURATION, "-f", "0", "-tr", settings.trainer, "-p", PLANS)
    return [
        Step(
            "phantoms",
            (
                *("python", "-m", "nnunetv2_lightm.dataset_conversion.phantoms", str(phantoms)),
                *("--num-cases", str(settings.num_cases), "--seed", str(settings.seed)),
                *("--shape", *map(str, settings.shape)),
            ),
            outputs=(phantoms,),
            leftovers=(phantoms,),
        ),
        Step(
            "convert",
            ("nnUNetv2_lightm", "convert", "lits", str(phantoms), "--seed", str(settings.seed)),
            outputs=(settings.raw_dataset / "dataset.json",),
            leftovers=(settings.raw_dataset, preprocessed),
        ),
        Step(
            "plan_and_preprocess",
            (
                *("nnUNetv2_plan_and_preprocess", "-d", str(DATASET_ID), "-c", CONFIGURATION),
                *("--verify_dataset_integrity", "--clean", "-npfp", "2", "-np", "2"),
                *("-overwrite_plans_name", PLANS, "-gpu_memory_target", f"{settings.gpu_memory_gb:g}"),
                *("-overwrite_target_spacing", *(f"{s:g}" for s in settings.spacing_mm)),
            ),
            outputs=(preprocessed / f"{PLANS}.json", preprocessed / "gt_segmentations"),
        ),
        Step(
            "train",
            (*train, "-device", settings.device),
            outputs=(settings.fold_folder / "checkpoint_final.pth", settings.fold_folder / "validation/summary.json"),
            leftovers=(settings.fold_folder,),
            continuation=lambda: training_continuation(settings.fold_folder),
        ),
        Step(
            "predict",
            (
                *("nnUNetv2_predict", "-i", str(settings.raw_dataset / "imagesTs"), "-o", str(settings.predictions)),
                *(*model, "-device", settings.device),
            ),
            outputs=(settings.predictions / "dataset.json",),
            leftovers=(settings.predictions,),
        ),
        Step(
            "evaluate",
            (
                *("nnUNetv2_lightm", "evaluate", str(settings.predictions), str(settings.raw_dataset / "labelsTs")),
                *("--json", str(settings.evaluation_json)),
            ),
            outputs=(settings.evaluation_json,),
            leftovers=(settings.evaluation_json,),
        ),
    ]


def training_continuation(fold_folder: Path) -> list[str] | None:
    """Arguments with which `nnUNetv2_train` goes on; removes torn checkpoints, which stock trainers can leave.

    Returns: `--val` if only the final validation is left, `--c` if there is a checkpoint, None if there is none.
    """
    checkpoints = [fold_folder / name for name in CHECKPOINTS if (fold_folder / name).exists()]
    whole = [path.name for path in checkpoints if is_whole_checkpoint(path)]
    for path in checkpoints:
        if path.name not in whole:
            path.unlink()
    if "checkpoint_final.pth" in whole:
        return ["--val"]
    return ["--c"] if whole else None
