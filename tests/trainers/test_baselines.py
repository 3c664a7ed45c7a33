"""The trainers of the baselines and ablations: recipes, networks from plans, a training step, prediction's network."""

from __future__ import annotations

import math
import sys
from importlib import import_module

import pytest
import torch
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer
from nnunetv2.utilities.plans_handling.plans_handler import PlansManager

import nnunetv2_lightm
from nnunetv2_lightm.networks import LightMUNet, UMambaBot, UMambaEnc
from nnunetv2_lightm.ops import select_backend
from nnunetv2_lightm.optim import MuonAdamW
from nnunetv2_lightm.trainers import TRAINERS

from .conftest import make_plans

ABLATIONS = {"Conv3": "conv3", "SelfAttention": "self_attention", "NoAdjustment": "no_adjustment",
             "NoResidual": "no_residual"}  # fmt: skip
MONAI = ["nnUNetTrainerSegResNet", "nnUNetTrainerUNETR", "nnUNetTrainerSwinUNETR"]
UMAMBA = {"nnUNetTrainerUMambaBot": UMambaBot, "nnUNetTrainerUMambaEnc": UMambaEnc}
CONFIGURATIONS = pytest.mark.parametrize("configuration", ["2d", "3d_fullres"])


def step(trainer):
    """One training and one validation step; the parameters that had no gradient."""
    torch.manual_seed(0)
    patch = trainer.configuration_manager.patch_size
    target = torch.randint(0, 3, (2, 1, *patch)).float()
    if trainer.enable_deep_supervision:
        scales = trainer._get_deep_supervision_scales()
        sizes = [[round(length * s) for length, s in zip(patch, scale, strict=True)] for scale in scales]
        target = [torch.nn.functional.interpolate(target, size) for size in sizes]
    batch = {"data": torch.randn(2, 1, *patch), "target": target}
    trainer.set_deep_supervision_enabled(True)
    trainer.network.train()
    before = [p.detach().clone() for p in trainer.network.parameters()]
    assert math.isfinite(trainer.train_step(batch)["loss"])  # CE minus Dice: of either sign
    assert any((p != q).any() for p, q in zip(trainer.network.parameters(), before, strict=True))
    trainer.network.eval()
    with torch.no_grad():
        assert trainer.validation_step(batch)["tp_hard"].shape == (2,)
    return [name for name, p in trainer.network.named_parameters() if p.grad is None]


def network_for_prediction(trainer, configuration):
    """As nnU-Net's predictor builds it, from the class and the plans, with the trained weights."""
    manager = PlansManager(make_plans())
    network = type(trainer).build_network_architecture(
        manager, manager.get_configuration(configuration), 1, 3, enable_deep_supervision=False
    )
    network.load_state_dict(trainer.network.state_dict(), strict=True)
    return network.eval()


@pytest.mark.parametrize("name", [*MONAI, *UMAMBA])
@CONFIGURATIONS
def test_trains_and_predicts(make_trainer, name, configuration):
    if name in MONAI:
        pytest.importorskip("monai", reason="pip install 'nnunetv2-lightm[baselines]'")
    trainer = make_trainer(name, configuration)
    trainer.initialize()
    # nnU-Net gives the lowest resolution's loss no weight; its head is the one parameter without a gradient.
    lowest_head = ["decoder.seg_layers.0.weight", "decoder.seg_layers.0.bias"]
    assert step(trainer) == (lowest_head if name in UMAMBA else [])
    trainer._save_debug_information()
    image = torch.randn(1, 1, *trainer.configuration_manager.patch_size)
    trainer.set_deep_supervision_enabled(False)
    with torch.inference_mode():
        logits = network_for_prediction(trainer, configuration)(image)
        assert logits.shape == (1, 3, *image.shape[2:])
        torch.testing.assert_close(logits, trainer.network(image))


@pytest.mark.parametrize("suffix", ABLATIONS)
@CONFIGURATIONS
def test_ablation_trains_on_the_papers_network_with_its_recipe(make_trainer, suffix, configuration):
    trainer = make_trainer(f"nnUNetTrainerLightMUNet{suffix}_20epochs_50iters", configuration)
    trainer.initialize()
    paper = make_trainer("nnUNetTrainerLightMUNet", configuration)
    expected = LightMUNet(
        1, 3, spatial_dims=len(trainer.configuration_manager.patch_size), ablation=ABLATIONS[suffix],
        strides=trainer.configuration_manager.pool_op_kernel_sizes,
    )  # fmt: skip
    shapes = {key: value.shape for key, value in expected.state_dict().items()}
    assert {key: value.shape for key, value in trainer.network.state_dict().items()} == shapes
    assert (trainer.initial_lr, trainer.weight_decay) == (paper.initial_lr, paper.weight_decay)
    assert (trainer.num_epochs, paper.num_epochs) == (20, 100)
    assert type(trainer.optimizer) is MuonAdamW
    assert step(trainer) == []
    network_for_prediction(trainer, configuration)


