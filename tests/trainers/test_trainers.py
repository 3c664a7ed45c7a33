"""The trainers as nnU-Net uses them: look-up, recipes, budgets, network from plans."""

from __future__ import annotations

import math
import pickle

import numpy as np
import pytest
import torch
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer
from nnunetv2.utilities.plans_handling.plans_handler import PlansManager

from nnunetv2_lightm.networks import LightMUNet
from nnunetv2_lightm.trainers import TRAINERS, budgets, find_trainer

from .conftest import STRIDES, make_plans


@pytest.mark.parametrize("name", sorted(TRAINERS))
def test_found_by_name_and_pickled(name):
    trainer = find_trainer(name)
    assert trainer is TRAINERS[name] and trainer.__name__ == name and issubclass(trainer, nnUNetTrainer)
    assert "__" not in name
    assert pickle.loads(pickle.dumps(trainer)) is trainer


@pytest.mark.parametrize("base", ["nnUNetTrainer", *sorted(TRAINERS)])
@pytest.mark.parametrize(
    ("suffix", "epochs", "iterations", "validation"),
    [
        ("_5epochs", 5, 250, 50),
        ("_20epochs_50iters", 20, 50, 10),
        ("_1epoch_1iters", 1, 1, 1),
        ("_2epochs_11iters", 2, 11, 3),
    ],
)
def test_budget(make_trainer, base, suffix, epochs, iterations, validation):
    trainer = make_trainer(base + suffix)
    assert type(trainer).__name__ == base + suffix, "nnU-Net names folders and checkpoints by the class"
    assert trainer.num_epochs == epochs
    assert trainer.num_iterations_per_epoch == iterations
    assert trainer.num_val_iterations_per_epoch == validation
    assert trainer.save_every <= max(1, epochs // 10)
    assert set(trainer.my_init_kwargs) == {"plans", "configuration", "fold", "dataset_json", "device"}


@pytest.mark.parametrize("base", ["nnUNetTrainer", "nnUNetTrainerLightMUNet"])
def test_seed_sets_the_initial_weights(make_trainer, base):
    def weights(seed: int) -> torch.Tensor:
        trainer = make_trainer(f"{base}_2epochs_3iters_seed{seed}")
        assert (trainer.num_epochs, trainer.num_iterations_per_epoch) == (2, 3)
        assert pickle.loads(pickle.dumps(type(trainer))) is type(trainer)
        trainer.initialize()
        return torch.cat([parameter.detach().flatten() for parameter in trainer.network.parameters()])

    torch.testing.assert_close(weights(0), weights(0), rtol=0, atol=0)
    assert not torch.equal(weights(0), weights(1))


def test_a_seeded_training_that_continues_draws_other_batches(make_trainer, monkeypatch):
    """Without workers, this process's generator draws them; as does that of a second GPU."""
    drawn = []

    def on_train_start(self) -> None:  # what nnU-Net begins with
        if not self.was_initialized:
            self.initialize()
        drawn.append(np.random.random())

    monkeypatch.setattr(nnUNetTrainer, "on_train_start", on_train_start)
    for epoch, rank in ((0, 0), (0, 0), (3, 0), (3, 0), (4, 0), (0, 1)):
        trainer = make_trainer("nnUNetTrainer_5epochs_3iters_seed0")
        if epoch:  # a training that continues has loaded its checkpoint
            trainer.initialize()
        trainer.current_epoch, trainer.local_rank = epoch, rank
        trainer.on_train_start()
    assert drawn[0] == drawn[1] and drawn[2] == drawn[3]
    assert len(set(drawn)) == 4


def test_a_budget_class_is_the_same_at_each_look_up_and_pickles():
    trainer = find_trainer("nnUNetTrainerLightMUNet_3epochs")
    assert find_trainer("nnUNetTrainerLightMUNet_3epochs") is trainer
    data = pickle.dumps(trainer)
    budgets._made.clear()  # as in a fresh process
    assert pickle.loads(data).__name__ == trainer.__name__


@pytest.mark.parametrize(
    "name",
    ["nnUNetTrainerDA5", "nnUNetTrainerLightM", "nnUNetTrainerLightMUNet_0epochs", "nnUNetTrainerLightMUNet_epochs",
     "nnUNetTrainerLightMUNet_5epochs_", "nnUNetTrainerOther_5epochs", "nnUNetTrainerLightMUNet_5iters", ""],
)  # fmt: skip
def test_other_names_are_not_ours(name):
    assert find_trainer(name) is None
    with pytest.raises(AttributeError):
        getattr(budgets, name)


def test_recipe_with_adamw_alone(make_trainer):
    trainer = make_trainer("nnUNetTrainerLightMUNetAdamW")
    trainer.initialize()
    assert isinstance(trainer.network, LightMUNet)
    assert (trainer.num_epochs, trainer.enable_deep_supervision, trainer.save_every) == (100, False, 1)
    optimizer = trainer.optimizer
    assert type(optimizer) is torch.optim.AdamW
    assert [group["weight_decay"] for group in optimizer.param_groups] == [1e-2, 0.0]
    assert {group["lr"] for group in optimizer.param_groups} == {1e-3}
    decayed = {id(p) for p in optimizer.param_groups[0]["params"]}
    names = {name for name, p in trainer.network.named_parameters() if id(p) not in decayed}
    assert {name.rsplit(".", 1)[-1] for name in names} == {"bias", "scale", "weight", "A_log", "D"}
    assert all("norm" in name for name in names if name.endswith("weight"))
    assert sum(len(group["params"]) for group in optimizer.param_groups) == len(list(trainer.network.parameters()))


def test_paper_recipe(make_trainer):
    trainer = make_trainer("nnUNetTrainerLightMUNetPaperSGD_100epochs")
    trainer.initialize()
    (group,) = trainer.optimizer.param_groups
    assert type(trainer.optimizer) is torch.optim.SGD
    assert (group["lr"], group["momentum"], group["weight_decay"], trainer.num_epochs) == (1e-4, 0, 0, 100)
    trainer.lr_scheduler.step(50)
    assert group["lr"] == pytest.approx(1e-4 * 0.5**0.9)


@pytest.mark.parametrize("name", sorted(name for name in TRAINERS if "LightMUNet" in name))
def test_train_step_and_validation_step(make_trainer, name):
    trainer = make_trainer(name)
    trainer.initialize()
    trainer.set_deep_supervision_enabled(True)
    *_, parameter = trainer.network.parameters()
    before = parameter.detach().clone()
    torch.manual_seed(0)
    batch = {"data": torch.randn(2, 1, 8, 16, 16), "target": torch.randint(0, 3, (2, 1, 8, 16, 16)).float()}
    assert math.isfinite(trainer.train_step(batch)["loss"])  # CE minus Dice: of either sign
    assert all(p.grad is not None for p in trainer.network.parameters())
    assert (before != parameter).any()
    trainer.network.eval()
    with torch.no_grad():
        assert trainer.validation_step(batch)["tp_hard"].shape == (2,)
    trainer._save_debug_information()


def test_network_for_prediction_has_the_strides_of_the_plans():
    manager = PlansManager(make_plans())
    network = find_trainer("nnUNetTrainerLightMUNet_2epochs").build_network_architecture(
        manager, manager.get_configuration("3d_fullres"), 1, 3, enable_deep_supervision=False
    )
    assert [list(block.stride) for block in network.encoder] == STRIDES[1:]
    assert network(torch.randn(1, 1, 8, 16, 16)).shape == (1, 3, 8, 16, 16)
