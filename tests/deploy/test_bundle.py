"""``nnUNetv2_lightm export``: what the file says and holds, and what is refused."""

from __future__ import annotations

import hashlib
import json
import re

import pytest
import torch
from nnunetv2.training.dataloading.nnunet_dataset import nnUNetDatasetBlosc2
from safetensors import safe_open
from safetensors.torch import load_file

from nnunetv2_lightm import cli
from nnunetv2_lightm.deploy import check, stored
from nnunetv2_lightm.deploy.bundle import write_bundle
from nnunetv2_lightm.deploy.errors import ExportError
from nnunetv2_lightm.deploy.model_folder import read_model_folder

from ..model_folders import CT, REGIONS, make_float16_too_coarse, write_model_folder
from ..prediction import write_images

FLAT = {"configuration": "2d", "spacing": (1.0, 1.0), "patch_size": (16, 16)}


@pytest.fixture
def images(tmp_path):
    write_images(tmp_path / "images", 1, shape=(20, 24))
    return tmp_path / "images"


def export(*arguments) -> int:
    return cli.main(["export", *map(str, arguments)])


def pipeline_of(path) -> dict:
    with safe_open(path, "pt") as file:
        metadata = file.metadata()
    assert metadata["format"] == "lightm" and metadata["version"] == "2"
    return json.loads(metadata["pipeline"])


def test_file_says_what_nnunet_does(tmp_path):
    options = {"patch_size": (8, 16, 16), "spacing": (3.0, 1.0, 0.5), "transpose": (1, 0, 2), "folds": (0, 2)}
    schemes = ("CTNormalization", "ZScoreNormalization")
    regions = {"labels": REGIONS, "regions_class_order": (1, 2, 3)}
    folder = write_model_folder(tmp_path / "model", schemes=schemes, mirroring_axes=(0, 2), **options, **regions)
    write_images(tmp_path / "images", 2)
    assert export(folder, tmp_path / "a.lightm", "--check-images", tmp_path / "images", "--float32") == 0
    found = pipeline_of(tmp_path / "a.lightm")
    assert found["network"] == {
        **{"type": "LightMUNet", "spatial_dims": 3, "input_channels": 2, "num_classes": 3, "features": 32},
        **{"rvm_layers": [1, 2, 2], "bottleneck_rvm_layers": 4, "expand": 2, "d_state": 16, "pooling": [[2, 2, 2]] * 3},
    }
    ct, z_score = found["input"]["channels"]
    statistics = {key: CT[key] for key in ("mean", "std", "percentile_00_5", "percentile_99_5")}
    assert ct == {"name": "channel 0", "scheme": schemes[0], "use_mask": False, "statistics": statistics}
    assert z_score["scheme"] == schemes[1] and z_score["statistics"] is None
    assert found["input"]["reader"] == "SimpleITKIO" and found["input"]["file_ending"] == ".nii.gz"
    resampling = {"order_z": 0, "force_separate_z": None, "anisotropy_threshold": 3.0}
    assert found["preprocessing"] == {
        **{"transpose_forward": [1, 0, 2], "spacing_mm": [3.0, 1.0, 0.5]},
        **{"resampling_data": {"order": 3, **resampling}, "resampling_logits": {"order": 1, **resampling}},
    }
    assert found["inference"] == {
        **{"patch_size": [8, 16, 16], "step": 0.5, "gaussian_sigma": 0.125, "mirroring_axes": [0, 2]}
    }
    assert found["output"] == {"labels": REGIONS, "regions_class_order": [1, 2, 3], "num_classes": 3}
    checkpoint = folder / "fold_2" / "checkpoint_final.pth"
    assert found["source"]["sha256"]["fold_2"] == hashlib.sha256(checkpoint.read_bytes()).hexdigest()
    assert found["source"]["trainer"] == "nnUNetTrainerLightMUNet" and found["source"]["dataset"] == "Dataset901_Drawn"
    assert found["check"]["cases"] == ["case"] and found["check"]["largest_difference"] == 0


@pytest.mark.parametrize("precision", ["float16", "float32"])
def test_weights_are_those_that_were_trained(precision, tmp_path, images, monkeypatch):
    monkeypatch.setattr(stored, "EQUAL_LABELS", 0.95)  # of a patch of 256 voxels one would be too many
    folder = write_model_folder(tmp_path / "model", folds=(0, 1), **FLAT)
    options = ["--float32"] if precision == "float32" else []
    assert export(folder, tmp_path / "a.lightm", "--check-images", images, *options) == 0
    found = load_file(tmp_path / "a.lightm")
    for fold in (0, 1):
        trained = torch.load(folder / f"fold_{fold}" / "checkpoint_final.pth")["network_weights"]
        assert {name for name in found if name.startswith(f"fold_{fold}/")} == {
            f"fold_{fold}/{name}" for name in trained
        }
        for name, tensor in trained.items():
            written = found[f"fold_{fold}/{name}"]
            vector = tensor.ndim == 1 or name.endswith("A_log")
            assert written.dtype == (torch.float32 if vector or precision == "float32" else torch.float16)
            torch.testing.assert_close(written.float(), tensor, rtol=1e-3, atol=1e-7)
    difference = pipeline_of(tmp_path / "a.lightm")["check"]["largest_difference"]
    assert difference == 0 if precision == "float32" else 0 < difference < 1


