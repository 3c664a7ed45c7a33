"""Self-attention in place of a Mamba block, for the ablation in Table 3 of the paper."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn


class SelfAttention(nn.Module):
    """Multi-head scaled dot-product attention over the tokens (Vaswani et al. 2017), with no output projection.

    From the parameter count in Table 3 of the paper: a single projection without bias to queries, keys and values, and
    no output projection. The count does not depend on the number of heads, so it is our choice.

    Args:
        d_model: Channels of input and output.
        num_heads: Number of heads that share the channels.

    Raises:
        ValueError: if the channels are not a multiple of the heads.
    """

    def __init__(self, d_model: int, *, num_heads: int = 8) -> None:
        super().__init__()
        if d_model % num_heads:
            raise ValueError(f"d_model is {d_model}; expected a multiple of num_heads = {num_heads}")
        self.num_heads = num_heads
        self.qkv = nn.Linear(d_model, 3 * d_model, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """x: (batch, length, d_model) -> the same shape; every token attends to all tokens."""
        q, k, v = self.qkv(x).unflatten(-1, (3, self.num_heads, -1)).permute(2, 0, 3, 1, 4)
        return F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(-2)
