"""The public selective scan: shape checks and the choice of a backend.

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

from ._operator import compute_dtype, scan_op
from .backends import REFERENCE, select_backend
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
    """
    _check(u, delta, A, B, C, D, z, delta_bias)
    name = select_backend(u.device.type, backend, compute_dtype(u, delta, A, B, C, D, z, delta_bias))
    if name == REFERENCE:
        y, last = selective_scan_reference(u, delta, A, B, C, D, z, delta_bias, delta_softplus, out_dtype)
    else:
        tensors = (u, delta, A, B, C, D, z, delta_bias)
        keep = torch.is_grad_enabled() and any(t is not None and t.requires_grad for t in tensors)
        y, last, _ = scan_op(*tensors, delta_softplus, name, keep, out_dtype)
    return (y, last) if return_last_state else y


def _check(u, delta, A, B, C, D, z, delta_bias) -> None:
    if u.ndim != 3:
        raise ValueError(f"`u` is {tuple(u.shape)}; expected three axes, (batch, length, d_inner)")
    if A.ndim != 2:
        raise ValueError(f"`A` is {tuple(A.shape)}; expected two axes, (d_inner, d_state)")
    sizes = dict(zip(("batch", "length", "d_inner", "d_state"), (*u.shape, A.shape[1]), strict=True))
    axes = {
        "delta": (delta, ("batch", "length", "d_inner")),
        "A": (A, ("d_inner", "d_state")),
        "B": (B, ("batch", "length", "d_state")),
        "C": (C, ("batch", "length", "d_state")),
        "D": (D, ("d_inner",)),
        "z": (z, ("batch", "length", "d_inner")),
        "delta_bias": (delta_bias, ("d_inner",)),
    }
    for name, (tensor, names) in axes.items():
        if tensor is None:
            continue
        expected = tuple(sizes[axis] for axis in names)
        if tuple(tensor.shape) != expected:
            raise ValueError(
                f"`{name}` is {tuple(tensor.shape)}; expected ({', '.join(names)}) = {expected} from `u` and `A`"
            )
        if tensor.device != u.device:
            raise ValueError(f"`{name}` is on {tensor.device}, `u` on {u.device}; move them to one device")
    for name, tensor in {"u": u, **{name: t for name, (t, _) in axes.items()}}.items():
        if tensor is not None and not tensor.is_floating_point():
            raise ValueError(f"`{name}` is {tensor.dtype}; expected a real floating-point dtype")
