"""Trainers of nnU-Net on our plans, stock and ours: the methods that nnU-Net itself calls, on a tiny patch."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from nnunetv2.run.run_training import get_trainer_from_args
from nnunetv2.training.nnUNetTrainer import nnUNetTrainer as nnunet_trainer_module

from nnunetv2_lightm.networks import LightMUNet
from nnunetv2_lightm.planning import PLANS_NAME
from nnunetv2_lightm.planning.datasets import plan_dataset

OURS = "nnUNetTrainerLightMUNet_1epochs_1iters"
STOCK = "nnUNetTrainer_1epochs_1iters"
# Patches of 16^3 and 8x32x32 in 3D, 32x32 in 2D.
DATA = {
    "isotropic": ((1.0, 1.0, 1.0), (16, 16, 16)),
    "thin": ((4.0, 1.0, 1.0), (5, 32, 32)),
    "flat": ((999.0, 1.0, 1.0), (1, 32, 32)),
}


@pytest.fixture
def make_trainer(make_dataset, monkeypatch):
    """A trainer as `nnUNetv2_train 5 CONFIGURATION 0 -p nnUNetLightMUNetPlans -tr NAME -device cpu` makes it."""
    monkeypatch.setattr(nnunet_trainer_module, "infer_dataset_class", lambda folder: None)

    def make(name, data="isotropic", configuration="3d_fullres"):
        dataset = make_dataset(*DATA[data])
        plan_dataset(dataset, batch_size=2, gpu_memory_gb=1)
        trainer = get_trainer_from_args(dataset, configuration, "0", name, PLANS_NAME, device=torch.device("cpu"))
        trainer.initialize()
        return trainer

    return make


def batch_for(trainer):
    """What nnU-Net's data loader gives: one target for each scale of the deep supervision."""
    patch = trainer.configuration_manager.patch_size
    generator = torch.Generator().manual_seed(0)
    target = torch.randint(0, 3, (2, 1, *patch), generator=generator).float()
    data = torch.randn(2, 1, *patch, generator=generator)
    scales = trainer._get_deep_supervision_scales()
    if scales is None:
        return {"data": data, "target": target}
    sizes = [[round(scale * size) for scale, size in zip(one, patch)] for one in scales]
    return {"data": data, "target": [torch.nn.functional.interpolate(target, size) for size in sizes]}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "data", "configuration"),
    [
        (STOCK, "isotropic", "3d_fullres"),
        (STOCK, "thin", "3d_fullres"),
        (STOCK, "flat", "2d"),
        (OURS, "thin", "3d_fullres"),
    ],
)
def test_training_and_validation_step(make_trainer, name, data, configuration):
    trainer = make_trainer(name, data, configuration)
    network, batch = trainer.network, batch_for(trainer)
    assert type(network) is LightMUNet
    assert trainer.enable_deep_supervision == network.decoder.deep_supervision == (name == STOCK)
    before = network.decoder.seg_layers[0].pointwise.weight.detach().clone()
    trainer.set_deep_supervision_enabled(trainer.enable_deep_supervision)
    assert np.isfinite(trainer.train_step(batch)["loss"])
    assert not torch.equal(before, network.decoder.seg_layers[0].pointwise.weight)
    trainer.network.eval()
    with torch.no_grad():
        assert trainer.validation_step(batch)["tp_hard"].shape == (2,)


def test_one_output_for_each_scale_of_the_stock_trainer(make_trainer):
    trainer = make_trainer(STOCK, "thin")
    batch = batch_for(trainer)
    outputs = trainer.network(batch["data"])
    assert [output.shape[2:] for output in outputs] == [target.shape[2:] for target in batch["target"]]
    assert len(outputs) == 3


@pytest.mark.slow
def test_stock_checkpoint_predicts_without_deep_supervision(make_trainer, folders):
    """As `nnUNetv2_predict` does: the network is rebuilt from the plans, and loads the weights strictly."""
    trainer = make_trainer(STOCK)
    file = folders / "checkpoint.pth"
    trainer.current_epoch = 1
    trainer.save_checkpoint(str(file))
    weights = torch.load(file, weights_only=False)["network_weights"]
    configuration = trainer.configuration_manager
    network = type(trainer).build_network_architecture(
        trainer.plans_manager, configuration, 1, 3, enable_deep_supervision=False
    )
    network.load_state_dict(weights)
    image = torch.randn(1, 1, 16, 16, 16)
    trainer.network.eval()
    trainer.set_deep_supervision_enabled(False)
    with torch.inference_mode():
        torch.testing.assert_close(network.eval()(image), trainer.network(image))


@pytest.mark.slow
def test_cascade(make_dataset, folders, monkeypatch):
    """The second stage gets the first one's labels as further channels."""
    monkeypatch.setattr(nnunet_trainer_module, "infer_dataset_class", lambda folder: None)
    dataset = make_dataset((1.0, 1.0, 1.0), (200, 200, 200))
    plan_dataset(dataset, batch_size=2, gpu_memory_gb=0.5)
    plans = json.loads((folders / "nnUNet_preprocessed" / dataset / f"{PLANS_NAME}.json").read_text())
    assert "3d_lowres" in plans["configurations"]
    trainer = get_trainer_from_args(dataset, "3d_cascade_fullres", "0", STOCK, PLANS_NAME, device=torch.device("cpu"))
    trainer.initialize()
    assert trainer.network.stem.pointwise.in_features == 1 + 2
