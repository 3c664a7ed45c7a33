"""What CUDA's autocast really does, without a GPU: fake CUDA tensors have CUDA's dtypes and no values."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode

from nnunetv2_lightm import LightMUNet


def dtypes(device: str, dtype: torch.dtype, spatial_dims: int, loss: nn.Module) -> dict[str, tuple]:
    """Dtypes of inputs and output of each module of the network, and of nnU-Net's loss, under the device's autocast."""
    seen = {}

    def note(name: str) -> Callable:
        def hook(_: nn.Module, inputs: tuple, output: object) -> None:
            # Lists of modules pass on several maps.
            outputs = output if isinstance(output, (list, tuple)) else [output]
            seen[name] = tuple(x.dtype for x in (*inputs, *outputs) if isinstance(x, Tensor))

        return hook

    with FakeTensorMode() if device == "cuda" else nullcontext(), torch.device(device):
        network = LightMUNet(1, 3, spatial_dims=spatial_dims, features=8)
        for name, module in network.named_modules():
            module.register_forward_hook(note(name))
        size = (16,) * spatial_dims
        # torch.autocast itself does nothing where there is no GPU.
        torch.set_autocast_dtype(device, dtype)
        torch.set_autocast_enabled(device, True)
        try:
            logits = network(torch.randn(2, 1, *size))
            seen["loss"] = loss(logits, torch.zeros(2, 1, *size)).dtype
        finally:
            torch.set_autocast_enabled(device, False)
    return seen
