"""Images that a network was not built for: one sentence, before anything is computed, on every backend."""

from __future__ import annotations

import pytest
import torch

from nnunetv2_lightm.networks import LightMUNet, LightMUNetReleased, UMambaBot, UMambaEnc, segresnet, swin_unetr, unetr
from nnunetv2_lightm.ops import backend_table
from nnunetv2_lightm.ops.backends import ENVIRONMENT_VARIABLE

from .small import SMALL

BACKENDS = [status.name for status in backend_table(("cpu",)) if status.usable and status.considered]


def umamba(kind, dims):
    conv = {2: torch.nn.Conv2d, 3: torch.nn.Conv3d}[dims]
    norm = {2: torch.nn.InstanceNorm2d, 3: torch.nn.InstanceNorm3d}[dims]
    stages = {"n_stages": 2, "features_per_stage": (4, 8), "kernel_sizes": 3, "strides": (1, 2)}
    blocks = {"n_blocks_per_stage": 1, "n_conv_per_stage_decoder": 1, "conv_bias": True}
    kinds = {"conv_op": conv, "norm_op": norm, "norm_op_kwargs": {}, "nonlin": torch.nn.LeakyReLU}
    return kind(input_channels=2, num_classes=2, **stages, **blocks, **kinds)


NETWORKS = {
    "LightMUNet": lambda dims: LightMUNet(2, 2, spatial_dims=dims, features=16, d_state=2),
    "LightMUNetReleased": lambda dims: LightMUNetReleased(2, 2, spatial_dims=dims, features=8),
    "UMambaBot": lambda dims: umamba(UMambaBot, dims),
    "UMambaEnc": lambda dims: umamba(UMambaEnc, dims),
    "segresnet": lambda dims: segresnet(2, 2, (16,) * dims, **SMALL[segresnet]),
    "unetr": lambda dims: unetr(2, 2, (16,) * dims, **SMALL[unetr]),
    "swin_unetr": lambda dims: swin_unetr(2, 2, (32,) * dims, **SMALL[swin_unetr]),
}


def wrong_images(dims):
    size = (16,) * dims
    return {
        "a modality is missing": (torch.randn(1, 1, *size), "1 channel; this network was built for 2 channels"),
        "a modality too many": (torch.randn(1, 3, *size), "3 channels; this network was built for 2 channels"),
        "channels last": (torch.randn(1, *size, 2), "16 channels; this network was built for 2 channels"),
        "no batch": (torch.randn(2, *size), rf"takes {dims + 2} axes, .*image\[None\]"),
        "no channels": (torch.randn(*size), f"takes {dims + 2} axes"),
        "an axis more": (torch.randn(1, 2, *size, 1), f"takes {dims + 2} axes"),
        "empty batch": (torch.randn(0, 2, *size), "axis of size 0; expected at least 1"),
        "empty axis": (torch.randn(1, 2, *size[1:], 0), "axis of size 0; expected at least 1"),
        "integers": (torch.ones(1, 2, *size, dtype=torch.int16), r"torch.int16; expected floating-point"),
        "complex": (torch.ones(1, 2, *size, dtype=torch.complex64), r"torch.complex64; expected floating-point"),
    }


@pytest.mark.parametrize("dims", [2, 3])
@pytest.mark.parametrize("name", NETWORKS)
def test_the_sentence(name, dims, monkeypatch):
    network = NETWORKS[name](dims).eval()
    for module in network.modules():
        module.register_forward_hook(lambda module, *_: pytest.fail(f"{type(module).__name__} has computed"))
    for backend in BACKENDS:
        monkeypatch.setenv(ENVIRONMENT_VARIABLE, backend)
        for image, message in wrong_images(dims).values():
            with torch.no_grad(), pytest.raises(ValueError, match=message):
                network(image)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float16, torch.bfloat16], ids=str)
def test_other_floats_are_computed_in_the_networks_dtype(dtype, monkeypatch):
    network = NETWORKS["LightMUNet"](2).eval()
    image = torch.randn(1, 2, 8, 8).to(dtype)
    for backend in BACKENDS:
        monkeypatch.setenv(ENVIRONMENT_VARIABLE, backend)
        with torch.no_grad():
            assert torch.equal(network(image), network(image.float()))


class Tuples(torch.Tensor):
    """A tensor that takes the size of a new one as one tuple, like MONAI's MetaTensor."""

    def new_empty(self, size, dtype=None, device=None, requires_grad=False):
        assert isinstance(size, tuple)
        return super().new_empty(size, dtype=dtype, device=device, requires_grad=requires_grad)

    def new_zeros(self, size, dtype=None, device=None, requires_grad=False):
        assert isinstance(size, tuple)
        return super().new_zeros(size, dtype=dtype, device=device, requires_grad=requires_grad)


@pytest.mark.parametrize("grad", [False, True])
@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("name", ["LightMUNet", "LightMUNetReleased"])
def test_tensors_of_other_libraries(name, backend, grad, monkeypatch):
    monkeypatch.setenv(ENVIRONMENT_VARIABLE, backend)
    torch.manual_seed(0)
    network, image = NETWORKS[name](2), torch.randn(1, 2, 16, 16)
    with torch.set_grad_enabled(grad):
        out = network(image.as_subclass(Tuples))
        torch.testing.assert_close(out.as_subclass(torch.Tensor), network(image))
        if grad:
            out.square().mean().backward()
