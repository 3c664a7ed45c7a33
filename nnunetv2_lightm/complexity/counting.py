"""True counts: every parameter; the MACs of convolutions, matrix products and scans, each once, for one sample."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import nn
from torch.overrides import TorchFunctionMode
from torch.utils.flop_counter import FlopCounterMode

from ..layers import Mamba1Block, VSSModule
from .flop_formulas import DENSE_FLOPS, SCAN_FLOPS


@dataclass(frozen=True)
class TrueCount:
    """The size of a network and its cost for one sample.

    Attributes:
        parameters: Number of parameters.
        macs: Multiply-adds of convolutions and matrix products.
        mamba_macs: The part of ``macs`` inside Mamba blocks and VSS modules.
        scan_flops: FLOPs of the selective scans, which are not matrix products; 2 FLOPs count as one MAC.
    """

    parameters: int
    macs: int
    mamba_macs: int
    scan_flops: int

    @property
    def macs_with_scan(self) -> float:
        return self.macs + self.scan_flops / 2


def true_count(network: nn.Module, sample_shape: Sequence[int]) -> TrueCount:
    """Count one forward pass on the meta device, where nothing is computed and no memory is needed.

    Args:
        network: A network from :func:`on_meta`.
        sample_shape: (channels, *spatial).
    """
    macs, scan_flops = forward_cost(network, sample_shape)
    with mamba_passed_over(network) as blocks:
        mamba_macs = macs - forward_cost(network, sample_shape)[0] if blocks else 0
    parameters = sum(parameter.numel() for parameter in network.parameters())
    return TrueCount(parameters, macs, mamba_macs, scan_flops)


def forward_cost(network: nn.Module, sample_shape: Sequence[int]) -> tuple[int, int]:
    """MACs of convolutions and matrix products, and FLOPs of the scans, counted on the network's device."""
    device = next(network.parameters()).device
    dense = FlopCounterMode(display=False, custom_mapping=dict(DENSE_FLOPS))
    scans = FlopCounterMode(display=False, custom_mapping=dict(SCAN_FLOPS))
    with torch.no_grad(), dense, scans:
        network.eval()(torch.zeros(1, *sample_shape, device=device))
    counted = scans.get_flop_counts().get("Global", {})
    return dense.get_total_flops() // 2, sum(counted.get(operator, 0) for operator in SCAN_FLOPS)


@contextmanager
def mamba_passed_over(network: nn.Module) -> Iterator[list[nn.Module]]:
    """Within the context, Mamba blocks and VSS modules return their input and call no layer; yields these modules."""
    blocks = [module for module in network.modules() if isinstance(module, (Mamba1Block, VSSModule))]
    for block in blocks:
        block.forward = nn.Identity().forward
    try:
        yield blocks
    finally:
        for block in blocks:
            del block.forward


def on_meta(build: Callable[[], nn.Module]) -> nn.Module:
    """Build a network on the meta device: shapes without numbers, in no time."""
    with _EmptyOnMeta():
        network = build()
    return network.to("meta")


class _EmptyOnMeta(TorchFunctionMode):
    """Redirects ``torch.empty``, which allocates the parameters of PyTorch's layers, to the meta device.

    ``with torch.device("meta")`` would redirect all tensors, even those whose numbers decide what is built, such as the
    drop rates of MONAI's Swin transformer.
    """

    def __torch_function__(self, func, types, args=(), kwargs=None):
        kwargs = dict(kwargs or {})
        if func is torch.empty and kwargs.get("device") is None:
            kwargs["device"] = "meta"
        return func(*args, **kwargs)
