"""Trainers whose network and loss torch.compile traces, nnU-Net's default on CUDA; here PyTorch runs the graphs."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from nnunetv2.run.run_training import maybe_load_checkpoint
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer
from torch._dynamo import OptimizedModule

from nnunetv2_lightm.trainers.safeguards import NotFiniteError

pytestmark = pytest.mark.slow


@pytest.fixture
def compiling(monkeypatch):
    monkeypatch.setattr(nnUNetTrainer, "_do_i_compile", lambda self: True)
    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend="eager"))
    yield
    torch._dynamo.reset()


def batch_of(trainer) -> dict:
    generator = torch.Generator().manual_seed(0)
    patch = trainer.configuration_manager.patch_size
    target = torch.randint(0, 3, (2, 1, *patch), generator=generator).float()
    scales = trainer._get_deep_supervision_scales()
    if scales is not None:
        sizes = [[round(length * share) for length, share in zip(patch, scale, strict=True)] for scale in scales]
        target = [torch.nn.functional.interpolate(target, size) for size in sizes]
    return {"data": torch.randn(2, 1, *patch, generator=generator), "target": target, "keys": ["a", "b"]}


def step(trainer) -> float:
    trainer.network.train()
    return float(trainer.train_step(batch_of(trainer))["loss"])


@pytest.mark.parametrize("name", ["nnUNetTrainerLightMUNet", "nnUNetTrainerPlainMuon", "nnUNetTrainerUMambaBot"])
def test_a_compiled_training(make_trainer, compiling, monkeypatch, name):
    budget = f"{name}_3epochs_1iters_seed0"
    plain = make_trainer(budget, "2d")
    with monkeypatch.context() as patch:
        patch.setattr(nnUNetTrainer, "_do_i_compile", lambda self: False)
        plain.initialize()
        expected = [step(plain), step(plain)]

    trainer = make_trainer(budget, "2d")
    trainer.initialize()
    assert isinstance(trainer.network, OptimizedModule)
    sizes = [[len(group["params"]) for group in t.optimizer.param_groups] for t in (trainer, plain)]
    assert sizes[0] == sizes[1], "the optimiser takes the layers by their names"
    assert step(trainer) == pytest.approx(expected[0], abs=1e-4)
    trainer.network.eval()
    with torch.no_grad():
        assert trainer.validation_step(batch_of(trainer))["tp_hard"].shape == (2,)

    checkpoint = Path(trainer.output_folder, "checkpoint_latest.pth")
    trainer.save_checkpoint(str(checkpoint))
    names = torch.load(checkpoint, weights_only=False)["network_weights"].keys()
    assert names == plain.network.state_dict().keys()
    continued = make_trainer(budget, "2d", continue_training=True)
    maybe_load_checkpoint(continued, continue_training=True, validation_only=False)
    assert continued.current_epoch == 1 and isinstance(continued.network, OptimizedModule)
    assert step(continued) == pytest.approx(expected[1], abs=1e-3)
    assert_nan_is_refused(continued, checkpoint, monkeypatch)


def assert_nan_is_refused(trainer, checkpoint: Path, monkeypatch) -> None:
    """In a batch, in an image to segment, and in weights to save."""
    monkeypatch.setattr(trainer, "_describe_case", lambda case: f"case {case}")
    batch = batch_of(trainer)
    batch["data"][1, 0, 3, 4] = np.nan
    with pytest.raises(NotFiniteError, match="case b"):
        trainer.train_step(batch)
    trainer.network.eval()
    with torch.no_grad(), pytest.raises(NotFiniteError, match="1 of the 768 values"):
        trainer.network(batch["data"])
    with torch.no_grad():
        next(trainer.network.parameters()).fill_(np.nan)
    sound = checkpoint.read_bytes()
    with pytest.raises(NotFiniteError, match="1 parameters are NaN"):
        trainer.save_checkpoint(str(checkpoint))
    assert checkpoint.read_bytes() == sound
