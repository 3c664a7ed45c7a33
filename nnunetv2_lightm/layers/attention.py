"""Self-attention in the place of a Mamba block, for the ablation of the paper's Table 3."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn


class SelfAttention(nn.Module):
    """Multi-head scaled dot-product attention over the tokens (Vaswani et al. 2017), with no output projection.

    The parameter count of the paper's Table 3 tells that there is one projection, without bias, to queries, keys and
    values, and none behind. It does not tell the number of heads, on which no count depends.

    Args:
        d_model: Channels of input and output.
        num_heads: Heads; they divide the channels among them.

    Raises:
        ValueError: if the channels cannot be divided so.
    """

    def __init__(self, d_model: int, *, num_heads: int = 8) -> None:
        super().__init__()
        if d_model % num_heads:
            raise ValueError(f"d_model is {d_model}; expected a multiple of num_heads = {num_heads}")
        self.num_heads = num_heads
        self.qkv = nn.Linear(d_model, 3 * d_model, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """x: (batch, length, d_model) -> the same shape; every token sees all."""
        q, k, v = self.qkv(x).unflatten(-1, (3, self.num_heads, -1)).permute(2, 0, 3, 1, 4)
        return F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(-2)
