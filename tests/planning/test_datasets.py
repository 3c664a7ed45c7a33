"""Faults of a data set are reported before nnU-Net's planner fails on them, and the plan is printed."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
from nnunetv2.experiment_planning.dataset_fingerprint.fingerprint_extractor import DatasetFingerprintExtractor
from nnunetv2.training.dataloading.nnunet_dataset import nnUNetDatasetBlosc2

from nnunetv2_lightm.planning.datasets import plan_dataset
from nnunetv2_lightm.planning.memory_model import CPU_COMPILED, GPU
from nnunetv2_lightm.planning.planner import PlanningError

pytestmark = pytest.mark.slow  # nnU-Net's planner runs

DATA = ((1.0, 1.0, 1.0), (40, 48, 48))


@pytest.mark.parametrize("given", ["5", "005", "Dataset005_Made"])
def test_id_or_name(make_dataset, folders, given):
    make_dataset(*DATA)
    make_dataset(*DATA, name="Dataset051_Other")
    assert plan_dataset(given).dataset_name == "Dataset005_Made"


@pytest.mark.parametrize("given", ["6", "Dataset005", "Made", "-5", "../Dataset005_Made", ""])
def test_unknown_data_set(make_dataset, given):
    make_dataset(*DATA)
    with pytest.raises(PlanningError, match=r"no data set .* there are: Dataset005_Made"):
        plan_dataset(given)


def test_no_data_set_at_all(folders):
    with pytest.raises(PlanningError, match=r"nnUNet_raw; there is none at all"):
        plan_dataset("5")
    (folders / "nnUNet_raw").rmdir()
    with pytest.raises(PlanningError, match="there is none at all"):
        plan_dataset("5")


def test_id_of_two_data_sets(make_dataset):
    make_dataset(*DATA)
    make_dataset(*DATA, name="Dataset005_Twin")
    with pytest.raises(PlanningError, match="2 data sets with the id 5: Dataset005_Made, Dataset005_Twin; rename one"):
        plan_dataset("5")
    assert plan_dataset("Dataset005_Twin").dataset_name == "Dataset005_Twin"


@pytest.mark.parametrize("variable", ["nnUNet_raw", "nnUNet_preprocessed"])
def test_folders_have_to_be_set(make_dataset, monkeypatch, variable):
    make_dataset(*DATA)
    monkeypatch.delenv(variable)
    with pytest.raises(PlanningError, match=f"{variable} is not set: export {variable}=FOLDER"):
        plan_dataset("5")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "cannot be read"),
        ("{", "cannot be read"),
        ("[]", "it is a list; expected a mapping"),
        ('{"labels": {}, "modality": {}, "file_ending": ".png"}', "it lacks numTraining"),
        (
            '{"labels": 1, "channel_names": {"0": "CT"}, "file_ending": 2, "numTraining": 3}',
            "labels is 1; .*ending is 2",
        ),
    ],
)
def test_broken_dataset_json(make_dataset, folders, content, message):
    file = folders / "nnUNet_raw" / make_dataset(*DATA) / "dataset.json"
    file.unlink()
    if content is not None:
        file.write_text(content)
    with pytest.raises(PlanningError, match=f"dataset.json: {message}"):
        plan_dataset("5")


def test_missing_images(make_dataset, folders):
    raw = folders / "nnUNet_raw" / make_dataset(*DATA)
    (raw / "labelsTr" / "case1.nii.gz").unlink()
    with pytest.raises(PlanningError, match=r"1 files are missing, the first is .*labelsTr/case1.nii.gz"):
        plan_dataset("5")
    for file in (raw / "imagesTr").iterdir():
        file.unlink()
    with pytest.raises(PlanningError, match="no training images"):
        plan_dataset("5")


def test_fingerprint_that_cannot_be_extracted(make_dataset, folders, monkeypatch):
    (folders / "nnUNet_preprocessed" / make_dataset(*DATA) / "dataset_fingerprint.json").unlink()

    def worker_died(*_, **__):
        raise RuntimeError("Exception thrown in SimpleITK ImageFileReader_Execute")

    monkeypatch.setattr(DatasetFingerprintExtractor, "run", worker_died)
    message = r"fingerprint cannot be extracted: Exception thrown .*; `nnUNetv2_extract_fingerprint -d 5 --verify"
    with pytest.raises(PlanningError, match=message):
        plan_dataset("5")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "cannot be read"),
        ('{"spacings": [[1.0, 1.0', "cannot be read"),
        ("[]", "it is a list"),
        ("{}", "it lacks spacings, shapes_after_crop"),
    ],
    ids=["empty", "torn", "list", "lacks-all"],
)
def test_a_torn_fingerprint_is_named(make_dataset, folders, content, message):
    file = folders / "nnUNet_preprocessed" / make_dataset(*DATA) / "dataset_fingerprint.json"
    file.write_text(content)
    with pytest.raises(PlanningError, match=rf"dataset_fingerprint\.json: {message}.*Remove this file"):
        plan_dataset("5")
    assert [path.name for path in file.parent.iterdir()] == [file.name]


def test_what_was_planned_is_told(make_dataset, folders):
    name = make_dataset(*DATA)
    preprocessed = folders / "nnUNet_preprocessed" / name
    preprocess(preprocessed, "3d_fullres", DATA[1])
    plans = plan_dataset("5", batch_size=3, gpu_memory_gb=2, plans_name="Mine")
    assert (plans.dataset_name, plans.file) == (name, preprocessed / "Mine.json")
    content = json.loads(plans.file.read_text())["configurations"]
    assert [planned.name for planned in plans.configurations] == ["2d", "3d_fullres"]
    for planned in plans.configurations:
        configuration = content[planned.name]
        assert planned.patch_size == tuple(configuration["patch_size"])
        assert planned.batch_size == configuration["batch_size"] == 3
        assert planned.preprocessed == (planned.name == "3d_fullres")
        step = (planned.patch_size, configuration["architecture"]["arch_kwargs"]["strides"], 3, 3)
        assert math.isclose(planned.gpu_gib, GPU.gib(*step)) and math.isclose(planned.cpu_gib, CPU_COMPILED.gib(*step))


def preprocess(folder, configuration, shape, cases=("case0", "case1")):
    """What nnU-Net's preprocessor leaves of cases of DATA that it brings to this shape."""
    data, truth = folder / f"nnUNetPlans_{configuration}", folder / "gt_segmentations"
    for made in (data, truth):
        made.mkdir(exist_ok=True)
    image, whole = np.zeros((1, *shape), np.float32), {"chunks": (1, *shape), "blocks": (1, *shape)}
    properties = {"spacing": list(DATA[0]), "shape_after_cropping_and_before_resampling": DATA[1]}
    for case in cases:
        for earlier in data.glob(f"{case}*"):
            earlier.unlink()  # blosc2 replaces no file
        nnUNetDatasetBlosc2.save_case(image, image.astype(np.int8), properties, str(data / case), **whole)
        (truth / f"{case}.nii.gz").touch()


def without_a_case(folder):
    (folder / "nnUNetPlans_3d_fullres" / "case1.pkl").unlink()


def of_other_plans(folder):
    preprocess(folder, "3d_fullres", (20, 24, 24), cases=("case1",))


def damaged(folder):
    (folder / "nnUNetPlans_3d_fullres" / "case0.pkl").write_bytes(b"")


@pytest.mark.parametrize("change", [without_a_case, of_other_plans, damaged])
def test_data_that_are_incomplete_or_of_other_plans_are_to_be_preprocessed(make_dataset, folders, change):
    folder = folders / "nnUNet_preprocessed" / make_dataset(*DATA)
    preprocess(folder, "3d_fullres", DATA[1])
    change(folder)
    assert not any(planned.preprocessed for planned in plan_dataset("5").configurations)


def test_slices_keep_their_number_in_2d(make_dataset, folders):
    preprocess(folders / "nnUNet_preprocessed" / make_dataset(*DATA), "2d", DATA[1])
    assert [planned.name for planned in plan_dataset("5").configurations if planned.preprocessed] == ["2d"]
