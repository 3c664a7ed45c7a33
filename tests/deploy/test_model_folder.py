"""Model folders that ``nnUNetv2_lightm export`` reads: of any trainer; what is missing or does not fit is named."""

from __future__ import annotations

import json
import os

import pytest
import torch

from nnunetv2_lightm import cli

from ..model_folders import write_model_folder
from ..prediction import write_images

FLAT = {"configuration": "2d", "spacing": (1.0, 1.0), "patch_size": (16, 16)}


@pytest.fixture
def images(tmp_path):
    write_images(tmp_path / "images", 1, shape=(20, 24))
    return tmp_path / "images"


def export(*arguments) -> int:
    return cli.main(["export", *map(str, arguments)])


def test_a_model_of_an_unknown_trainer_is_refused(tmp_path, images, capsys):
    folder = write_model_folder(tmp_path / "model", **FLAT)
    path = folder / "fold_0" / "checkpoint_final.pth"
    torch.save(torch.load(path) | {"trainer_name": "nnUNetTrainerNobody"}, path)
    assert export(folder, tmp_path / "a.lightm", "--check-images", images) == 1
    assert f"{folder}: was trained with nnUNetTrainerNobody, which nnU-Net does not find" in capsys.readouterr().err


OLD_TRAINER = """
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer
from nnunetv2_lightm import LightMUNet


class nnUNetTrainerOld(nnUNetTrainer):
    @staticmethod
    def build_network_architecture(
        architecture_class_name, arch_init_kwargs, arch_init_kwargs_req_import, num_input_channels,
        num_output_channels, enable_deep_supervision=True
    ):
        return LightMUNet(
            num_input_channels, num_output_channels, spatial_dims=2, strides=arch_init_kwargs["strides"],
            deep_supervision=enable_deep_supervision,
        )
"""


def test_a_trainer_from_before_nnunet_2_8(tmp_path, images, monkeypatch, capsys):
    (tmp_path / "plugin").mkdir()
    (tmp_path / "plugin" / "old_trainer.py").write_text(OLD_TRAINER)
    monkeypatch.setenv("nnUNet_extTrainer", str(tmp_path / "plugin"), prepend=os.pathsep)
    folder = write_model_folder(tmp_path / "model", **FLAT)
    path = folder / "fold_0" / "checkpoint_final.pth"
    torch.save(torch.load(path) | {"trainer_name": "nnUNetTrainerOld"}, path)
    assert export(folder, tmp_path / "a.lightm", "--check-images", images, "--float32") == 0
    assert "nnUNetTrainerOld, 2d, fold_0" in capsys.readouterr().out


def _shallow(weights):
    for name in [name for name in weights if name.startswith("bottleneck.3.")]:
        del weights[name]


def _of_two_channels(weights):
    weights["stem.pointwise.weight"] = torch.zeros(32, 2)


def _no_tensor(weights):
    weights["stem.pointwise.bias"] = "a text"


@pytest.mark.parametrize("form", [(), ("--zip",), ("--onnx",)], ids=["bundle", "zip", "onnx"])
@pytest.mark.parametrize("change", [_shallow, _of_two_channels, _no_tensor])
def test_a_fold_of_another_network_is_named(change, form, tmp_path, images, capsys):
    """Not the first one alone, and each form of export."""
    folder = write_model_folder(tmp_path / "model", folds=(0, 1), **FLAT)
    path = folder / "fold_1" / "checkpoint_final.pth"
    content = torch.load(path)
    change(content["network_weights"])
    torch.save(content, path)
    assert export(*form, folder, tmp_path / "out", "--check-images", images) == 1
    said = capsys.readouterr().err
    assert f"{path}: " in said and ("does not fit the network" in said or "is no tensor" in said)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("file", "keys"),
    [
        ("plans.json", ("transpose_forward",)),
        ("plans.json", ("configurations", "2d", "normalization_schemes")),
        ("plans.json", ("configurations", "2d", "resampling_fn_probabilities_kwargs")),
        ("dataset.json", ("labels",)),
        ("dataset.json", ("file_ending",)),
        ("dataset.json", ("channel_names",)),
    ],
)
def test_what_the_folder_lacks_is_named(file, keys, tmp_path, images, capsys):
    folder = write_model_folder(tmp_path / "model", **FLAT)
    content = json.loads((folder / file).read_text())
    inner = content
    for key in keys[:-1]:
        inner = inner[key]
    del inner[keys[-1]]
    (folder / file).write_text(json.dumps(content))
    assert export(folder, tmp_path / "a.lightm", "--check-images", images) == 1
    said = capsys.readouterr().err
    assert str(folder / file) in said and f"lacks {keys[-1]}" in said


def test_faults_of_the_folder_are_named(tmp_path, images, capsys):
    folder = write_model_folder(tmp_path / "model", **FLAT)

    def refused(*options) -> str:
        assert export(folder, tmp_path / "a.lightm", *options) == 1
        return capsys.readouterr().err

    assert "fold_3" in refused("-f", "3", "--check-images", images)
    assert "checkpoint_best.pth" in refused("-chk", "checkpoint_best.pth", "--check-images", images)
    path = folder / "fold_0" / "checkpoint_final.pth"
    content = torch.load(path)
    content["network_weights"]["stem.pointwise.bias"][0] = torch.nan
    torch.save(content, path)
    assert f"{path}: the weight stem.pointwise.bias is NaN" in refused("--check-images", images)
    path.write_bytes(path.read_bytes()[:-200])
    assert str(path) in refused("--check-images", images)
    (folder / "plans.json").unlink()
    assert "plans.json" in refused("--check-images", images)
