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

import os
import subprocess
from functools import cache
from typing import Any

import torch
from torch import Tensor

from .triton_kernels.launch import launch, power_of_2, type_of

NAME = "triton_gpu"
COMPUTE_DTYPES = (torch.float32, torch.float64)
TAKES_HALF = True
CHUNK_LENGTH = 128
GROUP_CHUNKS = 64
# States x channels of a program. One warp, so that the sums over a token need no barrier; 16 elements per thread.
TILE_ELEMENTS = 512
# The same for a program of the backward pass, whose registers also hold a span's states and decays.
BACKWARD_TILE_ELEMENTS = 256
WARPS = 1
# States x channels of a program that combines chunks: one per thread.
CARRY_ELEMENTS = 128
# Tokens whose states the backward pass holds in registers at a time; the state before each such span is in memory.
SPAN = 4
# States that the backward pass keeps in memory at a time: 128 MiB in float32.
WORK_ELEMENTS = 1 << 25
# The first version whose kernels may hold tensors in tuples; it comes with PyTorch 2.7.
MIN_TRITON = (3, 3)
# Times 10, as Triton writes it.
MIN_COMPUTE_CAPABILITY = 70


def not_supported_reason(device_type: str) -> str | None:
    """Why this backend cannot run on the device; None: it can."""
    interpreter_wanted = bool(os.environ.get("TRITON_INTERPRET"))
    if device_type != "cuda" and not (device_type == "cpu" and interpreter_wanted):
        return "CUDA only"
    try:
        import triton
    except ImportError as error:
        return (
            f"needs Triton ({error}), which comes with PyTorch for CUDA on Linux; elsewhere install the version that "
            "fits this PyTorch: pip install triton, on Windows triton-windows"
        )
    if tuple(map(int, triton.__version__.split(".")[:2])) < MIN_TRITON:
        return (
            f"needs Triton {MIN_TRITON[0]}.{MIN_TRITON[1]}, which comes with PyTorch 2.7; this is {triton.__version__}"
        )
    # Triton decides this when a kernel is defined; for its own kernels, when it is imported.
    if not isinstance(triton.language.sum, triton.runtime.JITFunction):
        return None
    return (
        "CUDA only; TRITON_INTERPRET was set after Triton had been imported" if device_type == "cpu" else _no_launch()
    )


@cache
def _no_launch() -> str | None:
    """Why Triton cannot launch kernels here; None: it can."""
    from triton.runtime import driver

    try:
        # Compiles Triton's own driver stub: this needs a C compiler, the headers of Python and a driver of the GPU.
        target = driver.active.get_current_target()
    except (RuntimeError, OSError, ImportError, subprocess.SubprocessError) as error:
        return f"Triton cannot launch kernels here: {error}"
    if target.backend == "cuda" and target.arch < MIN_COMPUTE_CAPABILITY:
        return (
            f"Triton needs a GPU of compute capability {MIN_COMPUTE_CAPABILITY / 10}, this one has {target.arch / 10}"
        )
    return None


def describe() -> str:
    import triton

    return f"kernels in Triton {triton.__version__}, speed unmeasured"


