"""The selective scan as a sequential loop: the specification that every backend is tested against."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def selective_scan_reference(
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
    """S6 recurrence, one token after the other (Gu & Dao 2023, section 3.2, algorithm 2; eqs. 2a, 2b).

    ``h_t = exp(delta_t A) * h_{t-1} + delta_t B_t u_t`` and ``y_t = C_t h_t + D u_t``, then ``y_t * SiLU(z_t)``.
    Arguments are those of :func:`nnunetv2_lightm.ops.selective_scan`. Computes in float64 when an input is float64,
    otherwise in float32; plain differentiable PyTorch, so its gradients are autograd's.

    Returns: y, (batch, length, d_inner); last state, (batch, d_inner, d_state), compute dtype.
    """
    out_dtype = out_dtype or u.dtype
    given = [t for t in (u, delta, A, B, C, D, z, delta_bias) if t is not None]
    dtype = torch.float64 if any(t.dtype == torch.float64 for t in given) else torch.float32
    with torch.autocast(u.device.type, enabled=False):
        u, delta, A, B, C = (t.to(dtype) for t in (u, delta, A, B, C))
        if delta_bias is not None:
            delta = delta + delta_bias.to(dtype)
        if delta_softplus:
            delta = F.softplus(delta)

        h = u.new_zeros(u.shape[0], u.shape[2], A.shape[1])
        ys = []
        for t in range(u.shape[1]):
            h = torch.exp(delta[:, t, :, None] * A) * h + (delta[:, t] * u[:, t])[..., None] * B[:, t, None, :]
            ys.append((h * C[:, t, None, :]).sum(-1))
        y = torch.stack(ys, 1) if ys else torch.zeros_like(u)

        if D is not None:
            y = y + D.to(dtype) * u
        if z is not None:
            y = y * F.silu(z.to(dtype))
    return y.to(out_dtype), h
