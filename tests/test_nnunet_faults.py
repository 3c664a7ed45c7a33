"""nnunet_faults.py: what is wrong with plans and dataset.json, and which files of a case are missing."""

from __future__ import annotations

import copy
import math
import re

import pytest

from nnunetv2_lightm.nnunet_faults import (
    faults_of_dataset_json,
    faults_of_fingerprint,
    faults_of_plans,
    missing_files,
    plan_again,
    preprocessed_cases,
)

PLANS = {
    "dataset_name": "Dataset801_LiTS",
    "plans_name": "nnUNetPlans",
    "foreground_intensity_properties_per_channel": {"0": {"mean": 1.0, "std": 2.0}},
    "configurations": {
        "3d_fullres": {
            "data_identifier": "nnUNetPlans_3d_fullres",
            "patch_size": [8, 16, 16],
            "batch_size": 2,
            "batch_dice": True,
            "architecture": {"arch_kwargs": {"strides": [[1, 1, 1], [2, 2, 2]]}},
        },
        "3d_large": {"inherits_from": "3d_fullres", "batch_size": 4},
    },
}
OLD_FORM = {
    "UNet_class_name": "PlainConvUNet",
    "UNet_base_num_features": 32,
    "unet_max_num_features": 320,
    "num_pool_per_axis": [1, 1, 1],
    "pool_op_kernel_sizes": [[1, 1, 1], [2, 2, 2]],
    "conv_kernel_sizes": [[3, 3, 3], [3, 3, 3]],
    "n_conv_per_stage_encoder": [2, 2],
    "n_conv_per_stage_decoder": [2],
}


def without(*path: str) -> dict:
    plans = copy.deepcopy(PLANS)
    parent = plans
    for key in path[:-1]:
        parent = parent[key]
    del parent[path[-1]]
    return plans


def with_configuration(**values: object) -> dict:
    plans = copy.deepcopy(PLANS)
    plans["configurations"]["3d_fullres"].update(values)
    return plans


def in_old_form(*left_out: str) -> dict:
    plans = without("configurations", "3d_fullres", "architecture")
    entries = {key: value for key, value in OLD_FORM.items() if key not in left_out}
    plans["configurations"]["3d_fullres"].update(entries)
    return plans


@pytest.mark.parametrize("configuration", PLANS["configurations"])
@pytest.mark.parametrize("plans", [PLANS, in_old_form()], ids=["today", "old form"])
def test_good_plans(plans, configuration):
    assert faults_of_plans(plans, configuration) == []


CONFIGURATION = ("configurations", "3d_fullres")
STRIDES = (*CONFIGURATION, "architecture", "arch_kwargs", "strides")
INTENSITIES = "foreground_intensity_properties_per_channel"


@pytest.mark.parametrize(
    ("plans", "said"),
    [
        ({"plans_per_stage": {}, "num_stages": 1}, "plans of nnU-Net v1"),
        (without("plans_name"), "lack plans_name"),
        (without("configurations"), "lack configurations"),
        (without("configurations", "3d_fullres"), "no configuration '3d_fullres', only 3d_large"),
        (without(*CONFIGURATION, "patch_size"), "lacks patch_size"),
        (without(*CONFIGURATION, "architecture"), "lacks architecture"),
        (in_old_form("conv_kernel_sizes"), "lacks architecture (in the old form: conv_kernel_sizes)"),
        (without(*STRIDES), "lacks architecture.arch_kwargs.strides"),
        (with_configuration(patch_size=[0, 16, 16]), "patch_size is [0, 16, 16]"),
        (with_configuration(patch_size=[7.5, 16, 16]), "patch_size is [7.5, 16, 16]"),
        (with_configuration(patch_size=[16]), "patch_size is [16]"),
        (with_configuration(batch_size=0), "batch_size is 0"),
        (PLANS | {INTENSITIES: {"1": {"mean": float("nan")}}}, "intensities of channel 1 are NaN"),
        (PLANS | {INTENSITIES: {"0": {"max": float("inf")}}}, "intensities of channel 0 are NaN or infinite"),
    ],
)
def test_faults_of_plans(plans, said):
    (fault,) = faults_of_plans(plans, "3d_fullres")
    assert said in fault


@pytest.mark.parametrize("spacing", [[math.nan, 1, 1], [1, 0, 1], [1, -1, 1], [1, math.inf, 1], "1"])
def test_a_spacing_that_is_no_length(spacing):
    plans = {
        "dataset_name": "Dataset001_A",
        "plans_name": "nnUNetPlans",
        "configurations": {"2d": {"spacing": spacing}},
    }
    assert any(fault.startswith("spacing is") for fault in faults_of_plans(plans, "2d"))


def test_what_is_inherited_counts():
    (fault,) = faults_of_plans(without(*CONFIGURATION, "patch_size"), "3d_large")
    assert "lacks patch_size" in fault


@pytest.mark.parametrize("missing", ["labels", "file_ending", "channel_names"])
def test_faults_of_dataset_json(missing):
    whole = {"labels": {}, "file_ending": ".nii.gz", "channel_names": {"0": "CT"}}
    assert faults_of_dataset_json(whole) == []
    assert faults_of_dataset_json({"labels": {}, "file_ending": ".nii.gz", "modality": {"0": "CT"}}) == [], (
        "nnU-Net v1's name"
    )
    assert faults_of_dataset_json({key: whole[key] for key in whole if key != missing}) == [f"it lacks {missing}"]