def test_folds_and_checkpoint_are_chosen(tmp_path, images):
    folder = write_model_folder(tmp_path / "model", folds=(0, 1, "all"), **FLAT)
    (folder / "fold_1" / "checkpoint_final.pth").rename(folder / "fold_1" / "checkpoint_best.pth")
    common = ("--check-images", images, "--float32")
    for name, options, folds in (
        ("default", (), {"fold_0"}),
        ("best", ("-chk", "checkpoint_best.pth"), {"fold_1"}),
        ("all", ("-f", "all", "0"), {"fold_all", "fold_0"}),
    ):
        assert export(folder, tmp_path / f"{name}.lightm", *common, *options) == 0
        assert {key.split("/")[0] for key in load_file(tmp_path / f"{name}.lightm")} == folds


def test_model_trained_with_deep_supervision(tmp_path, images):
    """Heads of the lower resolutions are left out."""
    folder = write_model_folder(tmp_path / "model", **FLAT)
    path = folder / "fold_0" / "checkpoint_final.pth"
    content = torch.load(path)
    content["network_weights"]["decoder.seg_layers.1.pointwise.weight"] = torch.zeros(3, 64)
    torch.save(content, path)
    assert export(folder, tmp_path / "a.lightm", "--check-images", images, "--float32") == 0
    assert not [name for name in load_file(tmp_path / "a.lightm") if "seg_layers.1" in name]


def test_preprocessed_cases_are_the_default_to_check_on(tmp_path, monkeypatch):
    folder = write_model_folder(tmp_path / "model", **FLAT)
    data = tmp_path / "Dataset901_Drawn" / "nnUNetPlans_2d"
    data.mkdir(parents=True)
    array = torch.randn(1, 3, 18, 14).numpy()
    for case in ("b", "a"):
        nnUNetDatasetBlosc2.save_case(array, (array > 0).astype("int8"), {}, str(data / case))
    monkeypatch.setattr(check, "nnUNet_preprocessed", str(tmp_path))
    comparison = write_bundle(read_model_folder(folder), tmp_path / "a.lightm", half=False)
    assert comparison.cases == ("a", "b")


@pytest.mark.parametrize("coarse", [0, 1])
def test_float16_that_changes_labels_of_one_fold_is_refused(coarse, tmp_path, images, capsys):
    folder = write_model_folder(tmp_path / "model", folds=(0, 1), **FLAT)
    make_float16_too_coarse(folder, coarse)
    out, options = tmp_path / "a.lightm", ("--check-images", images)
    assert export(folder, out, *options, "-f", 0, 1) == 1
    said = capsys.readouterr().err
    assert "float16 is too coarse" in said and "--float32" in said and not out.exists()
    assert float(re.search(r"agree in ([\d.]+) %", said)[1]) < 90
    assert export(folder, out, *options, "-f", 1 - coarse) == 0, "else the other fold may be the one that is refused"
    assert export(folder, out, *options, "-f", 0, 1, "--float32", "--overwrite") == 0
    found = pipeline_of(out)["check"]
    assert found["equal_labels"] == 1 and found["largest_difference"] == 0


REFUSED = {
    "cascade": ({"settings": {"previous_stage": "2d_lowres"}}, "cascade"),
    "another network": ({"trainer": "nnUNetTrainerLightMUNetReleased"}, "LightMUNet alone"),
    "an ablation": ({"trainer": "nnUNetTrainerLightMUNetConv3"}, "Conv3RVMLayer"),
    "normalisation": ({"schemes": ("MyNormalization",)}, "MyNormalization"),
    "resampling": ({"settings": {"resampling_fn_data": "resample_torch_fornnunet"}}, "resample_torch_fornnunet"),
    "order": (
        {"settings": {"resampling_fn_probabilities_kwargs": {"is_seg": False, "order": 3, "order_z": 0}}},
        "order=3",
    ),
    "an argument of resampling that is new": (
        {"settings": {"resampling_fn_data_kwargs": {"is_seg": False, "mode": "reflect"}}},
        "resample data with mode='reflect'; known are is_seg, order,",
    ),
    "a threshold that is none": (
        {"settings": {"resampling_fn_data_kwargs": {"separate_z_anisotropy_threshold": None}}},
        "separate_z_anisotropy_threshold=None; known are a number above 0",
    ),
    "a threshold that no float holds": (
        {"settings": {"resampling_fn_data_kwargs": {"separate_z_anisotropy_threshold": 10**400}}},
        "known are a number above 0",
    ),
    "images resampled as labels": ({"settings": {"resampling_fn_data_kwargs": {"is_seg": True}}}, "is_seg=True"),
    "no intensities": (
        {"schemes": ("CTNormalization",), "plans": {"foreground_intensity_properties_per_channel": {}}},
        "plans.json: channel 0 is normalised by CTNormalization, and its intensities are None",
    ),
    "intensities without a deviation": (
        {
            "schemes": ("CTNormalization",),
            "plans": {"foreground_intensity_properties_per_channel": {"0": {**CT, "std": None}}},
        },
        "plans.json: channel 0 is normalised by CTNormalization",
    ),
    "intensities that no float holds": (
        {
            "schemes": ("CTNormalization",),
            "plans": {"foreground_intensity_properties_per_channel": {"0": {**CT, "mean": -(10**400)}}},
        },
        "plans.json: channel 0 is normalised by CTNormalization",
    ),
    "fewer masks than channels": ({"settings": {"use_mask_for_norm": []}}, "plans.json: has 1 normalization_schemes"),
    "an ending that is a path": ({"file_ending": "/../other.nii.gz"}, "dataset.json: "),
    "an ending that is unknown": ({"file_ending": ".dat"}, "dataset.json: the images end with '.dat'"),
}