RECIPES = {
    "nnUNetTrainerSegResNet": (torch.optim.Adam, 1e-4, 1e-5, "Adam 1e-4, L2 penalty 1e-5"),
    "nnUNetTrainerUNETR": (torch.optim.AdamW, 1e-4, 1e-2, "AdamW 1e-4"),
    "nnUNetTrainerSwinUNETR": (torch.optim.AdamW, 1e-4, 1e-2, "AdamW 1e-4, weight decay 1e-2"),
    "nnUNetTrainerUMambaBot": (torch.optim.SGD, 1e-2, 3e-5, "SGD 1e-2 with Nesterov momentum 0.99"),
    "nnUNetTrainerUMambaEnc": (torch.optim.SGD, 1e-2, 3e-5, "SGD 1e-2 with Nesterov momentum 0.99"),
}


@pytest.mark.parametrize("name", RECIPES)
def test_recipe_is_what_the_docstring_says(make_trainer, name):
    optimizer_class, lr, weight_decay, words = RECIPES[name]
    trainer = make_trainer(name)
    trainer.network = torch.nn.Linear(1, 1)
    optimizer, scheduler = trainer.configure_optimizers()
    (group,) = optimizer.param_groups
    assert (type(optimizer), group["lr"], group["weight_decay"]) == (optimizer_class, lr, weight_decay)
    assert (group.get("momentum"), group.get("nesterov")) == ((0.99, True) if name in UMAMBA else (None, None))
    assert words in " ".join(type(trainer).__doc__.split())
    assert (trainer.num_epochs, trainer.save_every, trainer.enable_deep_supervision) == (100, 5, name in UMAMBA)
    scheduler.step(50)
    assert group["lr"] == pytest.approx(lr * 0.5**0.9)


def test_umamba_takes_residual_encoder_plans_as_they_are(make_trainer):
    plans = make_plans()
    kwargs = plans["configurations"]["2d"]["architecture"]["arch_kwargs"]
    del kwargs["n_conv_per_stage"]
    kwargs["n_blocks_per_stage"] = [1, 2, 1, 3]
    manager = PlansManager(plans)
    network = TRAINERS["nnUNetTrainerUMambaBot"].build_network_architecture(
        manager, manager.get_configuration("2d"), 1, 3, enable_deep_supervision=True
    )
    assert type(network) is UMambaBot and network.decoder.deep_supervision
    assert [len(stage.blocks) for stage in network.encoder.stages] == [1, 2, 1, 3]


def test_umamba_refuses_plans_of_another_network():
    plans = make_plans()
    architecture = plans["configurations"]["2d"]["architecture"]
    architecture |= {"network_class_name": "nnunetv2_lightm.LightMUNet", "arch_kwargs": {"strides": [[1, 1], [2, 2]]}}
    manager = PlansManager(plans)
    message = "the plans nnUNetPlans are for nnunetv2_lightm.LightMUNet; nnUNetTrainerUMambaEnc takes .* -p nnUNetPlans"
    with pytest.raises(ValueError, match=message):
        TRAINERS["nnUNetTrainerUMambaEnc"].build_network_architecture(manager, manager.get_configuration("2d"), 1, 3)


def test_the_log_says_how_large_the_network_is(make_trainer, monkeypatch):
    monkeypatch.setattr(nnUNetTrainer, "on_train_start", lambda self: None)
    lines = []
    for name in ("nnUNetTrainerUMambaBot", "nnUNetTrainerLightMUNetConv3_1epoch"):
        trainer = make_trainer(name)
        monkeypatch.setattr(trainer, "print_to_log_file", lines.append)
        trainer.initialize()
        trainer.on_train_start()
    umamba, conv3 = lines
    parameters = sum(p.numel() for p in trainer.network.parameters())
    assert conv3 == f"nnUNetTrainerLightMUNetConv3_1epoch: {parameters:,} parameters"
    assert umamba.endswith(f" parameters, selective scan backend: {select_backend('cpu')}")


def test_look_up_needs_no_monai(monkeypatch):
    """A fresh import of the trainers where MONAI is not installed."""
    monkeypatch.setattr(nnunetv2_lightm, "trainers", nnunetv2_lightm.trainers)  # the import sets it
    for name in [name for name in sys.modules if name.startswith(("nnunetv2_lightm.trainers", "monai"))]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "monai", None)
    trainers = import_module("nnunetv2_lightm.trainers")
    assert trainers.find_trainer("nnUNetTrainerUNETR_20epochs").__name__ == "nnUNetTrainerUNETR_20epochs"
    manager = PlansManager(make_plans())
    with pytest.raises(ImportError, match=r"needs monai, which .* pip install \"monai>=1\.5"):
        trainers.nnUNetTrainerUNETR.build_network_architecture(manager, manager.get_configuration("2d"), 1, 3)
