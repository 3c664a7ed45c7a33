"""The launches of the scan's kernels: the operands of one scan, tile sizes, and the chunks combined."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from .launch import launch, power_of_2, type_of

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


def checkpoint_count(length: int) -> int:
    """Number of checkpointed states for a sequence of the length."""
    return -(-length // CHUNK_LENGTH)


def backward_tile(rank: int) -> int:
    """States x channels of a program of the backward pass."""
    return min(BACKWARD_TILE_ELEMENTS, BACKWARD_TILE_BY_RANK // power_of_2(rank))


class Scan:
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


def combine_chunks(A_t: Tensor, dt_sums: Tensor, states: Tensor, first: Tensor | None, reverse: bool) -> Tensor:
    """Turn the state that each chunk reaches from a zero state into the one that it starts from, in place.

    Args:
        A_t: (d_state, d_inner).
        dt_sums: Sum of the step sizes of each chunk, (batch, chunks, d_inner).
        states: (batch, chunks, d_state, d_inner).
        first: The state that the first chunk starts from, (batch, d_state, d_inner); None: zero.
        reverse: Go from the last chunk to the first one.

    Returns: The state after all chunks, (batch, d_state, d_inner).
    """
    from .scan import carry

    batch, chunks, *shape = states.shape
    groups = -(-chunks // GROUP_CHUNKS)
    ends, dt_totals = states.new_empty((batch, groups, *shape)), dt_sums.new_empty((batch, groups, shape[1]))

    def combine(firsts: Tensor | None, starts: Tensor | None, ends: Tensor | None) -> None:
        grid = (batch * groups, max(1, -(-shape[0] * shape[1] // CARRY_ELEMENTS)))
        launch(
            carry,
            grid,
            A_t,
            dt_sums,
            states,
            firsts,
            starts,
            ends,
            dt_totals,
            chunks,
            groups,
            *shape,
            **{"REVERSE": reverse, "GROUP": GROUP_CHUNKS, "BLOCK": CARRY_ELEMENTS},
        )

    if groups == 1:
        combine(first, states, ends)
        return ends[:, 0]
    combine(None, None, ends)
    last = combine_chunks(A_t, dt_totals, ends, first, reverse)
    combine(ends, states, None)
    return last
