"""The public selective scan: the choice of a backend.

Glossary (Gu & Dao 2023; the names of Mamba's reference):

| symbol     | shape                      | what                                             |
|------------|----------------------------|--------------------------------------------------|
| u          | (batch, length, d_inner)   | input sequence                                   |
| delta      | (batch, length, d_inner)   | step size of each token and channel              |
| A          | (d_inner, d_state)         | state matrix, diagonal, negative                 |
| B, C       | (batch, length, d_state)   | input and output matrices of each token          |
| D          | (d_inner,)                 | skip                                             |
| z          | (batch, length, d_inner)   | gate, enters as SiLU(z)                          |
| delta_bias | (d_inner,)                 | added to delta before the softplus               |
| last_state | (batch, d_inner, d_state)  | the state after the last token                   |
"""

from __future__ import annotations

import torch
from torch import Tensor

from ._derivatives import composite_needed
from ._operands import require_tensors
from ._scan_operator import check_scan, compute_dtype, scan_op
from .backends import REFERENCE, is_short, portable_asked_for, select_backend
from .portable import selective_scan_portable
from .reference import selective_scan_reference


def selective_scan(
    u: Tensor,
    delta: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor | None = None,
    z: Tensor | None = None,
    delta_bias: Tensor | None = None,
    delta_softplus: bool = False,
    *,
    return_last_state: bool = False,
    out_dtype: torch.dtype | None = None,
    backend: str | None = None,
) -> Tensor | tuple[Tensor, Tensor]:
    """S6, the selective state space model (Gu & Dao 2023, algorithm 2), along the length axis.

    ``h_t = exp(delta_t A) * h_{t-1} + delta_t B_t u_t``; ``y_t = (C_t h_t + D u_t) * SiLU(z_t)``; h_0 = 0.
    Computes in float32 whatever autocast says (in float64 if an input is float64). Any strides, any length, also 0.
    Second derivatives, forward-mode ones and the transforms of ``torch.func`` are computed by the reference, slowly.

    Args:
        u: Input sequence, (batch, length, d_inner).
        delta: Step sizes, (batch, length, d_inner).
        A: State matrix, (d_inner, d_state); negative for a state that decays.
        B: Input matrices, (batch, length, d_state).
        C: Output matrices, (batch, length, d_state).
        D: Skip, (d_inner,).
        z: Gate, (batch, length, d_inner).
        delta_bias: Added to delta, (d_inner,).
        delta_softplus: Apply the softplus to delta (after the bias).
        return_last_state: Return the state after the last token as well.
        out_dtype: Dtype of y; None: u's.
        backend: A backend's name, or "reference"; None: the one that NNUNETV2_LIGHTM_BACKEND names, else the fastest
            one that runs on u's device.

    Returns: y, (batch, length, d_inner); with ``return_last_state`` also the last state,
        (batch, d_inner, d_state), float32 or float64.

    Raises:
        ValueError: if shapes, dtypes or devices disagree, or if there is no such backend.
        RuntimeError: if the requested backend cannot run on the device, or does not compute in float64.

    Examples:
        A state that forgets half of itself at each token (``exp(delta A) = 0.5``) and adds what it sees:

        >>> import math
        >>> import torch
        >>> from nnunetv2_lightm.ops import selective_scan
        >>> ones = torch.ones(1, 4, 1)
        >>> selective_scan(ones, ones, torch.tensor([[-math.log(2)]]), ones, ones).flatten().tolist()
        [1.0, 1.5, 1.75, 1.875]
    """
    tensors = (u, delta, A, B, C, D, z, delta_bias)
    require_tensors("selective_scan", tensors)
    if portable_asked_for():  # before anything reads the batch size, which an export leaves free
        check_scan(tensors, out_dtype, None, stored=False)
        y, last = selective_scan_portable(*tensors, delta_softplus, out_dtype)
        return (y, last) if return_last_state else y
    short = False
    # A branch, because the length may be a symbol in torch.compile; other shapes are refused below.
    if u.ndim == 3 and is_short(*u.shape):
        short = True
    name = select_backend(u.device.type, backend, compute_dtype(*tensors), short)
    if name == REFERENCE or composite_needed():
        check_scan(tensors, out_dtype, None, stored=False)
        y, last = selective_scan_reference(*tensors, delta_softplus, out_dtype)
    else:
        keep = torch.is_grad_enabled() and any(t is not None and t.requires_grad for t in tensors)
        y, last, _ = scan_op(*tensors, delta_softplus, name, keep, out_dtype)
    return (y, last) if return_last_state else y
