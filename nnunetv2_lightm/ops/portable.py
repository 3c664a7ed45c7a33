"""The selective scan in operators that every runtime has, for export: ONNX has no custom operators.

All chunks of the sequence advance together, token by token, in ``torch.ops.higher_order.scan``, which becomes ONNX's
Scan; memory holds one state of each chunk at a time. It is slow compared with the backends, and not one of them.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

# The operator behind ONNX's Scan has no public name yet. It is called directly, because its wrapper makes torch.compile
# trace each step, which takes as long as the rest of an export.
from torch._higher_order_ops.scan import scan_op as higher_order_scan

CHUNK = 64


def selective_scan_portable(
    u: Tensor,
    delta: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor | None = None,
    z: Tensor | None = None,
    delta_bias: Tensor | None = None,
    delta_softplus: bool = False,
    out_dtype: torch.dtype | None = None,
) -> tuple[Tensor, Tensor]:
    """As :func:`.reference.selective_scan_reference`; the batch may be a free dimension, the length is fixed.

    Three passes: the state that each chunk ends with if it starts from 0; the states that the chunks really start
    from, each of which follows from the one before; the outputs.
    """
    out_dtype = out_dtype or u.dtype
    u, delta, A, B, C = (t.to(torch.promote_types(t.dtype, torch.float32)) for t in (u, delta, A, B, C))
    if delta_bias is not None:
        delta = delta + delta_bias
    if delta_softplus:
        delta = F.softplus(delta)
    length = u.shape[1]
    chunk = max(1, min(CHUNK, length))  # a length of 0 is a chunk of padding
    # Padding tokens have step 0: they leave the state as it is, if the rates are finite (0 times infinity is NaN).
    A = A.clamp_min(torch.finfo(A.dtype).min)
    dt, x, B, C = (_in_chunks(t, chunk) for t in (delta, delta * u, B, C))
    zeros = x.new_zeros((*x.shape[1:], A.shape[1]))
    (ends,) = higher_order_scan(lambda *token: [_next_state(*token)], [zeros], [dt, x, B], (A,))
    decays = torch.exp(dt.sum(0)[..., None] * A)
    last, starts = higher_order_scan(_next_start, [zeros[0].clone()], [decays, ends], ())
    _, y = higher_order_scan(_output, [starts], [dt, x, B, C], (A,))
    y = y.permute(2, 1, 0, 3).flatten(1, 2)[:, :length]
    if D is not None:
        y = y + D * u
    if z is not None:
        y = y * F.silu(z.to(y.dtype))
    return y.to(out_dtype), last


def _in_chunks(x: Tensor, chunk: int) -> Tensor:
    """(batch, length, k) -> (chunk, chunks, batch, k), zeros after the last token."""
    padded = F.pad(x, (0, 0, 0, -x.shape[1] % chunk if x.shape[1] else chunk))
    return padded.unflatten(1, (padded.shape[1] // chunk, chunk)).permute(2, 1, 0, 3).contiguous()


def _next_state(h: Tensor, dt: Tensor, x: Tensor, B: Tensor, A: Tensor) -> Tensor:
    """One token of all chunks; h: (chunks, batch, channels, states)."""
    return torch.exp(dt[..., None] * A) * h + x[..., None] * B[..., None, :]


def _output(h: Tensor, dt: Tensor, x: Tensor, B: Tensor, C: Tensor, A: Tensor) -> list[Tensor]:
    h = _next_state(h, dt, x, B, A)
    return [h, torch.matmul(h, C[..., None])[..., 0]]


def _next_start(h: Tensor, decay: Tensor, end: Tensor) -> list[Tensor]:
    """One chunk; the state that it starts from is kept."""
    return [decay * h + end, h.clone()]
