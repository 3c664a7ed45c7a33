"""Recipes: which parameters the optimisers get, and from which weights a training starts."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from nnunetv2_lightm.networks import LightMUNet, LightMUNetReleased
from nnunetv2_lightm.networks.initialisation import initialise_near_identity
from nnunetv2_lightm.optim import MuonAdamW
from nnunetv2_lightm.trainers.recipes import LIGHTM_UNET_MUON, MuonGroups

MUON = "nnUNetTrainerLightMUNet"


def names_by_group(trainer) -> list[set[str]]:
    """AdamW's parameters with weight decay, those without, and Muon's."""
    names = {id(p): name for name, p in trainer.network.named_parameters()}
    groups = trainer.optimizer.param_groups
    assert [(group["weight_decay"], group["muon"]) for group in groups] == [(1e-2, False), (0.0, False), (1e-2, True)]
    found = [{names[id(p)] for p in group["params"]} for group in groups]
    assert sum(map(len, found)) == len(names) == len(set.union(*found)), "each parameter is in one group"
    return found


def endings(names: set[str], parts: int = 2) -> set[str]:
    return {".".join(name.split(".")[-parts:]) for name in names}


@pytest.mark.parametrize("configuration", ["3d_fullres", "2d"])
def test_muon_trains_the_matrices_of_lightm_unet(make_trainer, configuration):
    trainer = make_trainer(f"{MUON}_20epochs", configuration)
    trainer.initialize()
    assert type(trainer.optimizer) is MuonAdamW
    decayed, free, matrices = names_by_group(trainer)
    names = ("in_proj", "gate_proj", "out_proj", "projection", "halve")
    assert endings(matrices) == {f"{name}.weight" for name in names}
    assert endings(decayed) == {f"{n}.weight" for n in ("x_proj", "dt_proj", "dwconv", "depthwise", "pointwise")}
    assert {name for name in decayed if "wise" in name} == {
        f"{part}.{layer}.weight" for part in ("stem", "decoder.seg_layers.0") for layer in ("depthwise", "pointwise")
    }
    assert {name.split(".")[-1] for name in free} == {"bias", "weight", "scale", "A_log", "D"}
    muon = sum(p.numel() for p in trainer.optimizer.param_groups[2]["params"])
    assert muon == 2_193_408  # of the 2.5 million


def test_all_groups_follow_the_poly_schedule_and_muon_has_twice_the_rate(make_trainer):
    trainer = make_trainer(f"{MUON}_20epochs")
    trainer.initialize()
    trainer.lr_scheduler.step(10)
    assert [group["lr"] for group in trainer.optimizer.param_groups] == [pytest.approx(1e-3 * 0.5**0.9)] * 3
    assert {group["muon_lr_factor"] for group in trainer.optimizer.param_groups} == {2.0}


def test_a_compiled_network_has_the_same_groups():
    network = LightMUNet(1, 3, spatial_dims=2, features=8)
    plain, compiled = (
        [[id(p) for p in group["params"]] for group in LIGHTM_UNET_MUON.parameter_groups(n, 1e-2)]
        for n in (network, torch.compile(network))
    )
    assert plain == compiled


def test_muon_trains_the_kernels_of_nnunets_own_network(make_trainer):
    trainer = make_trainer("nnUNetTrainerPlainMuon_20epochs")
    assert trainer.enable_deep_supervision
    trainer.initialize()
    decayed, free, matrices = names_by_group(trainer)
    heads = {f"decoder.seg_layers.{level}.weight" for level in range(3)}
    assert decayed == {"encoder.stages.0.0.convs.0.conv.weight", *heads}
    assert {name.split(".")[-1] for name in matrices} == {"weight"}
    assert all(trainer.network.get_parameter(name).ndim == 5 for name in matrices)
    assert any("transpconvs" in name for name in matrices)
    stock = make_trainer("nnUNetTrainer_20epochs")
    stock.initialize()
    shapes = {name: weight.shape for name, weight in stock.network.state_dict().items()}
    assert {name: weight.shape for name, weight in trainer.network.state_dict().items()} == shapes


def test_a_recipe_for_another_network_is_refused():
    with pytest.raises(ValueError, match=r"no layer of LightMUNetReleased matches .*stem.*the recipe is for another"):
        LIGHTM_UNET_MUON.parameter_groups(LightMUNetReleased(1, 2, spatial_dims=2, features=8), 1e-2)


def test_depthwise_kernels_are_no_matrices():
    network = nn.Sequential(nn.Conv2d(4, 4, 3, groups=4), nn.Conv2d(4, 8, 3), nn.Linear(8, 8))
    *_, muon = MuonGroups(())(network, 1e-2)
    assert [p.shape for p in muon["params"]] == [(8, 4, 3, 3), (8, 8)]


class TestInitialisation:
    @pytest.fixture(params=[2, 3])
    def networks(self, request) -> tuple[LightMUNet, LightMUNet]:
        """As PyTorch initialises it, and near the identity."""
        plain, ours = (LightMUNet(1, 3, spatial_dims=request.param, features=8) for _ in range(2))
        ours.load_state_dict(plain.state_dict())
        initialise_near_identity(ours)
        return plain, ours

    def test_projections_are_near_the_identity(self, networks):
        blocks = networks[1].encoder
        narrow, wide = (layer.projection for layer in (blocks[1].layers[0], blocks[1].layers[1]))
        for projection, copies in ((narrow, 1), (wide, 2)):
            inputs = projection.in_features
            assert projection.weight.shape == (copies * inputs, inputs)
            noise = projection.weight - torch.eye(inputs).repeat(copies, 1)
            assert float(noise.std()) == pytest.approx(0.5 / inputs**0.5, rel=0.2)
            assert not projection.bias.any()

    def test_pointwise_layers_keep_the_variance(self, networks):
        layer = networks[1].decoder.blocks[0].halve
        assert float(layer.weight.std()) == pytest.approx(layer.in_features**-0.5, rel=0.1)
        assert not layer.bias.any() and not networks[1].stem.pointwise.bias.any()

    def test_all_else_stays(self, networks):
        plain, ours = (network.state_dict() for network in networks)
        changed = {name for name in plain if not torch.equal(plain[name], ours[name])}
        assert endings(changed) == {
            "projection.weight",
            "projection.bias",
            "halve.weight",
            "halve.bias",
            "pointwise.weight",
            "pointwise.bias",
        }
        assert {name for name in changed if "pointwise" in name} == {"stem.pointwise.weight", "stem.pointwise.bias"}

    def test_a_seed_sets_it_and_adamws_recipe_has_none(self, make_trainer):
        def projection(name: str) -> torch.Tensor:
            trainer = make_trainer(name)
            trainer.initialize()
            return trainer.network.bottleneck[0].projection.weight.detach()

        first, again, other = (projection(f"{MUON}_1epochs_1iters_seed{seed}") for seed in (0, 0, 1))
        assert torch.equal(first, again) and not torch.equal(first, other)
        assert first.diagonal().mean() > 0.9
        assert projection("nnUNetTrainerLightMUNetAdamW_1epochs_1iters_seed0").diagonal().mean() < 0.1
