"""The Residual Vision Mamba Layer (RVM Layer), section 2.2 and figure 2 (a) of the paper."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from .vss import VSSModule


class RVMLayer(nn.Module):
    """Equations (1) and (2): ``m = VSSM(LayerNorm(x)) + s * x``; ``Projection(LayerNorm'(m))``.

    Choices where the paper is silent: the adjustment factor s, one number per channel, starts at 1; Projection is a
    linear layer with bias.

    Args:
        in_channels: Channels of the input.
        out_channels: Channels of the output; the Projection widens.
        spatial_dims: 2 or 3.
        **vss: Options of :class:`.VSSModule`.
    """

    def __init__(self, in_channels: int, out_channels: int, spatial_dims: int, **vss: int) -> None:
        super().__init__()
        self.norm_in = nn.LayerNorm(in_channels)
        self.vssm = VSSModule(in_channels, spatial_dims, **vss)
        self.scale = nn.Parameter(torch.ones(in_channels))
        self.norm_out = nn.LayerNorm(in_channels)
        self.projection = nn.Linear(in_channels, out_channels)

    def forward(self, x: Tensor) -> Tensor:
        """x: (batch, *spatial, in_channels) -> (batch, *spatial, out_channels)."""
        m = self.vssm(self.norm_in(x)) + self.scale * x  # (1)
        return self.projection(self.norm_out(m))  # (2)