LAYOUTS = {
    "b2nd": [".b2nd", "_seg.b2nd", ".pkl"],
    "npz": [".npz", ".pkl"],
    "npy": [".npy", "_seg.npy", ".pkl"],
}


@pytest.mark.parametrize(("layout", "lost"), [(layout, ending) for layout in LAYOUTS for ending in LAYOUTS[layout]])
def test_missing_files(tmp_path, layout, lost):
    folder, labels, stage = tmp_path / "data", tmp_path / "gt", tmp_path / "stage"
    folder.mkdir()
    labels.mkdir()
    for case in ("a", "b"):
        for ending in LAYOUTS[layout]:
            (folder / (case + ending)).touch()
        (labels / f"{case}.png").touch()
    arguments = {"ground_truth": (labels, ".png")}
    assert missing_files(folder, ["a", "b"], **arguments) == []
    (folder / f"b{lost}").unlink()
    expected = folder / ("b.npz" if lost.endswith(".npy") else f"b{lost}")
    assert missing_files(folder, ["a", "b"], **arguments) == [expected]
    assert missing_files(folder, ["a"], **arguments) == []
    (labels / "a.png").unlink()
    ending = ".b2nd" if layout == "b2nd" else ".npz"
    from_stage = missing_files(folder, ["a"], **arguments, previous_stage=stage)
    assert from_stage == [labels / "a.png", stage / f"a{ending}"]


def test_preprocessed_cases(tmp_path):
    for name in ("b.b2nd", "b_seg.b2nd", "b.pkl", "a.b2nd"):
        (tmp_path / name).touch()
    assert preprocessed_cases(tmp_path) == ["a", "b"]
    (tmp_path / "old").mkdir()
    for name in ("c.npz", "c.npy", "c_seg.npy", "c.pkl"):
        (tmp_path / "old" / name).touch()
    assert preprocessed_cases(tmp_path / "old") == ["c"]


@pytest.mark.parametrize(("dataset", "number"), [("Dataset004_Hippocampus", "4"), ("Dataset801_LiTS", "801")])
def test_plan_again(dataset, number):
    assert plan_again(dataset) == f"nnUNetv2_plan_and_preprocess -d {number} --verify_dataset_integrity"


@pytest.mark.parametrize("reader", [None, "None", "SimpleITKIO"])
def test_readers(reader):
    content = {"labels": {"background": 0}, "file_ending": ".png", "channel_names": {"0": "CT"}}
    assert faults_of_dataset_json({**content, "overwrite_image_reader_writer": reader}) == []
    (fault,) = faults_of_dataset_json({**content, "overwrite_image_reader_writer": 5})
    assert fault.startswith("overwrite_image_reader_writer is 5; expected the name")


@pytest.mark.parametrize(
    "entry", [None, [], "a.png", {}, {"images": []}, {"images": "a.png", "label": "b.png"}, {"images": ["a.png"]}]
)
def test_lists_of_cases(entry):
    content = {"labels": {"background": 0}, "file_ending": ".png", "channel_names": {"0": "CT"}}
    listed = {"a": {"images": ["a.png"], "label": "b.png"}}
    assert faults_of_dataset_json({**content, "dataset": listed}) == []
    (fault,) = faults_of_dataset_json({**content, "dataset": {**listed, "b": entry}})
    assert fault.startswith("dataset: 'b' is ") and '{"images": ["FILE", ...], "label": "FILE"}' in fault
    (fault,) = faults_of_dataset_json({**content, "dataset": [entry]})
    assert fault.startswith("dataset is [")


FINGERPRINT = {
    "spacings": [[1.0, 1.0, 1.0], [3.0, 0.7, 0.7]],
    "shapes_after_crop": [[20, 40, 40], [1, 512, 512]],
    "median_relative_size_after_cropping": 1.0,
    "foreground_intensity_properties_per_channel": {"0": {"mean": 1.0}},
}


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"spacings": []}, r"spacings is \[\]; expected three positive numbers for each case"),
        ({"spacings": [[1, 1], [1, 1]]}, "spacings is"),
        ({"spacings": [[0, 1, 1], [1, 1, 1]]}, "spacings is"),
        ({"spacings": "x"}, "spacings is 'x'"),
        ({"shapes_after_crop": [[20, 40, 40]]}, "of different numbers of cases"),
        ({"median_relative_size_after_cropping": None}, "is None; expected a positive number"),
        ({"foreground_intensity_properties_per_channel": []}, "expected a mapping of channels"),
    ],
)
def test_faults_of_a_fingerprint(changes, words):
    assert faults_of_fingerprint(FINGERPRINT) == []
    (fault,) = faults_of_fingerprint(FINGERPRINT | changes)
    assert re.search(words, fault)


def test_a_fingerprint_of_another_kind():
    assert faults_of_fingerprint([]) == ["it is a list; expected a mapping"]
    assert faults_of_fingerprint({"spacings": []})[0].startswith("it lacks shapes_after_crop, foreground_intensity")
