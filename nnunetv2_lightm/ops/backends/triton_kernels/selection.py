"""S6 of equation (3) on Triton's kernels; :mod:`..recomputing.selection` says what each method does.

B, C and delta's low-rank factor are the columns of one map, ``selected``, which the kernels read as it is: delta itself
exists in their registers alone. Its gradient is one such map too.
"""

from __future__ import annotations

from types import ModuleType

import torch
import torch.nn.functional as F
from torch import Tensor

from ..recomputing import pieces
from ..recomputing.parameters import Gradients
from .launch import launch, power_of_2, type_of

# Columns of ``selected`` are a multiple of this, so that rows start where a GPU loads several numbers at once.
ALIGNMENT = 16
# A tile of the gradient, and columns of ``selected`` that it multiplies at a time; Triton multiplies at least 16.
BLOCK_ROWS, BLOCK_CHANNELS, BLOCK_COLUMNS, MIN_BLOCK = 32, 64, 32, 16
WARPS = 4


class Selection:
    def __init__(
        self, scan: ModuleType, x_proj: Tensor, dt_weight: Tensor, A: Tensor, D: Tensor, dt_bias: Tensor
    ) -> None:
        # Transposed in memory, as the kernels take them.
        self._scan, self._A, self._dt_weight = scan, A.t().contiguous().t(), dt_weight.t().contiguous().t()
        self._D, self._dt_bias = D, dt_bias
        self._columns, self._rank = x_proj.shape[0], dt_weight.shape[1]
        self._x_proj = F.pad(x_proj.roll(-self._rank, 0), (0, 0, 0, -self._columns % ALIGNMENT))

    def select(self, u: Tensor) -> Tensor:
        return F.linear(u, self._x_proj)

    def forward(
        self, u: Tensor, selected: Tensor, checkpoints: Tensor | None, state: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        inputs = (*self._inputs(u, selected), self._D, None, self._dt_bias, True, False)
        options = {"delta_weight": self._dt_weight, "starts": checkpoints}
        y, last, _ = self._scan.forward(*inputs, first_state=state, **options)
        return y, last

    def replay(self, states: Tensor, u: Tensor, selected: Tensor) -> Tensor:
        inputs = (*self._inputs(u, selected), self._D, None, self._dt_bias, True)
        return self._scan.replay(states, *inputs, delta_weight=self._dt_weight)

    def backward(
        self,
        grad_y: Tensor,
        grad_state: Tensor | None,
        states: Tensor,
        convolved: Tensor,
        u: Tensor,
        selected: Tensor,
        gradients: Gradients,
    ) -> tuple[Tensor, Tensor]:
        first = self._A.new_empty((u.shape[0], *self._A.shape))
        grad_selected = torch.empty_like(selected)[..., : self._columns]
        inputs = (*self._inputs(u, selected), self._D, self._dt_bias, self._dt_weight)
        found = self._scan.backward_of_rows(grad_y, grad_state, states, *inputs, first, grad_selected)
        grad_u, grad_A, grad_D, grad_bias, grad_weight = found
        gradients.add(A=grad_A, D=grad_D, dt_bias=grad_bias, dt_weight=grad_weight)
        gradients.add(x_proj=pieces.weight_gradient(grad_selected, u).roll(self._rank, 0))
        return self._through_selection(grad_selected, grad_u, convolved), first

    def _through_selection(self, grad_selected: Tensor, grad_u: Tensor, convolved: Tensor) -> Tensor:
        from .selection_kernels import through_selection

        rows, channels, out = grad_u.shape[0] * grad_u.shape[1], grad_u.shape[2], torch.empty_like(convolved)
        block_c = max(MIN_BLOCK, min(BLOCK_CHANNELS, power_of_2(channels)))
        launch(
            through_selection,
            (-(-rows // BLOCK_ROWS), -(-channels // block_c)),
            grad_selected,
            self._x_proj,
            grad_u,
            convolved,
            out,
            rows,
            self._columns,
            channels,
            grad_selected.stride(1),
            **{"TYPE": type_of(self._A.dtype), "BLOCK_R": BLOCK_ROWS, "BLOCK_K": BLOCK_COLUMNS, "BLOCK_C": block_c},
            num_warps=WARPS,
        )
        return out

    def _inputs(self, u: Tensor, selected: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
        """u, delta, A, B, C."""
        states = self._A.shape[1]
        B, C, delta = selected[..., : self._columns].split((states, states, self._rank), dim=-1)
        return u, delta, self._A, B, C
