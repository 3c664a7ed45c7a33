"""MONAI's networks as baselines: true parameter counts, any size, gradients; what happens without MONAI."""

from __future__ import annotations

import sys
from types import ModuleType

import pytest
import torch
from torch import nn

from nnunetv2_lightm.networks import segresnet, swin_unetr, unetr
from nnunetv2_lightm.networks.monai_networks import PaddedNetwork, padded_size

from .small import SMALL

pytest.importorskip("monai", reason="pip install 'nnunetv2-lightm[baselines]'")

EACH = pytest.mark.parametrize("builder", [segresnet, unetr, swin_unetr], ids=lambda builder: builder.__name__)


@pytest.mark.parametrize(
    ("builder", "volume", "image"),
    [(segresnet, 18_796_035, 6_299_106), (unetr, 93_011_187, 88_298_754), (swin_unetr, 62_186_757, 25_139_324)],
    ids=lambda value: getattr(value, "__name__", None),
)
def test_parameter_count_at_the_size_of_the_papers_table(builder, volume, image, monkeypatch):
    # MONAI's initialisations read numbers out of tensors, which meta tensors have not; the slow ones need not run.
    monkeypatch.setattr(nn.init, "trunc_normal_", lambda tensor, *_, **__: tensor)
    for function in ("kaiming_uniform_", "uniform_", "normal_"):
        monkeypatch.setattr(nn.init, function, lambda tensor, *_, **__: tensor)
    for expected, network in (
        (volume, builder(1, 3, (128, 128, 128))),
        (image, builder(3, 2, (512, 512))),
    ):
        assert sum(p.numel() for p in network.parameters()) == expected


@EACH
@pytest.mark.parametrize("size", [(33, 10), (5, 17, 9)], ids=str)
def test_any_size_and_every_parameter_gets_a_gradient(builder, size):
    """UNETR's network comes without MONAI's dead parameters, at which distributed training would stop."""
    network = builder(2, 3, size, **SMALL[builder])
    logits = network(torch.randn(1, 2, *size))
    assert logits.shape == (1, 3, *size)
    logits.square().mean().backward()
    without = [name for name, p in network.named_parameters() if p.grad is None or not p.grad.abs().max() > 0]
    assert not without
    builder(2, 3, size, **SMALL[builder]).load_state_dict(network.state_dict(), strict=True)


@EACH
def test_smallest_patch_trains(builder):
    """The lowest resolution would have a single voxel, which an instance norm refuses."""
    network = builder(1, 2, (16, 16), **SMALL[builder]).train()
    assert network(torch.randn(1, 1, 16, 16)).shape == (1, 2, 16, 16)


@pytest.mark.parametrize(
    ("size", "multiple", "min_cells", "padded"),
    [
        ((128, 128, 128), 32, 2, (128, 128, 128)),
        ((40, 56, 33), 16, 1, (48, 64, 48)),
        ((1, 32), 32, 1, (32, 32)),
        ((1, 32), 32, 2, (32, 64)),
        ((32, 33), 32, 2, (32, 64)),
        ((33, 32), 32, 2, (64, 32)),
        ((20, 28, 1), 32, 2, (32, 32, 64)),
    ],
)
def test_padded_size(size, multiple, min_cells, padded):
    assert padded_size(size, multiple, min_cells) == padded


def test_image_is_padded_with_zeros_on_both_sides_and_cropped_back():
    seen = []

    class Identity(nn.Module):
        def forward(self, x):
            seen.append(x)
            return x

    image = 1 + torch.rand(2, 1, 5, 9, 8)
    torch.testing.assert_close(PaddedNetwork(Identity(), image.shape[1], image.ndim - 2, multiple=4)(image), image)
    (padded,) = seen
    assert padded.shape == (2, 1, 8, 12, 8)
    torch.testing.assert_close(padded[:, :, 1:6, 1:10], image)
    assert padded.sum() == pytest.approx(image.sum().item(), rel=1e-5)


def test_image_that_fits_is_not_copied():
    image = torch.rand(1, 1, 8, 12)
    assert (
        PaddedNetwork(nn.Identity(), image.shape[1], image.ndim - 2, multiple=4)(image).data_ptr() == image.data_ptr()
    )


def test_unetr_says_which_size_it_was_built_for():
    network = unetr(1, 2, (30, 30), **SMALL[unetr])
    assert network(torch.rand(1, 1, 32, 17)).shape == (1, 2, 32, 17)
    message = r"UNETR was built for images of \(32, 32\) .* this one has \(48, 30\).* patch_size=\(48, 30\)"
    with pytest.raises(ValueError, match=message):
        network(torch.rand(1, 1, 48, 30))


@EACH
def test_without_monai_the_error_has_the_command_to_mend_it(builder, monkeypatch):
    monkeypatch.setitem(sys.modules, "monai", None)
    for name in [name for name in sys.modules if name.startswith("monai.")]:
        monkeypatch.delitem(sys.modules, name)
    with pytest.raises(ImportError, match=r"needs monai, which .* pip install \"monai>=1\.5"):
        builder(1, 2, (32, 32))


def test_what_monai_itself_lacks_is_not_taken_for_monai(monkeypatch):
    class Broken(ModuleType):
        def __getattr__(self, name):
            raise ModuleNotFoundError("No module named 'einops'", name="einops")

    monkeypatch.setitem(sys.modules, "monai.networks", Broken("monai.networks"))
    monkeypatch.delitem(sys.modules, "monai.networks.nets", raising=False)
    with pytest.raises(
        ImportError, match=r"monai, which is installed but cannot be imported \(No module named 'einops'\)"
    ):
        segresnet(1, 2, (32, 32))
