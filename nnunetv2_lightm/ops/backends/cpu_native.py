"""The selective scan on the CPU in compiled C++ (``ops/csrc/scan*``): vectorised over channels, memory
O(length * d_inner)."""

from __future__ import annotations

import torch
from torch import Tensor

from . import native_library
from .native_interface import Rows, ScanProblem

NAME = "cpu_native"
COMPUTE_DTYPES = (torch.float32, torch.float64)
TAKES_HALF = False


def not_supported_reason(device_type: str) -> str | None:
    """Why this backend cannot run on the device; None: it can."""
    if device_type != "cpu":
        return "CPU only"
    found = native_library.library_or_reason()
    return f"its compiled library {found}" if isinstance(found, str) else None


def describe() -> str:
    return f"compiled C++, {native_library.instruction_sets()[native_library.INSTRUCTION_SET]} instructions"


def checkpoint_count(length: int) -> int:
    """Number of checkpointed states for a sequence of the length."""
    return -(-length // chunk_length())


def chunk_length() -> int:
    """Tokens from one checkpoint to the next."""
    return native_library.library().nnunetv2_lightm_chunk_length()


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
    """Inputs in the compute dtype (float32 or float64), on the CPU.

    Returns: y (batch, length, d_inner); last state (batch, d_inner, d_state); checkpoints, the state that each chunk
        starts from, (batch, chunks, d_state, d_inner), or empty if they are not kept.
    """
    batch, length, d_inner = u.shape
    d_state = A.shape[1]
    y = u.new_empty((batch, length, d_inner))
    last = u.new_empty((batch, d_inner, d_state))
    chunks = checkpoint_count(length)
    checkpoints = u.new_empty((batch, chunks, d_state, d_inner) if keep_checkpoints else (0,))
    if u.numel() == 0 or d_state == 0:
        skip = torch.zeros_like(u) if D is None else u * D
        return skip if z is None else skip * torch.nn.functional.silu(z), last.zero_(), checkpoints

    call = _Call(u, delta, A, B, C, D, z, delta_bias, delta_softplus)
    call.set(y=y, last_state=last, checkpoints=checkpoints if keep_checkpoints else None)
    call.run(backward=False)
    return y, last, checkpoints


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
    """Gradients of u, delta, A, B, C, D, z and delta_bias (None where the input is None), in the compute dtype."""
    names = ("u", "delta", "A", "B", "C", "D", "z", "delta_bias")
    inputs = (u, delta, A, B, C, D, z, delta_bias)
    grads = [None if t is None else torch.empty_like(t, memory_format=torch.contiguous_format) for t in inputs]
    if u.numel() == 0:
        return tuple(None if g is None else g.zero_() for g in grads)

    call = _Call(*inputs, delta_softplus)
    call.set_rows(grad_y=grad_y)
    call.set(grad_last=grad_last, checkpoints=checkpoints)
    call.set(**{f"grad_{name}": grad for name, grad in zip(names, grads, strict=True)})
    call.run(backward=True)
    return tuple(grads)


class _Call:
    """The description of one scan for the library; keeps the tensors alive that it points to."""

    def __init__(self, u, delta, A, B, C, D, z, delta_bias, delta_softplus):
        self._tensors = []
        self._dtype = u.dtype
        self._problem = ScanProblem(*u.shape, A.shape[1], 0, u.dtype == torch.float64, delta_softplus)
        self.set_rows(u=u, delta=delta, B=B, C=C, z=z)
        self.set(A=A, D=D, delta_bias=delta_bias)

    def set(self, **tensors: Tensor | None) -> None:
        for name, tensor in tensors.items():
            if tensor is not None:
                setattr(self._problem, name, self._kept(tensor.contiguous()).data_ptr())

    def set_rows(self, **tensors: Tensor | None) -> None:
        """Tensors (batch, length, k) of which only the last axis must be contiguous: slices are not copied."""
        for name, tensor in tensors.items():
            if tensor is None:
                continue
            if tensor.stride(2) != 1:
                tensor = tensor.contiguous()
            setattr(self._problem, name, Rows(self._kept(tensor).data_ptr(), tensor.stride(0), tensor.stride(1)))

    def run(self, backward: bool) -> None:
        native_library.run(self._problem, backward, f"selective scan of {tuple(self._tensors[0].shape)}")

    def _kept(self, tensor: Tensor) -> Tensor:
        if tensor.dtype != self._dtype or tensor.device.type != "cpu":
            raise ValueError(
                f"a tensor is {tensor.dtype} on {tensor.device}; expected {self._dtype} on the CPU, as `u`"
            )
        self._tensors.append(tensor)
        return tensor
