"""nnU-Net's commands in this process, and what they leave behind.

A command in a process of its own spends seconds on its imports, and so does each of its workers. Here a command is
the function that its script calls, and its workers are threads; tests/end_to_end runs the commands as a user does.
"""

from __future__ import annotations

import contextlib
import io
import sys
from contextlib import AbstractContextManager
from importlib.metadata import entry_points
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
import torch

from ..nnunet_in_process import FOLDERS, threads_for_processes

DATASET = "Dataset900_Noise"
OURS = "nnUNetTrainerLightMUNet_1epochs_1iters"
STOCK = "nnUNetTrainer_1epochs_1iters"
FOLDS = range(5)
TRAINING_CASES = [f"tr_{n}" for n in FOLDS]
TEST_CASES = [f"ts_{n}" for n in range(3)]


class Workspace:
    """nnU-Net's three folders and one data set in them.

    Attributes:
        environment: What nnU-Net reads from the environment to find the folders.
        raw: The data set's part of the folder; ``preprocessed`` and ``results`` likewise.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self.environment = {name: root / name for name in FOLDERS}
        self.raw, self.preprocessed, self.results = (root / name / DATASET for name in FOLDERS)

    def in_this_process(self) -> AbstractContextManager:
        """nnU-Net's settings, which it reads whenever it needs them, and threads for its workers."""
        return threads_for_processes(self.environment)

    def run(self, command: str, *arguments: object) -> str:
        """Run an installed command; returns what it printed."""
        (script,) = entry_points(group="console_scripts", name=command)
        function, printed = script.load(), io.StringIO()
        with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stdout(printed):
            patch.setattr(sys, "argv", [command, *map(str, arguments)])
            function()
        return printed.getvalue()

    def train(self, configuration: str, fold: int | str, trainer: str, *arguments: str) -> None:
        torch.manual_seed(len(FOLDS) if fold == "all" else fold)
        self.run("nnUNetv2_train", 900, configuration, fold, "-tr", trainer, "-device", "cpu", *arguments)

    def predict(self, output: Path, *arguments: object, configuration: str = "3d_fullres") -> str:
        """The test images with our trainer, without mirroring and workers; of equal options the last one counts."""
        images = ("-i", self.raw / "imagesTs", "-o", output)
        model = ("-d", 900, "-c", configuration, "-tr", OURS, "-device", "cpu")
        return self.run("nnUNetv2_predict", *images, *model, "--disable_tta", "-npp", 0, "-nps", 0, *arguments)

    def model(self, configuration: str = "3d_fullres", trainer: str = OURS) -> Path:
        return self.results / f"{trainer}__nnUNetPlans__{configuration}"


def segmentations(folder: Path) -> dict[str, np.ndarray]:
    """By case."""
    files = sorted(folder.glob("*.nii.gz"))
    return {file.name.removesuffix(".nii.gz"): sitk.GetArrayFromImage(sitk.ReadImage(str(file))) for file in files}


def probabilities(folder: Path) -> dict[str, np.ndarray]:
    """By case, (classes, z, y, x)."""
    return {file.stem: np.load(file)["probabilities"] for file in sorted(folder.glob("*.npz"))}


def assert_equal(first: dict[str, np.ndarray], second: dict[str, np.ndarray]) -> None:
    assert first.keys() == second.keys()
    for case, values in first.items():
        np.testing.assert_allclose(values, second[case], atol=1e-5, err_msg=case)


def differ(first: dict[str, np.ndarray], second: dict[str, np.ndarray]) -> bool:
    """Whether every case does."""
    assert first.keys() == second.keys()
    return all(np.abs(values - second[case]).max() > 1e-3 for case, values in first.items())
