"""Weights of another network: the message says whose they are and which trainer fits, in training and in prediction."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from dynamic_network_architectures.architectures.unet import PlainConvUNet, ResidualEncoderUNet
from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor
from nnunetv2.run.load_pretrained_weights import load_pretrained_weights
from nnunetv2.utilities.plans_handling.plans_handler import PlansManager
from torch import nn

from nnunetv2_lightm.networks import LightMUNet
from nnunetv2_lightm.trainers import TRAINERS
from nnunetv2_lightm.trainers.safeguards import NotFiniteError, OtherArchitectureError, Safeguards
from nnunetv2_lightm.trainers.safeguards.architectures import ARCHITECTURES, architecture_of, refuse_other_weights


def stock_network(name: str) -> nn.Module:
    arguments = {
        "n_stages": 3,
        "features_per_stage": [4, 8, 8],
        "conv_op": nn.Conv3d,
        "kernel_sizes": 3,
        "strides": [1, 2, 2],
        "n_conv_per_stage_decoder": [1, 1],
        "num_classes": 3,
        "norm_op": nn.InstanceNorm3d,
        "nonlin": nn.LeakyReLU,
    }
    if name == "PlainConvUNet":
        return PlainConvUNet(1, n_conv_per_stage=[1] * 3, **arguments)
    return ResidualEncoderUNet(1, n_blocks_per_stage=[1] * 3, **arguments)


def monai_network(name: str) -> nn.Module:
    networks = pytest.importorskip("monai.networks.nets", reason="MONAI (extra baselines) is not installed")
    make = {
        "SegResNet": lambda: networks.SegResNet(spatial_dims=3, init_filters=8, in_channels=1, out_channels=3),
        "UNETR": lambda: networks.UNETR(1, 3, (16, 16, 16), feature_size=4, hidden_size=12, mlp_dim=12, num_heads=3),
        "SwinUNETR": lambda: networks.SwinUNETR(in_channels=1, out_channels=3, feature_size=12),
    }
    return make[name]()


@pytest.mark.parametrize("name", ["PlainConvUNet", "ResidualEncoderUNet"])
def test_networks_of_nnunet_are_known(name):
    assert architecture_of(stock_network(name).state_dict()) == (f"nnU-Net's {name}", "nnUNetTrainer")


@pytest.mark.parametrize("wrapped", ["", "network."])
@pytest.mark.parametrize("name", ["SegResNet", "UNETR", "SwinUNETR"])
def test_networks_of_monai_are_known(name, wrapped):
    names = [wrapped + key for key in monai_network(name).state_dict()]
    assert architecture_of(names) == (f"MONAI's {name}", f"nnUNetTrainer{name}")


@pytest.mark.parametrize("revision", ["head", "first"])
@pytest.mark.parametrize("dims", ["2d", "3d"])
def test_released_networks_are_known(data_root, revision, dims):
    shapes = json.loads((data_root / "released_parity" / f"{revision}_{dims}_filters32_shapes.json").read_text())
    architecture, trainer = architecture_of(shapes)
    assert architecture == f"LightMUNetReleased, {revision} revision"
    assert trainer == "nnUNetTrainerLightMUNetReleased" + ("First" if revision == "first" else "")


@pytest.mark.parametrize(
    ("names", "trainer"),
    [
        (["encoder.stages.0.blocks.0.conv1.conv.weight", "mamba_layer.mamba.A_log", "decoder.seg_layers.0.weight"],
         "nnUNetTrainerUMambaBot"),
        (["encoder.stages.0.blocks.0.conv1.conv.weight", "mamba_layers.0.mamba.D", "decoder.seg_layers.0.weight"],
         "nnUNetTrainerUMambaEnc"),
        (["convInit.0.conv.weight", "down_layers.0.1.conv1.mamba.A_log"], "nnUNetTrainerLightMUNetReleased"),
        (["convInit.conv.weight", "down_layers.0.1.conv1.mamba.A_log"], "nnUNetTrainerLightMUNetReleasedFirst"),
        (["stem.pointwise.weight", "encoder.0.layers.0.conv.weight", "decoder.blocks.0.scale"], ""),
    ],
)  # fmt: skip
def test_other_architectures_are_known(names, trainer):
    assert architecture_of(names)[1] == trainer


def small(**options: object) -> nn.Module:
    return LightMUNet(**{"input_channels": 1, "num_classes": 3, "spatial_dims": 3, "features": 4} | options)


def refusal(weights: dict) -> str:
    with pytest.raises(OtherArchitectureError) as error:
        refuse_other_weights(small()).load_state_dict(weights)
    message = str(error.value)
    assert message.startswith("the weights do not belong to this network, LightMUNet: ")
    assert len(message) < 600, "PyTorch would print a page"
    return message


def test_own_weights_are_taken():
    weights = small().state_dict()
    network = refuse_other_weights(small())
    network.load_state_dict(weights)
    assert all(torch.equal(weights[name], weight) for name, weight in network.state_dict().items())
    with_more_heads = small(deep_supervision=True).state_dict()
    network.load_state_dict(with_more_heads)  # which prediction does not need


def test_weights_of_nnunet():
    count = sum(weight.numel() for weight in stock_network("PlainConvUNet").state_dict().values())
    said = refusal(stock_network("PlainConvUNet").state_dict())
    assert f"they belong to nnU-Net's PlainConvUNet, {count:,} values" in said
    assert "predict with -tr nnUNetTrainer" in said


def test_weights_of_the_first_released_revision():
    said = refusal({"convInit.weight": torch.zeros(1), "0.mamba.A_log": torch.zeros(1)})
    assert "LightMUNetReleased, first revision" in said
    assert "nnUNetTrainerLightMUNetReleasedFirst" in said


def test_the_trainers_that_are_named_exist():
    assert {trainer for _, trainer, _ in ARCHITECTURES} <= {"", "nnUNetTrainer", *TRAINERS}


def test_weights_of_an_unknown_network():
    said = refusal(nn.Sequential(*(nn.Linear(2, 2) for _ in range(4))).state_dict())
    assert "an unknown architecture with 24 values: 0.weight, 0.bias, 1.weight and 5 more" in said


@pytest.mark.parametrize(
    ("options", "needed"),
    [
        ({"input_channels": 2}, "stem.pointwise.weight is 4x2, needed is 4x1"),
        ({"num_classes": 5}, "is 5x4, needed is 3x4"),
        ({"spatial_dims": 2}, "stem.depthwise.weight is 4x1x3x3, needed is 4x1x3x3x3"),
    ],
)
def test_weights_for_other_data(options, needed):
    said = refusal(small(**options).state_dict())
    assert "for another number of channels, classes or dimensions" in said and needed in said
    assert "Use the dataset.json and plans.json of that training" in said


def test_weights_of_another_version():
    weights = small().state_dict()
    for name in [name for name in weights if "norm_out" in name]:
        del weights[name]
    assert "another version of it, without encoder.0.layers.0.norm_out.weight" in refusal(weights)


def test_part_of_the_weights_is_taken_where_the_caller_asks_for_it():
    """`strict=False`, as of trainers that load an encoder, also where the network is a part of another one."""
    weights = {name: weight for name, weight in small().state_dict().items() if "seg_layers" not in name}
    network = refuse_other_weights(small())
    said = network.load_state_dict(weights, strict=False)
    assert said.missing_keys and all("seg_layers" in name for name in said.missing_keys) and not said.unexpected_keys
    assert all(torch.equal(weight, network.state_dict()[name]) for name, weight in weights.items())
    with pytest.raises(OtherArchitectureError, match="is 5x4, needed is 3x4"):
        network.load_state_dict(small(num_classes=5).state_dict(), strict=False)  # PyTorch refuses these too

    outer = nn.ModuleDict({"backbone": network, "head": nn.Linear(2, 2)})
    given = {f"backbone.{name}": weight for name, weight in weights.items()}
    assert "head.weight" in outer.load_state_dict(given, strict=False).missing_keys
    with pytest.raises(OtherArchitectureError, match="without decoder.seg_layers"):
        outer.load_state_dict(given)


@pytest.mark.parametrize("name", sorted(TRAINERS))
def test_every_trainer_is_safeguarded(dataset, name):
    """In training by its base class, in prediction, where no trainer is made, by its network."""
    assert issubclass(TRAINERS[name], Safeguards)
    manager = PlansManager(str(dataset.base / "nnUNetPlans.json"))
    try:
        network = TRAINERS[name].build_network_architecture(
            manager, manager.get_configuration("3d_fullres"), 1, 3, False
        )
    except ImportError as error:
        pytest.skip(str(error))
    with pytest.raises(OtherArchitectureError):
        network.load_state_dict({})
    with pytest.raises(NotFiniteError):
        network.eval()(torch.full((1, 1, 8, 16, 16), float("nan")))


class TestThroughNnunet:
    """Checkpoint files as nnU-Net writes and reads them."""

    @pytest.fixture
    def foreign_checkpoint(self, dataset) -> Path:
        """One of stock nnU-Net, in the place of ours, under our trainer's name."""
        trainer = dataset.trainer()
        stock = dataset.trainer("nnUNetTrainer_1epochs_1iters")
        stock.initialize()
        file = Path(trainer.output_folder, "checkpoint_latest.pth")
        stock.save_checkpoint(str(file))
        checkpoint = torch.load(file, weights_only=False)
        checkpoint["trainer_name"] = type(trainer).__name__
        torch.save(checkpoint, file)
        return file

    def test_going_on_from_it(self, dataset, foreign_checkpoint):
        with pytest.raises(OtherArchitectureError, match="PlainConvUNet") as error:
            dataset.continued(dataset.trainer())
        assert str(error.value).startswith(f"{foreign_checkpoint}: the weights do not belong")

    def test_predicting_with_it(self, dataset, foreign_checkpoint):
        model = foreign_checkpoint.parents[1]
        for name in ("plans.json", "dataset.json"):
            shutil.copyfile(dataset.base / name.replace("plans", "nnUNetPlans"), model / name)
        predictor = nnUNetPredictor(device=torch.device("cpu"))
        with pytest.raises(OtherArchitectureError, match="PlainConvUNet"):
            predictor.initialize_from_trained_model_folder(str(model), (0,), foreign_checkpoint.name)

    def test_pretrained_weights_of_it(self, dataset, foreign_checkpoint):
        """By nnU-Net itself, which looks at the names before it loads any."""
        trainer = dataset.trainer()
        trainer.initialize()
        with pytest.raises(AssertionError, match="is missing in the pretrained model weights"):
            load_pretrained_weights(trainer.network, foreign_checkpoint)

    def test_own_checkpoints_are_taken(self, dataset):
        trainer = dataset.trainer()
        trainer.initialize()
        trainer.save_checkpoint(str(Path(trainer.output_folder, "checkpoint_latest.pth")))
        other = dataset.trainer()
        dataset.continued(other)
        for ours, theirs in zip(other.network.parameters(), trainer.network.parameters()):
            np.testing.assert_array_equal(ours.detach(), theirs.detach())

    def test_a_corrupt_checkpoint_is_no_checkpoint(self, dataset):
        """nnUNetv2_predict reads it before anything of ours runs; it ends with PyTorch's own error."""
        trainer = dataset.trainer()
        trainer.initialize()
        file = Path(trainer.output_folder, "checkpoint_final.pth")
        trainer.save_checkpoint(str(file))
        file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])
        for name in ("plans.json", "dataset.json"):
            shutil.copyfile(dataset.base / name.replace("plans", "nnUNetPlans"), file.parents[1] / name)
        predictor = nnUNetPredictor(device=torch.device("cpu"))
        with pytest.raises(RuntimeError, match="failed finding central directory"):
            predictor.initialize_from_trained_model_folder(str(file.parents[1]), (0,))
