"""The Residual Vision Mamba Layer (RVM Layer), section 2.2 and figure 2 (a) of the paper."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..ops import MAX_WINDOW, constant_in_graphs, fused_rvm_layer_usable, rvm_layer
from .plain import is_plain, stands_for
from .vss import VSSModule


class RVMLayer(nn.Module):
    """Equations (1) and (2): ``m = VSSM(LayerNorm(x)) + s * x``; ``Projection(LayerNorm'(m))``.

    Choices where the paper is silent: the adjustment factor s, one number per channel, starts at 1; Projection is a
    linear layer with bias.

    The whole layer is one operator (:func:`nnunetv2_lightm.ops.rvm_layer`), compiled on a CPU. Where that cannot run,
    or if modules were changed (:mod:`.plain`), it is composed from PyTorch's operators.

    Args:
        in_channels: Channels of the input.
        out_channels: Channels of the output, set by the Projection.
        spatial_dims: 2 or 3.
        **vss: Options of :class:`.VSSModule`.

    Examples:
        >>> import torch
        >>> from nnunetv2_lightm.layers import RVMLayer
        >>> RVMLayer(32, 64, spatial_dims=2)(torch.randn(1, 8, 8, 32), pool=(2, 2)).shape
        torch.Size([1, 4, 4, 64])
    """

    mixer: type[nn.Module] = VSSModule  # the ablations of Table 3 replace it: ablations.py

    def __init__(self, in_channels: int, out_channels: int, spatial_dims: int, **vss: int) -> None:
        super().__init__()
        self.norm_in = nn.LayerNorm(in_channels)
        self.vssm = self.mixer(in_channels, spatial_dims, **vss)
        self.scale = nn.Parameter(torch.ones(in_channels))
        self.norm_out = nn.LayerNorm(in_channels)
        self.projection = nn.Linear(in_channels, out_channels)

    def forward(self, x: Tensor, pool: Sequence[int] | None = None) -> Tensor:
        """x: (batch, *spatial, in_channels) -> (batch, *spatial, out_channels).

        With ``pool``, the window and stride on each axis, the output is max-pooled: (batch, *(spatial // pool), ...).
        """
        if _window_fits(pool) and self.fused(x.device.type):
            return rvm_layer(x, self._parameters_of_operator(), pool or [1] * (x.ndim - 2))
        m = self.mix(x)  # (1)
        out = self.projection(self.norm_out(m))  # (2)
        return _max_pool(out, pool) if pool and max(pool) > 1 else out

    def mix(self, x: Tensor) -> Tensor:
        """Equation (1); x: (batch, *spatial, in_channels) -> the same shape."""
        return self.vssm(self.norm_in(x)) + self.scale * x

    @constant_in_graphs
    def fused(self, device_type: str) -> bool:
        """Whether the compiled operator runs this layer on the device."""
        if not is_plain(self):
            return False
        d_model, d_inner = self.vssm.out_proj.out_features, self.vssm.out_proj.in_features
        if not fused_rvm_layer_usable(device_type, d_model, d_inner, self.projection.out_features):
            return False
        vssm = self.vssm
        with_bias = (vssm.ssms[0].dt_proj, self.projection)
        without_bias = (vssm.in_proj, vssm.gate_proj, vssm.out_proj, vssm.ssms[0].x_proj)
        return all(m.bias is not None for m in with_bias) and all(m.bias is None for m in without_bias)

    def _parameters_of_operator(self) -> list[Tensor]:
        """The layer's parameters in the order of ``ops.rvm_layer.PARAMETERS``."""
        vssm, (ssm,) = self.vssm, self.vssm.ssms
        return [
            self.norm_in.weight,
            self.norm_in.bias,
            vssm.in_proj.weight,
            vssm.gate_proj.weight,
            vssm.dwconv.weight,
            vssm.dwconv.bias,
            ssm.x_proj.weight,
            ssm.dt_proj.weight,
            ssm.dt_proj.bias,
            ssm.A,
            ssm.D,
            vssm.norm.weight,
            vssm.norm.bias,
            vssm.out_proj.weight,
            self.scale,
            self.norm_out.weight,
            self.norm_out.bias,
            self.projection.weight,
            self.projection.bias,
        ]


stands_for(RVMLayer, ("scale",), ("norm_in", "vssm", "norm_out", "projection"))


def _window_fits(pool: Sequence[int] | None) -> bool:
    return pool is None or prod(pool) <= MAX_WINDOW


def _max_pool(x: Tensor, stride: Sequence[int]) -> Tensor:
    pooled = [size // step for size, step in zip(x.shape[1:-1], stride, strict=True)]
    if 0 in pooled:  # which PyTorch's pooling refuses
        return x[(slice(None), *(slice(size) for size in pooled))]
    pool = F.max_pool2d if x.ndim == 4 else F.max_pool3d
    return pool(x.movedim(-1, 1), kernel_size=tuple(stride), stride=tuple(stride)).movedim(1, -1)
