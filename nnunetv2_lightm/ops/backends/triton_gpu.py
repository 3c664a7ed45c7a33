"""The selective scan in Triton, for GPUs without a compiled package; its speed is unmeasured.

Memory is O(length * d_inner). The sequence is cut into chunks of ``CHUNK_LENGTH`` tokens that run side by side, so that
a long sequence of few channels fills a GPU too. As in :mod:`.torch_chunked`: every chunk runs from a zero state;
``carry`` combines the chunks to the state each one truly starts from (the checkpoints), itself in groups of
``GROUP_CHUNKS`` side by side; every chunk runs again from there and emits its outputs. The backward pass does the same
in reverse and recomputes the states, of as many chunks at a time as ``WORK_ELEMENTS`` holds.

Tokens may have any dtype: registers hold them in float32 or float64, in which everything is computed, and their
gradients have their dtype. Deterministic: gradients to which several programs contribute (those of A, B, C, D
and delta_bias) are written separately and summed by PyTorch. With TRITON_INTERPRET=1 in the environment before Triton
is imported, the kernels are interpreted, on the CPU too: for tests, many thousand times slower.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from .triton_kernels.launch import launch, power_of_2, type_of
from .triton_kernels.support import not_supported_reason as not_supported_reason

NAME = "triton_gpu"
COMPUTE_DTYPES = (torch.float32, torch.float64)
TAKES_HALF = True
CHUNK_LENGTH = 128
GROUP_CHUNKS = 64
# States x channels of a program. One warp, so that the sums over a token need no barrier; 16 elements per thread.
TILE_ELEMENTS = 512
# The same for a program of the backward pass, whose registers also hold a span's states and decays.
BACKWARD_TILE_ELEMENTS = 256
# The same times the rank of delta's projection, whose weights and their gradients they hold too.
BACKWARD_TILE_BY_RANK = 1024
WARPS = 1
# States x channels of a program that combines chunks: one per thread.
CARRY_ELEMENTS = 128
# Tokens whose states the backward pass holds in registers at a time. The state before every KEPT-th such span is in
# memory, those before the others are computed from it: with two, traffic and exponentials take an H100 equally long.
SPAN = 4
KEPT = 2
# States that the backward pass keeps in memory at a time: 128 MiB in float32.
WORK_ELEMENTS = 1 << 25


def describe() -> str:
    import triton

    return f"kernels in Triton {triton.__version__}, speed unmeasured"


def checkpoint_count(length: int) -> int:
    """Number of checkpointed states for a sequence of the length."""
    return -(-length // CHUNK_LENGTH)


def backward_tile(rank: int) -> int:
    """States x channels of a program of the backward pass."""
    return min(BACKWARD_TILE_ELEMENTS, BACKWARD_TILE_BY_RANK // power_of_2(rank))


def forward(
    u: Tensor,
    delta: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor | None,
    z: Tensor | None,
    delta_bias: Tensor | None,
    delta_softplus: bool,
    keep_checkpoints: bool,
    first_state: Tensor | None = None,
    out_dtype: torch.dtype | None = None,
    delta_weight: Tensor | None = None,
    starts: Tensor | None = None,
) -> tuple[Tensor, Tensor, Tensor]:
    """A, D and delta_bias in the compute dtype (float32 or float64), the others in any; y in out_dtype, None: as A.

    first_state: (batch, d_inner, d_state); None: zero.
    delta_weight: (d_inner, rank); the step sizes are ``delta @ delta_weight.T`` of a delta (batch, length, rank). Then
        B, C and delta may be views of the columns of one tensor. None: delta is (batch, length, d_inner).
    starts: Contiguous memory for the checkpoints; None: new memory.

    Returns: y (batch, length, d_inner); last state (batch, d_inner, d_state); checkpoints, the state that each chunk
        starts from, (batch, chunks, d_state, d_inner), or empty if they are not kept.
    """
    out_dtype = out_dtype or A.dtype
    if u.numel() == 0:
        shape = (u.shape[0], checkpoint_count(u.shape[1]), A.shape[1], u.shape[2]) if keep_checkpoints else (0,)
        last = A.new_zeros((u.shape[0], *A.shape)) if first_state is None else first_state.clone()
        return torch.zeros_like(u, dtype=out_dtype), last, A.new_zeros(shape)

    from .triton_kernels.scan import scan_chunks

    scan = _Scan(u, delta, A, B, C, D, z, delta_bias, delta_weight, delta_softplus)
    starts = A.new_empty(scan.chunk_states) if starts is None else starts
    dt_sums = A.new_empty(scan.chunk_channels)
    u, delta, A_t, B, C, D, z, *projection = scan.operands
    scan.run(scan_chunks, u, delta, A_t, B, None, None, None, *projection, None, None, starts, dt_sums)
    first_state = None if first_state is None else first_state.transpose(1, 2).contiguous()
    last = _carry(A_t, dt_sums, starts, first_state, reverse=False)
    y = torch.empty_like(u, dtype=out_dtype)
    scan.run(scan_chunks, *scan.operands, starts, y, None, None)
    return y, last.transpose(1, 2).contiguous(), starts if keep_checkpoints else A.new_empty((0,))


def replay(
    checkpoints: Tensor,
    u: Tensor,
    delta: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor | None,
    z: Tensor | None,
    delta_bias: Tensor | None,
    delta_softplus: bool,
    delta_weight: Tensor | None = None,
) -> Tensor:
    """Recompute y of ``forward`` from its checkpoints, in the compute dtype."""
    y = torch.empty_like(u, dtype=A.dtype)
    if u.numel() == 0:
        return y

    from .triton_kernels.scan import scan_chunks

    scan = _Scan(u, delta, A, B, C, D, z, delta_bias, delta_weight, delta_softplus)
    scan.run(scan_chunks, *scan.operands, checkpoints, y, None, None)
    return y


def backward(
    grad_y: Tensor,
    grad_last: Tensor | None,
    checkpoints: Tensor,
    u: Tensor,
    delta: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor | None,
    z: Tensor | None,
    delta_bias: Tensor | None,
    delta_softplus: bool,
    grad_first: Tensor | None = None,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor | None, Tensor | None, Tensor | None]:
    """Gradients of u, delta, A, B, C, D, z and delta_bias (None where the input is None): those of A, D and delta_bias
    in the compute dtype, the others in their dtypes.

    grad_first: (batch, d_inner, d_state), written if given: the gradient of the first state.
    """
    if u.numel() == 0:
        if grad_first is not None:
            grad_first.zero_() if grad_last is None else grad_first.copy_(grad_last)
        return tuple(None if t is None else torch.zeros_like(t) for t in (u, delta, A, B, C, D, z, delta_bias))
    scan = _Scan(u, delta, A, B, C, D, z, delta_bias, None, delta_softplus)
    grad_u, grad_delta, grad_z, rows, sums = _backward(scan, grad_y, grad_last, checkpoints, grad_first)
    states = A.shape[1]
    grad_A, grad_D, grad_bias = sums[:states].t().contiguous(), sums[states].clone(), sums[states + 1].clone()
    grad_B, grad_C = rows[..., :states].sum(0), rows[..., states:].sum(0)
    grads = (grad_u, grad_delta, grad_A, grad_B, grad_C, grad_D, grad_z, grad_bias)
    return tuple(None if t is None else g for g, t in zip(grads, (u, delta, A, B, C, D, z, delta_bias), strict=True))


def backward_of_rows(
    grad_y: Tensor,
    grad_last: Tensor | None,
    checkpoints: Tensor,
    u: Tensor,
    delta: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor,
    delta_bias: Tensor,
    delta_weight: Tensor,
    grad_first: Tensor,
    grad_rows: Tensor,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Gradients of u, A, D, delta_bias and delta_weight, with a softplus and a delta of low rank, for no empty input.

    grad_rows: (batch, length, 2 * d_state + rank), written: the gradients of B, C and delta.
    """
    scan = _Scan(u, delta, A, B, C, D, None, delta_bias, delta_weight, True)
    grad_u, _, _, rows, sums = _backward(scan, grad_y, grad_last, checkpoints, grad_first)
    torch.sum(rows, 0, out=grad_rows)
    states = A.shape[1]
    return grad_u, sums[:states].t(), sums[states], sums[states + 1], sums[states + 2 :].t()


