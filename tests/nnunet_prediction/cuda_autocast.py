"""CUDA's autocast on a CPU, and what CUDA's really does, without a GPU.

The CPU's autocast casts other operators than CUDA's. ``cuda_rules`` makes them the same for the operators of our
network and of nnU-Net's loss, so that a CPU computes with the dtypes, and so with the overflows, of a GPU. That they
are the same is seen with fake CUDA tensors, which have CUDA's dtypes and no values.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode

from nnunetv2_lightm import LightMUNet

ATEN = torch.ops.aten
# CUDA computes these in float32, a CPU in the dtype that comes in.
FLOAT32 = (
    ATEN.layer_norm.default,
    ATEN.upsample_bilinear2d.vec,
    ATEN.upsample_trilinear3d.vec,
    ATEN.softmax.int,
    ATEN.cross_entropy_loss.default,
)
# A CPU computes these in float32, CUDA in the dtype that comes in.
UNCHANGED = (ATEN.max_pool3d.default,)


@contextmanager
def cuda_rules() -> Iterator[None]:
    """``torch.autocast("cpu")`` follows CUDA's rules."""
    library = torch.library.Library("aten", "IMPL")
    for operator in FLOAT32:
        library.impl(operator, _in_float32(operator), "AutocastCPU")
    for operator in UNCHANGED:
        library.impl(operator, torch.library.fallthrough_kernel, "AutocastCPU")
    try:
        yield
    finally:
        library._destroy()


def _in_float32(operator: Callable) -> Callable:
    def kernel(*arguments: object, **options: object) -> Tensor:
        with torch.autocast("cpu", enabled=False):
            return operator(
                *(a.float() if isinstance(a, Tensor) and a.is_floating_point() else a for a in arguments), **options
            )

    return kernel


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
