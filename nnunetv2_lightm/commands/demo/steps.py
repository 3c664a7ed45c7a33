"""The demo's settings and its steps as commands."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from ...nnunet import FOLDERS
from ...runs.nnunet_steps import Training, evaluate_step, predict_step, training_continuation, training_outputs
from ...runs.pipeline import Step

DATASET_ID = 801
DATASET = "Dataset801_LiTS"
PLANS = "nnUNetPlans_demo"
CONFIGURATION = "3d_fullres"
TRAINER = "nnUNetTrainerLightMUNet_15epochs_20iters"


@dataclass(frozen=True)
class DemoSettings:
    """What the demo generates and how it trains.

    Attributes:
        folder: Receives everything.
        trainer: nnU-Net trainer.
        device: "cpu", "cuda" or "mps".
        num_cases: Phantoms; the converter trains on 70 %, validates on 10 % and holds out 20 %.
        shape: Voxels of a phantom, (z, y, x).
        spacing_mm: Voxel size at which nnU-Net trains, (z, y, x).
        gpu_memory_gb: Memory that nnU-Net's planner plans for; decides the patch size.
        seed: Seed of the phantoms and of the split.
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
    def training(self) -> Training:
        return Training(DATASET, CONFIGURATION, PLANS, self.trainer, fold=0, device=self.device)

    @property
    def fold_folder(self) -> Path:
        return self.training.fold_folder(self.folder / "nnUNet_results")

    @property
    def predictions(self) -> Path:
        return self.folder / "predictions"

    @property
    def evaluation_json(self) -> Path:
        return self.folder / "evaluation.json"


def demo_environment(folder: Path) -> dict[str, str]:
    """The demo's own three folders, and settings for a small machine unless the user has set them."""
    workers = str(min(2, os.cpu_count() or 1))
    small = dict.fromkeys(("nnUNet_n_proc_DA", "nnUNet_def_n_proc", "nnUNet_npp", "nnUNet_nps"), workers)
    # Threads that spin while waiting take cores from the augmentation workers and everything else.
    small["OMP_WAIT_POLICY"] = "PASSIVE"
    folders = {name: str(folder / name) for name in FOLDERS}
    return {**folders, **{name: os.environ.get(name, value) for name, value in small.items()}}


def demo_steps(settings: DemoSettings) -> list[Step]:
    """The commands, in order."""
    phantoms = settings.folder / "phantoms"
    preprocessed = settings.folder / "nnUNet_preprocessed" / DATASET
    images, references = settings.raw_dataset / "imagesTs", settings.raw_dataset / "labelsTs"
    return [
        Step(
            "phantoms",
            (
                "python",
                "-m",
                "nnunetv2_lightm.dataset_conversion.phantoms",
                str(phantoms),
                "--num-cases",
                str(settings.num_cases),
                "--seed",
                str(settings.seed),
                "--shape",
                *map(str, settings.shape),
            ),
            outputs=(phantoms,),
            leftovers=(phantoms,),
            continuation=list,  # it resumes by itself
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
                "nnUNetv2_plan_and_preprocess",
                "-d",
                str(DATASET_ID),
                "-c",
                CONFIGURATION,
                "--verify_dataset_integrity",
                "--clean",
                "-npfp",
                "2",
                "-np",
                "2",
                "-overwrite_plans_name",
                PLANS,
                "-gpu_memory_target",
                f"{settings.gpu_memory_gb:g}",
                "-overwrite_target_spacing",
                *(f"{s:g}" for s in settings.spacing_mm),
            ),
            outputs=tuple(
                preprocessed / name
                for name in (
                    "dataset.json",
                    "dataset_fingerprint.json",
                    f"{PLANS}.json",
                    f"{PLANS}_{CONFIGURATION}",
                    "gt_segmentations",
                )
            ),
        ),
        Step(
            "train",
            settings.training.train_command,
            outputs=training_outputs(settings.fold_folder),
            leftovers=(settings.fold_folder,),
            continuation=lambda: training_continuation(settings.fold_folder) or [],
        ),
        predict_step(settings.training, settings.fold_folder, images, settings.predictions, name="predict"),
        evaluate_step(settings.predictions, references, settings.evaluation_json, name="evaluate"),
    ]
