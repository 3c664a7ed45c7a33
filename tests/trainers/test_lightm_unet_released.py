"""The released trainers: network, recipe, float32, and patches whose axes cannot be halved three times."""

from __future__ import annotations

import pytest
import torch
from nnunetv2.training.nnUNetTrainer import nnUNetTrainer as nnunet
from nnunetv2.utilities.plans_handling.plans_handler import PlansManager

from nnunetv2_lightm.networks import LightMUNetReleased
from nnunetv2_lightm.trainers import find_trainer

from .conftest import make_plans

HEAD, FIRST = "nnUNetTrainerLightMUNetReleased", "nnUNetTrainerLightMUNetReleasedFirst"


@pytest.mark.parametrize(("name", "parameters"), [(HEAD, 5_015_766), (FIRST, 6_150_168)])
def test_recipe(make_trainer, name, parameters):
    trainer = make_trainer(name)
    trainer.initialize()
    assert isinstance(trainer.network, LightMUNetReleased)
    assert sum(p.numel() for p in trainer.network.parameters()) == parameters
    assert (trainer.num_epochs, trainer.num_iterations_per_epoch) == (100, 250)
    assert not trainer.enable_deep_supervision and trainer.grad_scaler is None
    assert type(trainer.optimizer) is torch.optim.Adam
    (group,) = trainer.optimizer.param_groups
    assert (group["lr"], group["weight_decay"], group["eps"]) == (1e-4, 1e-5, 1e-5)
    assert len(group["params"]) == len(list(trainer.network.parameters()))
    trainer.lr_scheduler.step(50)
    assert group["lr"] == pytest.approx(1e-4 * 0.5**0.9)


def test_no_gradient_scaler_on_cuda(make_trainer):
    for name, has_one in ((HEAD, False), ("nnUNetTrainerLightMUNet", True)):
        assert (make_trainer(name, device="cuda").grad_scaler is not None) == has_one


BATCH = {"data": torch.arange(4096.0).sin().view(2, 1, 8, 16, 16), "target": torch.ones(2, 1, 8, 16, 16)}


@pytest.fixture
def step(make_trainer):
    """One training step of a fresh trainer, ours or stock: loss, gradient norm, a weight, and whether it autocasts."""

    def run(stock):
        trainer = make_trainer(HEAD)
        torch.manual_seed(0)
        trainer.initialize()
        autocasts = []
        trainer.network.register_forward_hook(lambda *_: autocasts.append(torch.is_autocast_enabled("cpu")))
        method = nnunet.nnUNetTrainer.train_step if stock else type(trainer).train_step
        loss = method(trainer, BATCH)["loss"]
        norm = torch.stack([p.grad.norm() for p in trainer.network.parameters()]).norm()
        return float(loss), norm, trainer.network.conv_final[2][1].conv.weight, autocasts

    return run


def test_a_training_step_is_that_of_nnunet(step):
    """On a CPU nnU-Net's step, too, is in float32: the same loss, clipped gradients and weights."""
    ours, stock = step(stock=False), step(stock=True)
    assert ours[0] == pytest.approx(stock[0])
    torch.testing.assert_close(ours[1:3], stock[1:3])


def test_a_training_step_does_not_autocast(step, monkeypatch):
    monkeypatch.setattr(nnunet, "dummy_context", lambda: torch.autocast("cpu", torch.bfloat16))  # as on CUDA
    assert step(stock=True)[3] == [True]
    assert step(stock=False)[3] == [False]


@pytest.mark.parametrize("patch_size", [[5, 16, 16], [20, 12], [1, 8, 8]], ids=str)
def test_network_of_a_patch_that_plans_do_not_halve(patch_size):
    """The network is the same for all plans; only the number of dimensions counts."""
    plans = make_plans()
    plans["configurations"]["3d_fullres"]["patch_size"] = patch_size
    manager = PlansManager(plans)
    network = find_trainer(f"{HEAD}_2epochs").build_network_architecture(
        manager, manager.get_configuration("3d_fullres"), 2, 4, enable_deep_supervision=False
    )
    with torch.no_grad():
        assert network(torch.randn(1, 2, *patch_size)).shape == (1, 4, *patch_size)


def test_has_no_deep_supervision():
    manager = PlansManager(make_plans())
    with pytest.raises(ValueError, match="enable_deep_supervision is True; the released network has none"):
        find_trainer(FIRST).build_network_architecture(manager, manager.get_configuration("3d_fullres"), 1, 3, True)