def _backward(
    scan: _Scan, grad_y: Tensor, grad_last: Tensor | None, checkpoints: Tensor, grad_first: Tensor | None
) -> tuple[Tensor, Tensor | None, Tensor | None, Tensor, Tensor]:
    """Gradients of u, of delta unless it is projected, of z; partial ones of B, C and a projected delta's rows, (blocks
    of channels, batch, length, columns); those of A, D, the bias and delta's projection, (rows, channels)."""
    from .triton_kernels.scan_backward import backward_chunks, gradients_through_chunks

    u, delta, A_t, B, C, D, z, delta_bias, weight = scan.operands
    grad_y = grad_y.contiguous()
    grad_last = None if grad_last is None else grad_last.transpose(1, 2).contiguous()
    ends, dt_sums = A_t.new_empty(scan.chunk_states), A_t.new_empty(scan.chunk_channels)
    scan.run(gradients_through_chunks, grad_y, delta, A_t, C, z, delta_bias, weight, ends, dt_sums)
    first = _carry(A_t, dt_sums, ends, grad_last, reverse=True)
    if grad_first is not None:
        grad_first.copy_(first.transpose(1, 2))
    grad_u, grad_z = (None if t is None else torch.empty_like(t) for t in (u, z))
    grad_delta = torch.empty_like(delta) if weight is None else None
    shape = (scan.backward_blocks, *u.shape[:2], 2 * B.shape[2] + scan.rank)
    grad_rows = B.new_empty(shape, dtype=torch.promote_types(B.dtype, C.dtype))
    sums = A_t.new_empty((*scan.chunk_states[:2], B.shape[2] + 2 + scan.rank, u.shape[2]))
    inputs = (grad_y, *scan.operands, checkpoints, ends)
    scan.run_in_parts(backward_chunks, inputs, (grad_u, grad_delta, grad_z, grad_rows, sums))
    return grad_u, grad_delta, grad_z, grad_rows, sums.sum((0, 1))


