"""The selective scan by mamba-ssm's compiled CUDA kernel, where that package is installed with its kernel.

The kernel (``selective_scan_cuda`` of state-spaces/mamba, csrc/selective_scan/selective_scan.cpp) takes channels before
tokens, (batch, channels, length), and B and C in groups, (batch, 1, d_state, length); tensors are copied to that layout
and back. It computes in float32, allows at most 256 states, sums the gradients of B and C in no fixed order, so that
their last bits differ from run to run, and has no gradient of the last state, for which this module takes a detour.
"""

from __future__ import annotations

from functools import cache
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from types import ModuleType

import torch
from torch import Tensor

from ...extras import install_command

NAME = "mamba_ssm_cuda"
COMPUTE_DTYPES = (torch.float32,)
TAKES_HALF = False
# Both are fixed in the kernel.
CHUNK_LENGTH = 2048
MAX_STATES = 256


def not_supported_reason(device_type: str) -> str | None:
    """Why this backend cannot run on the device; None: it can."""
    if device_type != "cuda":
        return "CUDA only"
    kernel = _kernel()
    return kernel if isinstance(kernel, str) else None


def describe() -> str:
    return f"compiled kernel of mamba-ssm {version('mamba-ssm')}"


def checkpoint_count(length: int) -> int:
    """Rows of the checkpoints: for each of the kernel's chunks the product of its decays and the state after it."""
    return 2 * -(-length // CHUNK_LENGTH)


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
) -> tuple[Tensor, Tensor, Tensor]:
    """Inputs in float32, on the GPU.

    Returns: y (batch, length, d_inner); last state (batch, d_inner, d_state); checkpoints, what the kernel needs for
        the backward pass, (batch, rows, d_state, d_inner), or empty if they are not kept.

    Raises: ValueError: if there are more states than the kernel has room for.
    """
    batch, length, d_inner = u.shape
    d_state = A.shape[1]
    if d_state > MAX_STATES:
        raise ValueError(
            f"`A` is {tuple(A.shape)}: {d_state} states, mamba-ssm's kernel has at most {MAX_STATES}; "
            'ask for backend "triton_gpu" or set NNUNETV2_LIGHTM_BACKEND=triton_gpu'
        )
    if u.numel() == 0:
        shape = (batch, checkpoint_count(length), d_state, d_inner) if keep_checkpoints else (0,)
        return torch.zeros_like(u), u.new_zeros((batch, d_inner, d_state)), u.new_zeros(shape)

    u, delta, z, B, C = _channels_first(u, delta, z, B, C)
    y, x, *gated = _loaded().fwd(u, delta, A, B[:, None], C[:, None], D, z, delta_bias, delta_softplus)
    y = y if z is None else gated[0]
    # x: (batch, d_inner, chunks, 2 d_state), product and state of each chunk in turn.
    pairs = x.unflatten(-1, (d_state, 2))
    # A copy even of a single element: results must not share memory.
    last = pairs[:, :, -1, :, 1].clone(memory_format=torch.contiguous_format)
    checkpoints = pairs.permute(0, 2, 4, 3, 1).flatten(1, 2).contiguous() if keep_checkpoints else u.new_empty((0,))
    return y.transpose(1, 2).contiguous(), last, checkpoints


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
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor | None, Tensor | None, Tensor | None]:
    """Gradients of u, delta, A, B, C, D, z and delta_bias (None where the input is None), in float32."""
    if u.numel() == 0:
        return tuple(None if t is None else torch.zeros_like(t) for t in (u, delta, A, B, C, D, z, delta_bias))

    length = u.shape[1]
    grad_y, u, delta, z, B, C = _channels_first(grad_y, u, delta, z, B, C)
    if grad_last is not None:
        no_step = _no_step(delta, delta_bias, delta_softplus)
        grad_y, u, delta, z, B, C = _append_last_state(grad_last, no_step, grad_y, u, delta, z, B, C)
    B, C = B[:, None], C[:, None]
    if z is None and grad_last is None:
        x, y = checkpoints.unflatten(1, (-1, 2)).permute(0, 4, 1, 3, 2).flatten(-2).contiguous(), None
    else:
        # The kernel needs the outputs before the gate, and its chunks as they are now.
        y, x = _loaded().fwd(u, delta, A, B, C, D, None, delta_bias, delta_softplus)
    grad_u, grad_delta, grad_A, grad_B, grad_C, grad_D, _, *grad_z = _loaded().bwd(
        u, delta, A, B, C, D, z, delta_bias, grad_y, x, y, None, delta_softplus, False
    )
    tokens = (grad_u, grad_delta, grad_B[:, 0], grad_C[:, 0], grad_z[0] if grad_z else None)
    tokens = (None if t is None else t[..., :length].transpose(1, 2) for t in tokens)
    grad_u, grad_delta, grad_B, grad_C, grad_z = tokens
    grad_bias = None if delta_bias is None else grad_delta.sum((0, 1))
    return grad_u, grad_delta, grad_A, grad_B, grad_C, None if D is None else grad_D, grad_z, grad_bias


