"""The stock Mamba-1 block (Gu & Dao 2023, section 3.4 and figure 3)."""

from __future__ import annotations

import math

import torch.nn.functional as F
from torch import Tensor, nn

from .ssm import SelectiveSSM


class CausalConv1d(nn.Conv1d):
    """Causal depthwise convolution over the tokens; (batch, length, channels) in and out.

    The parameters are those of ``nn.Conv1d``. It runs as the convolution of an image with one row: for images PyTorch
    accepts the channels-last layout without a copy and is several times faster in it on a CPU.

    Args:
        channels: Channels of the sequence.
        kernel_size: Number of tokens that an output sees: its own and those just before it.
    """

    def __init__(self, channels: int, kernel_size: int) -> None:
        super().__init__(channels, channels, kernel_size, groups=channels, padding=kernel_size - 1)

    def forward(self, x: Tensor) -> Tensor:
        """x: (batch, length, channels) -> the same shape; tokens before the first one are zero."""
        row = x.transpose(1, 2).unsqueeze(2)
        y = F.conv2d(row, self.weight.unsqueeze(2), self.bias, padding=(0, *self.padding), groups=self.groups)
        return y.squeeze(2).transpose(1, 2)[:, : x.shape[1]]


class Mamba1Block(SelectiveSSM):
    """Mamba: ``Linear(SSM(SiLU(conv(Linear(x)))) * SiLU(Linear(x)))`` along a sequence.

    Names, shapes and initial distributions of the parameters are those of ``mamba_ssm.Mamba``, so state dicts are
    interchangeable; the SSM's parameters are on the same level as the others, hence the base class. One projection,
    ``in_proj``, makes both the sequence (first half of its channels) and the gate. Only dt_proj has a bias.

    Args:
        d_model: Channels of input and output.
        d_state: States per channel of the SSM, N.
        d_conv: Tokens that the causal convolution sees.
        expand: Expansion factor; the SSM has ``d_inner = expand * d_model`` channels.
        dt_rank: Rank of delta's projection; None: d_model / 16, rounded up.

    Examples:
        >>> import torch
        >>> from nnunetv2_lightm.layers import Mamba1Block
        >>> Mamba1Block(d_model=16)(torch.randn(2, 7, 16)).shape
        torch.Size([2, 7, 16])
    """

    def __init__(
        self, d_model: int, *, d_state: int = 16, d_conv: int = 4, expand: int = 2, dt_rank: int | None = None
    ) -> None:
        d_inner = expand * d_model
        super().__init__(d_inner, d_state=d_state, dt_rank=math.ceil(d_model / 16) if dt_rank is None else dt_rank)
        self.in_proj = nn.Linear(d_model, 2 * d_inner, bias=False)
        self.conv1d = CausalConv1d(d_inner, d_conv)
        self.out_proj = nn.Linear(d_inner, d_model, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """x: (batch, length, d_model) -> the same shape; token t depends only on tokens 0 ... t.

        Raises:
            ValueError: if x does not have three axes.
        """
        if x.ndim != 3:
            raise ValueError(f"`x` is {tuple(x.shape)}; expected three axes, (batch, length, d_model)")
        u, z = self.in_proj(x).chunk(2, dim=-1)
        return self.out_proj(super().forward(F.silu(self.conv1d(u)), z))