class _Scan:
    """The operands of one scan as the kernels take them, its sizes, and the launches of its kernels.

    Attributes:
        operands: u, delta, A (d_state, d_inner), B, C, D, z, delta_bias, delta_weight (rank, d_inner).
        rank: Of delta's projection; 0 without.
    """

    def __init__(
        self,
        u: Tensor,
        delta: Tensor,
        A: Tensor,
        B: Tensor,
        C: Tensor,
        D: Tensor | None,
        z: Tensor | None,
        delta_bias: Tensor | None,
        delta_weight: Tensor | None,
        delta_softplus: bool,
    ) -> None:
        self.rank = 0 if delta_weight is None else delta_weight.shape[1]
        if not self.rank:
            delta, B, C = delta.contiguous(), B.contiguous(), C.contiguous()
        A_t, weight = (None if t is None else t.t().contiguous() for t in (A, delta_weight))
        u, D, z, delta_bias = (None if t is None else t.contiguous() for t in (u, D, z, delta_bias))
        self.operands = (u, delta, A_t, B, C, D, z, delta_bias, weight)

        batch, length, channels = u.shape
        chunks, states = checkpoint_count(length), A.shape[1]
        self.chunk_states, self.chunk_channels = (batch, chunks, states, channels), (batch, chunks, channels)
        self._sizes = {"length": length, "chunks": chunks, "states": states, "channels": channels}
        self._sizes |= {"row_stride": B.stride(1) if self.rank else states, "RANK": self.rank}
        self._sizes |= {"SOFTPLUS": delta_softplus, "CHUNK": CHUNK_LENGTH, "TYPE": type_of(A.dtype)}
        self._sizes |= {"BLOCK_N": power_of_2(states), "num_warps": WARPS}

    @property
    def backward_blocks(self) -> int:
        """Blocks of channels in the backward pass."""
        return -(-self.chunk_channels[2] // self._block_channels(backward_tile(self.rank)))

    def _block_channels(self, tile_elements: int) -> int:
        return min(power_of_2(self.chunk_channels[2]), max(1, tile_elements // self._sizes["BLOCK_N"]))

    def run(self, kernel: Any, *tensors: Tensor | None) -> None:
        """Launch a kernel on all chunks."""
        batch, chunks, channels = self.chunk_channels
        block = self._block_channels(TILE_ELEMENTS)
        launch(kernel, (batch * chunks, -(-channels // block)), *tensors, **self._sizes, BLOCK_D=block)

    def run_in_parts(self, kernel: Any, inputs: tuple[Tensor | None, ...], outputs: tuple[Tensor | None, ...]) -> None:
        """Launch a kernel that keeps the states, on as many chunks at a time as the work space holds."""
        batch, chunks, states, channels = self.chunk_states
        groups = -(-CHUNK_LENGTH // (KEPT * SPAN))
        part = min(batch * chunks, max(1, WORK_ELEMENTS // (groups * max(1, states * channels))))
        work = self.operands[2].new_empty((part, groups, states, channels))
        sizes = self._sizes | {"SPAN": SPAN, "KEPT": KEPT, "BLOCK_D": self._block_channels(backward_tile(self.rank))}
        for first in range(0, batch * chunks, part):
            grid = (min(part, batch * chunks - first), self.backward_blocks)
            launch(kernel, grid, *inputs, work, *outputs, first, batch * self._sizes["length"], **sizes)


def _carry(A_t: Tensor, dt_sums: Tensor, states: Tensor, first: Tensor | None, reverse: bool) -> Tensor:
    """Turn the state that each chunk reaches from a zero state into the one that it starts from, in place.

    Args:
        A_t: (d_state, d_inner).
        dt_sums: Sum of the step sizes of each chunk, (batch, chunks, d_inner).
        states: (batch, chunks, d_state, d_inner).
        first: The state that the first chunk starts from, (batch, d_state, d_inner); None: zero.
        reverse: Go from the last chunk to the first one.

    Returns: The state after all chunks, (batch, d_state, d_inner).
    """
    from .triton_kernels.scan import carry

    batch, chunks, *shape = states.shape
    groups = -(-chunks // GROUP_CHUNKS)
    ends, dt_totals = states.new_empty((batch, groups, *shape)), dt_sums.new_empty((batch, groups, shape[1]))

    def combine(firsts: Tensor | None, starts: Tensor | None, ends: Tensor | None) -> None:
        grid = (batch * groups, max(1, -(-shape[0] * shape[1] // CARRY_ELEMENTS)))
        launch(
            *(carry, grid, A_t, dt_sums, states, firsts, starts, ends, dt_totals),
            *(chunks, groups, *shape),
            **{"REVERSE": reverse, "GROUP": GROUP_CHUNKS, "BLOCK": CARRY_ELEMENTS},
        )

    if groups == 1:
        combine(first, states, ends)
        return ends[:, 0]
    combine(None, None, ends)
    last = _carry(A_t, dt_totals, ends, first, reverse)
    combine(ends, states, None)
    return last
