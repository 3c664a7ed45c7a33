"""`-pretrained_weights` of a network with other classes: which of our networks take them."""

from __future__ import annotations

import pytest
import torch
from nnunetv2.run.load_pretrained_weights import load_pretrained_weights
from nnunetv2.utilities.plans_handling.plans_handler import PlansManager
from torch import nn

from nnunetv2_lightm.trainers import find_trainer

from .conftest import make_plans

TAKE_THEM = (
    *(f"LightMUNet{ablation}" for ablation in ("", "Conv3", "SelfAttention", "NoAdjustment", "NoResidual")),
    *("UMambaBot", "UMambaEnc", "PlainMuon"),
)


def network(name: str, classes: int) -> nn.Module:
    manager = PlansManager(make_plans())
    trainer = find_trainer(f"nnUNetTrainer{name}")
    supervised = trainer.deep_supervision
    return trainer.build_network_architecture(manager, manager.get_configuration("2d"), 1, classes, supervised)


@pytest.fixture
def networks(tmp_path):
    """By name: a network of three classes, its checkpoint, and a network of five."""

    def make(name: str):
        source, checkpoint = network(name, 3), tmp_path / "checkpoint.pth"
        with torch.no_grad():
            for parameter in source.parameters():
                parameter.add_(0.1)  # some begin the same in each network
        torch.save({"network_weights": source.state_dict()}, checkpoint)
        return source, checkpoint, network(name, 5)

    return make


@pytest.mark.parametrize("name", TAKE_THEM)
def test_all_but_the_heads_is_taken_over(name, networks):
    source, checkpoint, target = networks(name)
    before = {key: weight.clone() for key, weight in target.state_dict().items()}
    load_pretrained_weights(target, checkpoint)
    given = source.state_dict()
    heads = {key for key in before if ".seg_layers." in key}
    assert heads
    for key, weight in target.state_dict().items():
        assert torch.equal(weight, before[key] if key in heads else given[key]), key


@pytest.mark.parametrize("name", ["LightMUNetReleased", "LightMUNetReleasedFirst", "SegResNet"])
def test_a_head_of_another_name_is_refused(name, networks):
    if name == "SegResNet":
        pytest.importorskip("monai")
    _, checkpoint, target = networks(name)
    before = {key: weight.clone() for key, weight in target.state_dict().items()}
    with pytest.raises(AssertionError, match="conv_final"):
        load_pretrained_weights(target, checkpoint)
    assert all(torch.equal(weight, before[key]) for key, weight in target.state_dict().items())