def _no_step(delta: Tensor, delta_bias: Tensor | None, delta_softplus: bool) -> Tensor:
    """The delta, (1, d_inner, 1), from which bias and softplus make a step size of exactly 0."""
    if delta_softplus:
        return delta.new_full((1, delta.shape[1], 1), -torch.inf)
    return delta.new_zeros((1, delta.shape[1], 1)) if delta_bias is None else -delta_bias[None, :, None]


def _append_last_state(
    grad_last: Tensor,
    no_step: Tensor,
    grad_y: Tensor,
    u: Tensor,
    delta: Tensor,
    z: Tensor | None,
    B: Tensor,
    C: Tensor,
) -> tuple[Tensor, Tensor, Tensor, Tensor | None, Tensor, Tensor]:
    """The sequence, followed by d_state tokens that leave the state as it is and output its elements one by one.

    The gradient of these outputs is that of the last state.
    """
    batch, d_inner, d_state = grad_last.shape
    nothing = u.new_zeros((batch, d_inner, d_state))
    identity = torch.eye(d_state, dtype=u.dtype, device=u.device).expand(batch, -1, -1)
    if z is not None:
        one = torch.ones_like(nothing)
        z = torch.cat((z, one), -1)
        grad_last = grad_last / torch.nn.functional.silu(one)
    return (
        torch.cat((grad_y, grad_last), -1),
        torch.cat((u, nothing), -1),
        torch.cat((delta, no_step.expand_as(nothing)), -1),
        z,
        torch.cat((B, torch.zeros_like(identity)), -1),
        torch.cat((C, identity), -1),
    )


def _channels_first(*tensors: Tensor | None) -> tuple[Tensor | None, ...]:
    """(batch, length, k) -> (batch, k, length), contiguous."""
    return tuple(None if t is None else t.transpose(1, 2).contiguous() for t in tensors)


def _loaded() -> ModuleType:
    kernel = _kernel()
    if isinstance(kernel, str):
        raise RuntimeError(f"scan backend {NAME!r}: {kernel}")
    return kernel


@cache
def _kernel() -> ModuleType | str:
    """The compiled extension, or why there is none."""
    install = f"{install_command('mamba-ssm')} --no-build-isolation"
    rebuild = (
        f"MAMBA_FORCE_BUILD=TRUE {install} --no-deps --no-cache-dir --force-reinstall, with the CUDA toolkit (nvcc)"
    )
    try:
        installed = f"mamba-ssm {version('mamba-ssm')}"
    except PackageNotFoundError:
        return f"needs mamba-ssm: {install}"
    try:
        return import_module("selective_scan_cuda")
    except ModuleNotFoundError:
        return f"{installed} is installed without its compiled kernel, as versions above 2.3 can be: {rebuild}"
    except ImportError as error:
        return f"the compiled kernel of {installed} does not load ({error}): {rebuild}"
