"""The selective scan in Triton, tried first on CUDA; its speed is unmeasured.

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

import torch
from torch import Tensor

from .triton_kernels.scan_launches import Scan, checkpoint_count, combine_chunks
from .triton_kernels.support import not_supported_reason as not_supported_reason

NAME = "triton_gpu"
COMPUTE_DTYPES = (torch.float32, torch.float64)
TAKES_HALF = True


def describe() -> str:
    import triton

    return f"kernels in Triton {triton.__version__}, speed unmeasured"


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

    scan = Scan(u, delta, A, B, C, D, z, delta_bias, delta_weight, delta_softplus)
    starts = A.new_empty(scan.chunk_states) if starts is None else starts
    dt_sums = A.new_empty(scan.chunk_channels)
    u, delta, A_t, B, C, D, z, *projection = scan.operands
    scan.run(scan_chunks, u, delta, A_t, B, None, None, None, *projection, None, None, starts, dt_sums)
    first_state = None if first_state is None else first_state.transpose(1, 2).contiguous()
    last = combine_chunks(A_t, dt_sums, starts, first_state, reverse=False)
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

    scan = Scan(u, delta, A, B, C, D, z, delta_bias, delta_weight, delta_softplus)
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
    scan = Scan(u, delta, A, B, C, D, z, delta_bias, None, delta_softplus)
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
    scan = Scan(u, delta, A, B, C, D, None, delta_bias, delta_weight, True)
    grad_u, _, _, rows, sums = _backward(scan, grad_y, grad_last, checkpoints, grad_first)
    torch.sum(rows, 0, out=grad_rows)
    states = A.shape[1]
    return grad_u, sums[:states].t(), sums[states], sums[states + 1], sums[states + 2 :].t()


def _backward(
    scan: Scan, grad_y: Tensor, grad_last: Tensor | None, checkpoints: Tensor, grad_first: Tensor | None
) -> tuple[Tensor, Tensor | None, Tensor | None, Tensor, Tensor]:
    """Gradients of u, of delta unless it is projected, of z; partial ones of B, C and a projected delta's rows, (blocks
    of channels, batch, length, columns); those of A, D, the bias and delta's projection, (rows, channels)."""
    from .triton_kernels.scan_backward import backward_chunks, gradients_through_chunks

    u, delta, A_t, B, C, D, z, delta_bias, weight = scan.operands
    grad_y = grad_y.contiguous()
    grad_last = None if grad_last is None else grad_last.transpose(1, 2).contiguous()
    ends, dt_sums = A_t.new_empty(scan.chunk_states), A_t.new_empty(scan.chunk_channels)
    scan.run(gradients_through_chunks, grad_y, delta, A_t, C, z, delta_bias, weight, ends, dt_sums)
    first = combine_chunks(A_t, dt_sums, ends, grad_last, reverse=True)
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
