"""`-pretrained_weights`: everything but the heads is taken over, whatever the classes of the two networks."""

from __future__ import annotations

import pytest
import torch
from nnunetv2.run.load_pretrained_weights import load_pretrained_weights
from nnunetv2.run.run_training import get_trainer_from_args, maybe_load_checkpoint

from nnunetv2_lightm.networks import LightMUNet

from ..nnunet_in_process import TRAINER

pytestmark = pytest.mark.slow

CUBES, MORE = "Dataset501_Cubes", "Dataset502_MoreClasses"


@pytest.fixture(scope="module")
def pretrained(nnunet):
    """A checkpoint of a network with three classes, and a data set with four."""
    nnunet.make_dataset(CUBES, "3d_fullres")
    labels = {"background": 0, "organ": 1, "lesion": 2, "vessel": 3}
    nnunet.make_dataset(MORE, "3d_fullres", labels=labels)
    return nnunet.train(CUBES, "3d_fullres") / "checkpoint_final.pth"


@pytest.mark.parametrize("dataset", [CUBES, MORE])
def test_pretrained_weights(nnunet, pretrained, dataset):
    """Loaded by the function that `nnUNetv2_train` calls, before training changes them."""
    source = torch.load(pretrained, weights_only=False)["network_weights"]
    trainer = get_trainer_from_args(dataset, "3d_fullres", 0, TRAINER, device=torch.device("cpu"))
    maybe_load_checkpoint(trainer, False, False, str(pretrained))
    loaded = trainer.network.state_dict()
    heads = {name for name in loaded if ".seg_layers." in name}
    assert len(heads) == 4
    assert all(torch.equal(weight, source[name]) for name, weight in loaded.items() if name not in heads)
    assert len(loaded["decoder.seg_layers.0.pointwise.bias"]) == {CUBES: 3, MORE: 4}[dataset]


def test_command_with_pretrained_weights(nnunet, pretrained, capsys):
    fold = nnunet.train(MORE, "3d_fullres", "-pretrained_weights", pretrained)
    assert "Loading pretrained weights from file" in capsys.readouterr().out
    assert (fold / "validation" / "summary.json").is_file()


@pytest.mark.parametrize("source_has_lower_heads", [False, True])
def test_deep_supervision_is_no_hindrance(tmp_path, source_has_lower_heads):
    small = {"spatial_dims": 2, "features": 8, "d_state": 4}
    source = LightMUNet(1, 2, deep_supervision=source_has_lower_heads, **small)
    target = LightMUNet(1, 5, deep_supervision=not source_has_lower_heads, **small)
    torch.save({"network_weights": source.state_dict()}, tmp_path / "checkpoint.pth")
    load_pretrained_weights(target, tmp_path / "checkpoint.pth")
    torch.testing.assert_close(target.bottleneck.state_dict(), source.bottleneck.state_dict())
