"""The study's variants of LightMUNet: each differs in what it says, and trains."""

from __future__ import annotations

import math
from collections import Counter

import pytest
import torch

from benchmarks.accuracy import comparisons, study

VARIANTS = [name.removeprefix("nnUNetTrainerLightMUNet") for name in comparisons.VARIANTS]
STEM = 32  # features of the stem


@pytest.fixture
def initialized(make_trainer, monkeypatch):
    """A variant with a budget, or what it is a variant of ("AdamW")."""
    monkeypatch.setenv(study.EXT_TRAINER, str(study.VARIANT_TRAINERS))

    def make(name: str, configuration="3d_fullres"):
        trainer = make_trainer(f"nnUNetTrainerLightMUNet{name}_2epochs_3iters", configuration)
        trainer.initialize()
        return trainer

    return make


@pytest.mark.parametrize("name", VARIANTS)
@pytest.mark.parametrize(("configuration", "size"), [("3d_fullres", (8, 16, 16)), ("2d", (16, 24))])
def test_every_parameter_gets_a_gradient(initialized, name, configuration, size):
    trainer = initialized(name, configuration)
    assert (trainer.num_epochs, trainer.num_iterations_per_epoch) == (2, 3)
    outputs = trainer.network(torch.randn(2, 1, *size))
    outputs = outputs if isinstance(outputs, (list, tuple)) else [outputs]
    assert outputs[0].shape == (2, 3, *size)
    assert (len(outputs) > 1) == (name == "DeepSupervision")
    sum((output**2).mean() for output in outputs).backward()
    assert all(parameter.grad is not None for parameter in trainer.network.parameters())


def test_each_differs_from_what_was_the_default_in_one_thing(initialized):
    default = initialized("AdamW")

    def parameters(trainer) -> int:
        return sum(parameter.numel() for parameter in trainer.network.parameters())

    def recipe(trainer) -> tuple:
        groups = [(group["lr"], group["weight_decay"]) for group in trainer.optimizer.param_groups]
        return type(trainer.optimizer), groups

    trainers = {name: initialized(name) for name in VARIANTS}
    more = {name: parameters(trainer) - parameters(default) for name, trainer in trainers.items()}
    depthwise, mix, scale = 28 * STEM, STEM * (STEM + 1), STEM
    assert more["FullSkip"] == depthwise + mix + scale
    assert {name for name, count in more.items() if count == 0} == {"LR3e3", "LR3e4", "SGD"}
    assert Counter(recipe(trainer) == recipe(default) for trainer in trainers.values()) == {True: 4, False: 3}
    assert recipe(trainers["LR3e3"]) == (torch.optim.AdamW, [(3e-3, 1e-2), (3e-3, 0.0)])
    assert recipe(trainers["LR3e4"]) == (torch.optim.AdamW, [(3e-4, 1e-2), (3e-4, 0.0)])
    (group,) = trainers["SGD"].optimizer.param_groups
    assert type(trainers["SGD"].optimizer) is torch.optim.SGD
    assert (group["lr"], group["momentum"], group["nesterov"], group["weight_decay"]) == (1e-2, 0.99, True, 3e-5)
    assert trainers["Features48"].network.stem.pointwise.out_features == 48


SAME_RECIPE = [*comparisons.SAME_RECIPE, comparisons.RESENC_M, *comparisons.NEW_ABLATIONS]


@pytest.mark.parametrize("name", SAME_RECIPE)
def test_the_recipe_on_other_networks_trains(make_trainer, monkeypatch, name):
    if "SegResNet" in name:
        pytest.importorskip("monai", reason="pip install 'nnunetv2-lightm[baselines]'")
    monkeypatch.setenv(study.EXT_TRAINER, str(study.VARIANT_TRAINERS))
    trainer = make_trainer(f"{name}_2epochs_3iters")
    trainer.initialize()
    image = torch.randn(2, 1, 8, 16, 16)
    target = torch.randint(0, 3, image.shape).float()
    if trainer.enable_deep_supervision:
        scales = trainer._get_deep_supervision_scales()
        target = [torch.nn.functional.interpolate(target, scale_factor=tuple(scale)) for scale in scales]
    matrices = [parameter for parameter in trainer.network.parameters() if parameter.ndim > 1]
    before = [parameter.detach().clone() for parameter in matrices]
    assert math.isfinite(trainer.train_step({"data": image, "target": target})["loss"])  # CE minus Dice: of either sign
    still = sum(torch.equal(a, b) for a, b in zip(before, matrices))
    assert still <= trainer.enable_deep_supervision  # nnU-Net gives the lowest head's loss no weight


def test_the_ablations_of_the_older_recipe_have_the_networks_of_the_newer(make_trainer, monkeypatch):
    monkeypatch.setenv(study.EXT_TRAINER, str(study.VARIANT_TRAINERS))
    for older, newer in zip(comparisons.ABLATIONS, comparisons.NEW_ABLATIONS):
        networks = []
        for name in (older, newer):
            trainer = make_trainer(f"{name}_2epochs_3iters")
            trainer.initialize()
            networks.append({name: weight.shape for name, weight in trainer.network.state_dict().items()})
            assert (type(trainer.optimizer) is torch.optim.AdamW) == (name == older)
        assert networks[0] == networks[1]


def test_what_the_recipe_trains_there(make_trainer, monkeypatch):
    """Muon has most of each network, and the ablations start near the identity as the paper's network does."""
    monkeypatch.setenv(study.EXT_TRAINER, str(study.VARIANT_TRAINERS))
    for name in [comparisons.NEW, *SAME_RECIPE]:
        if "SegResNet" in name or name == comparisons.RESENC_M:
            continue
        trainer = make_trainer(f"{name}_2epochs_3iters")
        trainer.initialize()
        sizes = [sum(p.numel() for p in group["params"]) for group in trainer.optimizer.param_groups if group["muon"]]
        total = sum(p.numel() for p in trainer.network.parameters())
        assert sum(sizes) > 0.75 * total, name
        if "LightMUNet" in name and "Released" not in name:
            assert trainer.network.bottleneck[0].projection.weight.detach().diagonal().mean() > 0.8


def test_resenc_has_the_presets_blocks_on_the_stages_of_the_plans(make_trainer, monkeypatch):
    monkeypatch.setenv(study.EXT_TRAINER, str(study.VARIANT_TRAINERS))
    trainer = make_trainer(f"{comparisons.RESENC_M}_2epochs_3iters")
    trainer.initialize()
    assert [len(stage.blocks) for stage in trainer.network.encoder.stages] == [1, 3, 4, 6]
    assert type(trainer.optimizer) is torch.optim.SGD and trainer.optimizer.param_groups[0]["momentum"] == 0.99
