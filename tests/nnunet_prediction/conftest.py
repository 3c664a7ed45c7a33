"""Small models of five folds, trained once for all tests of what comes after the training."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
from nnunetv2.experiment_planning.dataset_fingerprint.fingerprint_extractor import DatasetFingerprintExtractor
from nnunetv2.experiment_planning.experiment_planners.default_experiment_planner import ExperimentPlanner
from scipy.ndimage import gaussian_filter

from .workspace import FOLDS, OURS, STOCK, TEST_CASES, TRAINING_CASES, Workspace

PATCH_SIZES = {"2d": [24, 24], "3d_fullres": [16, 16, 16], "3d_lowres": [8, 8, 8]}


@pytest.fixture(scope="session")
def planned(tmp_path_factory) -> Iterator[Workspace]:
    """A planned and preprocessed data set; the plans are nnU-Net's with smaller patches and networks, and a cascade."""
    workspace = Workspace(tmp_path_factory.mktemp("nnunet"))
    _write_raw_data_set(workspace)
    with workspace.in_this_process(), pytest.MonkeyPatch.context() as patch:
        # What takes seconds: measuring the memory of the planned network, and drawing millions of voxels from a case.
        patch.setattr(ExperimentPlanner, "static_estimate_VRAM_usage", lambda *_: 1.0)
        collect = DatasetFingerprintExtractor.collect_foreground_intensities
        few = staticmethod(lambda *arguments, num_samples: collect(*arguments, num_samples=1000))
        patch.setattr(DatasetFingerprintExtractor, "collect_foreground_intensities", few)
        workspace.run("nnUNetv2_extract_fingerprint", "-d", 900, "-np", 2)
        workspace.run("nnUNetv2_plan_experiment", "-d", 900)
        _edit_plans(workspace.preprocessed / "nnUNetPlans.json")
        workspace.run("nnUNetv2_preprocess", "-d", 900, "-c", *PATCH_SIZES, "-np", 2)
    yield workspace
    shutil.rmtree(workspace.root)


@pytest.fixture(scope="session")
def trained(planned) -> Workspace:
    """Five folds of our trainer and of the stock one, in 2D and 3D, with probabilities; a cascade of ours."""
    with planned.in_this_process():
        for trainer in (OURS, STOCK):
            for configuration in ("2d", "3d_fullres"):
                for fold in FOLDS:
                    planned.train(configuration, fold, trainer, "--npz")
        for configuration in ("3d_lowres", "3d_cascade_fullres"):
            planned.train(configuration, "all", OURS)
    # A checkpoint of ours takes 30 MB, and one fold's is enough.
    for file in planned.results.glob("*/fold_[!0]*/checkpoint_best.pth"):
        file.unlink()
    return planned


@pytest.fixture(scope="session")
def predicted(trained) -> Path:
    """Segmentations and probabilities of the test images by all folds of our trainer in 3D."""
    folder = trained.root / "predicted"
    with trained.in_this_process():
        trained.predict(folder, "--save_probabilities")
    return folder


@pytest.fixture
def workspace(trained) -> Iterator[Workspace]:
    """The trained models, ready for commands."""
    with trained.in_this_process():
        yield trained


def _write_raw_data_set(workspace: Workspace) -> None:
    """Smooth noise in three classes, low, middle and high, a third each: one training step predicts all of them."""
    generator = np.random.default_rng(0)
    for folder in ("imagesTr", "labelsTr", "imagesTs"):
        (workspace.raw / folder).mkdir(parents=True)
    for case in (*TRAINING_CASES, *TEST_CASES):
        # The test images are longer: several tiles along that axis.
        shape = (16, 20, 20) if case in TRAINING_CASES else (16, 32, 20)
        smooth = gaussian_filter(generator.normal(size=shape), sigma=2)
        image = 100 * smooth / smooth.std() + generator.normal(size=shape, scale=10)
        label = np.digitize(smooth, np.quantile(smooth, (1 / 3, 2 / 3)))
        arrays = {f"imagesT{case[1]}/{case}_0000": image.astype(np.float32)}
        if case in TRAINING_CASES:
            arrays[f"labelsTr/{case}"] = label.astype(np.uint8)
        for name, array in arrays.items():
            sitk.WriteImage(sitk.GetImageFromArray(array), str(workspace.raw / f"{name}.nii.gz"))
    labels = {"background": 0, "middle": 1, "high": 2}
    content = {"channel_names": {"0": "noise"}, "labels": labels, "numTraining": 5, "file_ending": ".nii.gz"}
    (workspace.raw / "dataset.json").write_text(json.dumps(content))


def _edit_plans(file: Path) -> None:
    plans = json.loads(file.read_text())
    configurations = plans["configurations"]
    lowres = json.loads(json.dumps(configurations["3d_fullres"]))
    lowres |= {"data_identifier": "nnUNetPlans_3d_lowres", "spacing": [1.6 * mm for mm in lowres["spacing"]]}
    configurations["3d_lowres"] = lowres | {"next_stage": "3d_cascade_fullres"}
    configurations["3d_cascade_fullres"] = {"inherits_from": "3d_fullres", "previous_stage": "3d_lowres"}
    for name, patch_size in PATCH_SIZES.items():
        configurations[name] |= {"patch_size": patch_size, "batch_size": 2}
        kwargs = configurations[name]["architecture"]["arch_kwargs"]
        kwargs["features_per_stage"] = [8] * kwargs["n_stages"]
    file.write_text(json.dumps(plans))
