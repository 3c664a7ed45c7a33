"""S6 of equation (3), from its input u: delta, B and C, the scan with them, and their gradients, on any backend.

:mod:`..triton_kernels.selection` has the same class on Triton's kernels. Sequences are (images, tokens, channels).
"""

from __future__ import annotations

from types import ModuleType

import torch
import torch.nn.functional as F
from torch import Tensor

from . import pieces
from .parameters import Gradients


class Selection:
    """The layers of a SelectiveSSM.

    Args:
        scan: The scan's backend.
        x_proj, dt_weight: In the products' dtype.
        A, D, dt_bias: Wide, as the scan.
    """

    def __init__(
        self, scan: ModuleType, x_proj: Tensor, dt_weight: Tensor, A: Tensor, D: Tensor, dt_bias: Tensor
    ) -> None:
        self._scan, self._x_proj, self._dt_weight = scan, x_proj, dt_weight
        self._A, self._D, self._dt_bias = A, D, dt_bias

    def select(self, u: Tensor) -> tuple[Tensor, ...]:
        """delta's low-rank factor, delta before bias and softplus, B and C, for the other methods."""
        rank, states = self._dt_weight.shape[1], self._A.shape[1]
        dt, B, C = F.linear(u, self._x_proj).split((rank, states, states), dim=-1)
        return dt, F.linear(dt, self._dt_weight), B.contiguous(), C.contiguous()

    def forward(
        self, u: Tensor, selected: tuple[Tensor, ...], checkpoints: Tensor | None, state: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        """y, wide, and the last state.

        Args:
            u: The SSM's input.
            selected: What ``select`` made of it.
            checkpoints: Contiguous; receives them. None: they are not kept.
            state: The first state; None: zero.
        """
        keep = checkpoints is not None
        y, last, made = self._scan.forward(*self._inputs(u, selected), keep, first_state=state)
        if keep:
            checkpoints.copy_(made)
        return y, last

    def replay(self, states: Tensor, u: Tensor, selected: tuple[Tensor, ...]) -> Tensor:
        """Recompute y, wide, from the checkpoints."""
        return self._scan.replay(states, *self._inputs(u, selected))

    def backward(
        self,
        grad_y: Tensor,
        grad_state: Tensor | None,
        states: Tensor,
        convolved: Tensor,
        u: Tensor,
        selected: tuple[Tensor, ...],
        gradients: Gradients,
    ) -> tuple[Tensor, Tensor]:
        """Gradients of ``convolved``, of which u is the SiLU, and of the state before the sequence; adds those of the
        parameters."""
        first = self._A.new_empty((u.shape[0], *self._A.shape))
        grads = self._scan.backward(grad_y, grad_state, states, *self._inputs(u, selected), grad_first=first)
        grad_u, grad_delta, grad_A, grad_B, grad_C, grad_D, _, grad_bias = grads
        gradients.add(A=grad_A, D=grad_D, dt_bias=grad_bias)
        grad_u, grad_delta, grad_B, grad_C = (g.to(u.dtype) for g in (grad_u, grad_delta, grad_B, grad_C))
        gradients.add(dt_weight=pieces.weight_gradient(grad_delta, selected[0]))
        grad_selected = torch.cat((grad_delta @ self._dt_weight, grad_B, grad_C), -1)
        gradients.add(x_proj=pieces.weight_gradient(grad_selected, u))
        grad_u = pieces.add_product(grad_u, grad_selected, self._x_proj)
        return torch.ops.aten.silu_backward(grad_u, convolved), first

    def _inputs(self, u: Tensor, selected: tuple[Tensor, ...]) -> tuple[Tensor | bool | None, ...]:
        """What the scan's functions take."""
        _, *tokens = selected
        u, delta, B, C = (t if self._scan.TAKES_HALF else t.to(self._A.dtype) for t in (u, *tokens))
        return u, delta, self._A, B, C, self._D, None, self._dt_bias, True