@pytest.mark.parametrize("what", REFUSED)
def test_what_the_engine_does_not_do_is_refused_by_name(what, tmp_path, images, capsys):
    options, named = REFUSED[what]
    folder = write_model_folder(tmp_path / "model", **{**FLAT, **options})
    assert export(folder, tmp_path / "a.lightm", "--check-images", images) == 1
    assert named in capsys.readouterr().err
    assert not (tmp_path / "a.lightm").exists()


def test_a_threshold_of_the_plans_is_written(tmp_path, images):
    settings = {"resampling_fn_data_kwargs": {"order": 3, "separate_z_anisotropy_threshold": 1.5}}
    folder = write_model_folder(tmp_path / "model", settings=settings, **FLAT)
    assert export(folder, tmp_path / "a.lightm", "--check-images", images, "--float32") == 0
    found = pipeline_of(tmp_path / "a.lightm")["preprocessing"]
    assert found["resampling_data"]["anisotropy_threshold"] == 1.5
    assert found["resampling_logits"]["anisotropy_threshold"] == 3.0


def test_no_images_to_check_on(tmp_path, monkeypatch, capsys):
    folder = write_model_folder(tmp_path / "model", **FLAT)
    monkeypatch.setattr(check, "nnUNet_preprocessed", None)
    assert export(folder, tmp_path / "a.lightm") == 1
    assert "--check-images" in capsys.readouterr().err
    (tmp_path / "empty").mkdir()
    assert export(folder, tmp_path / "a.lightm", "--check-images", tmp_path / "empty") == 1
    assert "holds no images" in capsys.readouterr().err


def test_channels_by_their_older_name(tmp_path, images):
    folder = write_model_folder(tmp_path / "model", **FLAT)
    content = json.loads((folder / "dataset.json").read_text())
    content["modality"] = content.pop("channel_names")
    (folder / "dataset.json").write_text(json.dumps(content))
    assert export(folder, tmp_path / "a.lightm", "--float32", "--check-images", images) == 0


def test_images_to_check_on_that_lack_a_channel(tmp_path, images, capsys):
    folder = write_model_folder(tmp_path / "model", **FLAT)
    (first, *_) = sorted(images.glob("*_0000*"))
    first.rename(first.with_name(first.name.replace("_0000", "_0001")))
    assert export(folder, tmp_path / "a.lightm", "--check-images", images) == 1
    said = capsys.readouterr().err
    assert "cannot be checked on these images" in said and first.name.partition("_0000")[0] in said
    assert not (tmp_path / "a.lightm").exists()


def test_a_file_that_is_there_stays_unless_asked(tmp_path, images, capsys):
    folder = write_model_folder(tmp_path / "model", **FLAT)
    out = tmp_path / "a.lightm"
    out.write_text("mine")
    assert export(folder, out, "--check-images", images) == 1
    assert "--overwrite" in capsys.readouterr().err and out.read_text() == "mine"
    checkpoint = next(folder.rglob("checkpoint_final.pth"))
    before = checkpoint.read_bytes()
    for mine in (out, checkpoint, folder / "plans.json"):
        assert export(folder, mine, "--check-images", images, "--overwrite") == 1
        assert "was not written by this command" in (error := capsys.readouterr().err) or "lost with it" in error
    assert out.read_text() == "mine" and checkpoint.read_bytes() == before
    out.unlink()
    for _ in range(2):
        assert export(folder, out, "--check-images", images, "--float32", "--overwrite") == 0
        assert pipeline_of(out)
    with pytest.raises(ExportError, match="no such checkpoint"):
        read_model_folder(folder, ["7"])