def checkpoint_count(length: int) -> int:
    """Number of checkpointed states for a sequence of the length."""
    return -(-length // CHUNK_LENGTH)


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
) -> tuple[Tensor, Tensor, Tensor]:
    """A, D and delta_bias in the compute dtype (float32 or float64), the others in any; y in out_dtype, None: as A.

    first_state: (batch, d_inner, d_state); None: zero.

    Returns: y (batch, length, d_inner); last state (batch, d_inner, d_state); checkpoints, the state that each chunk
        starts from, (batch, chunks, d_state, d_inner), or empty if they are not kept.
    """
    out_dtype = out_dtype or A.dtype
    if u.numel() == 0:
        shape = (u.shape[0], checkpoint_count(u.shape[1]), A.shape[1], u.shape[2]) if keep_checkpoints else (0,)
        last = A.new_zeros(u.shape[0], *A.shape) if first_state is None else first_state.clone()
        return torch.zeros_like(u, dtype=out_dtype), last, A.new_zeros(shape)

    from .triton_kernels.scan import scan_chunks

    scan = _Scan(u, A, delta_softplus)
    u, delta, A_t, B, C, D, z, delta_bias = map(_contiguous, (u, delta, A.t(), B, C, D, z, delta_bias))
    starts, dt_sums = A.new_empty(scan.chunk_states), A.new_empty(scan.chunk_channels)
    scan.run(scan_chunks, u, delta, A_t, B, None, None, None, delta_bias, None, None, starts, dt_sums)
    first_state = None if first_state is None else first_state.transpose(1, 2).contiguous()
    last = _carry(A_t, dt_sums, starts, first_state, reverse=False)
    y = torch.empty_like(u, dtype=out_dtype)
    scan.run(scan_chunks, u, delta, A_t, B, C, D, z, delta_bias, starts, y, None, None)
    return y, last.transpose(1, 2).contiguous(), starts if keep_checkpoints else A.new_empty(0)


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
) -> Tensor:
    """Recompute y of ``forward`` from its checkpoints, in the compute dtype."""
    y = torch.empty_like(u, dtype=A.dtype)
    if u.numel() == 0:
        return y

    from .triton_kernels.scan import scan_chunks

    u, delta, A_t, B, C, D, z, delta_bias = map(_contiguous, (u, delta, A.t(), B, C, D, z, delta_bias))
    inputs = (u, delta, A_t, B, C, D, z, delta_bias, checkpoints)
    _Scan(u, A, delta_softplus).run(scan_chunks, *inputs, y, None, None)
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
    """Gradients of u, delta, A, B, C, D, z and delta_bias (None where the input is None): those of u, delta and z in
    their dtypes, the others in the compute dtype.

    grad_first: (batch, d_inner, d_state), written if given: the gradient of the first state.
    """
    if u.numel() == 0:
        if grad_first is not None:
            grad_first.zero_() if grad_last is None else grad_first.copy_(grad_last)
        return tuple(None if t is None else torch.zeros_like(t) for t in (u, delta, A, B, C, D, z, delta_bias))

    from .triton_kernels.scan_backward import backward_chunks, gradients_through_chunks

    scan = _Scan(u, A, delta_softplus)
    tiles = _Scan(u, A, delta_softplus, BACKWARD_TILE_ELEMENTS)
    grad_last = None if grad_last is None else grad_last.transpose(1, 2).contiguous()
    grad_y, u, delta, A_t, B, C, D, z, delta_bias = map(_contiguous, (grad_y, u, delta, A.t(), B, C, D, z, delta_bias))
    ends, dt_sums = A.new_empty(scan.chunk_states), A.new_empty(scan.chunk_channels)
    scan.run(gradients_through_chunks, grad_y, delta, A_t, C, z, delta_bias, ends, dt_sums)
    first = _carry(A_t, dt_sums, ends, grad_last, reverse=True)
    if grad_first is not None:
        grad_first.copy_(first.transpose(1, 2))
    grad_u, grad_delta, grad_z = (None if t is None else torch.empty_like(t) for t in (u, delta, z))
    # Partial gradients, to be summed over chunks or over blocks of channels.
    grad_A = A.new_empty(scan.chunk_states)
    grad_B, grad_C = (A.new_empty(tiles.blocks, *t.shape) for t in (B, C))
    grad_D, grad_bias = (None if t is None else A.new_empty(scan.chunk_channels) for t in (D, delta_bias))
    inputs = (grad_y, u, delta, A_t, B, C, D, z, delta_bias, checkpoints, ends)
    grads = (grad_u, grad_delta, grad_A, grad_B, grad_C, grad_D, grad_z, grad_bias)
    tiles.run_in_parts(backward_chunks, inputs, grads)
    grad_A, grad_D, grad_bias = (None if t is None else t.sum((0, 1)) for t in (grad_A, grad_D, grad_bias))
    return grad_u, grad_delta, grad_A.t(), grad_B.sum(0), grad_C.sum(0), grad_D, grad_z, grad_bias


class _Scan:
    """The sizes of one scan and the launches of its kernels."""

    def __init__(self, u: Tensor, A: Tensor, delta_softplus: bool, tile_elements: int | None = None) -> None:
        self._batch, length, channels = u.shape
        chunks, states = checkpoint_count(length), A.shape[1]
        block_states = power_of_2(states)
        block_channels = min(power_of_2(channels), max(1, (tile_elements or TILE_ELEMENTS) // block_states))
        self.blocks = -(-channels // block_channels)
        self.chunk_states = (self._batch, chunks, states, channels)
        self.chunk_channels = (self._batch, chunks, channels)
        self._sizes = {"length": length, "chunks": chunks, "states": states, "channels": channels}
        self._sizes |= {"SOFTPLUS": delta_softplus, "CHUNK": CHUNK_LENGTH, "TYPE": type_of(A.dtype)}
        self._sizes |= {"BLOCK_N": block_states, "BLOCK_D": block_channels, "num_warps": WARPS}

    def run(self, kernel: Any, *tensors: Tensor | None) -> None:
        """Launch a kernel on all chunks."""
        grid = (self._batch * self._sizes["chunks"], self.blocks)
        launch(kernel, grid, *tensors, **self._sizes)

    def run_in_parts(self, kernel: Any, inputs: tuple[Tensor | None, ...], outputs: tuple[Tensor | None, ...]) -> None:
        """Launch a kernel that keeps the states, on as many chunks at a time as the work space holds."""
        batch, chunks, states, channels = self.chunk_states
        spans = CHUNK_LENGTH // SPAN
        part = min(batch * chunks, max(1, WORK_ELEMENTS // (spans * max(1, states * channels))))
        work = inputs[3].new_empty(part, spans, states, channels)
        tokens = batch * self._sizes["length"]
        for first in range(0, batch * chunks, part):
            grid = (min(part, batch * chunks - first), self.blocks)
            launch(kernel, grid, *inputs, work, *outputs, first, tokens, SPAN=SPAN, **self._sizes)


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
    ends, dt_totals = states.new_empty(batch, groups, *shape), dt_sums.new_empty(batch, groups, shape[1])

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


def _contiguous(tensor: Tensor | None) -> Tensor | None:
    return None if tensor is None else tensor.contiguous()
