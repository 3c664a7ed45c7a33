"""The selective scan on the CPU in compiled C++ (``ops/csrc``): vectorised over channels, memory O(length * d_inner).

The library is built when the package is installed and loaded with ctypes when it is first needed. It contains code for
several instruction sets and takes the best one that the processor has. Its threads are those of PyTorch's own OpenMP
runtime, as many as ``torch.get_num_threads()`` says at each call.
"""

from __future__ import annotations

import ctypes
from functools import cache
from pathlib import Path

import torch
from torch import Tensor

NAME = "cpu_native"
COMPUTE_DTYPES = (torch.float32, torch.float64)
LIBRARY = Path(__file__).resolve().parent.parent / "_native.so"
# Index into instruction_sets(); the first one is the fastest.
INSTRUCTION_SET = 0
REINSTALL = "pip install --force-reinstall --no-deps --no-cache-dir nnunetv2-lightm"


class _Rows(ctypes.Structure):
    _fields_ = [("data", ctypes.c_void_p), ("batch_stride", ctypes.c_int64), ("token_stride", ctypes.c_int64)]


class _Problem(ctypes.Structure):
    """``ScanProblem`` of csrc/scan.hpp."""

    _fields_ = [
        *((name, ctypes.c_int64) for name in ("batch", "length", "channels", "states", "delta_rank")),
        *((name, ctypes.c_int32) for name in ("is_double", "delta_softplus", "resume", "accumulate")),
        *((name, _Rows) for name in ("u", "delta", "B", "C", "z", "grad_y")),
        *((name, ctypes.c_void_p) for name in ("A", "D", "delta_bias", "delta_weight", "grad_last", "first_state")),
        *((name, ctypes.c_void_p) for name in ("checkpoints", "y", "last_state")),
        *((f"grad_{name}", ctypes.c_void_p) for name in ("u", "delta", "A", "B", "C", "D", "z", "delta_bias")),
        ("grad_first_state", ctypes.c_void_p),
    ]


def not_supported_reason(device_type: str) -> str | None:
    """Why this backend cannot run on the device; None: it can."""
    if device_type != "cpu":
        return "CPU only"
    library = _library()
    return library if isinstance(library, str) else None


def describe() -> str:
    return f"compiled C++, {instruction_sets()[INSTRUCTION_SET]} instructions"


def instruction_sets() -> list[str]:
    """Instruction sets that the library and this processor have, the fastest first."""
    names = []
    while (name := library().nnunetv2_lightm_instruction_set(len(names))) is not None:
        names.append(name.decode())
    return names


def checkpoint_count(length: int) -> int:
    """Number of checkpointed states for a sequence of the length."""
    return -(-length // library().nnunetv2_lightm_chunk_length())


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
    y = u.new_empty(batch, length, d_inner)
    last = u.new_empty(batch, d_inner, d_state)
    chunks = checkpoint_count(length)
    checkpoints = u.new_empty((batch, chunks, d_state, d_inner) if keep_checkpoints else 0)
    if u.numel() == 0 or d_state == 0:
        skip = torch.zeros_like(u) if D is None else u * D
        return skip if z is None else skip * torch.nn.functional.silu(z), last.zero_(), checkpoints

    call = _Call(u, delta, A, B, C, D, z, delta_bias, delta_softplus)
    call.give(y=y, last_state=last, checkpoints=checkpoints if keep_checkpoints else None)
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
    call.give_rows(grad_y=grad_y)
    call.give(grad_last=grad_last, checkpoints=checkpoints)
    call.give(**{f"grad_{name}": grad for name, grad in zip(names, grads, strict=True)})
    call.run(backward=True)
    return tuple(grads)


class _Call:
    """The description of one scan for the library; keeps the tensors alive that it points to."""

    def __init__(self, u, delta, A, B, C, D, z, delta_bias, delta_softplus):
        self._tensors = []
        self._dtype = u.dtype
        self._problem = _Problem(*u.shape, A.shape[1], 0, u.dtype == torch.float64, delta_softplus)
        self.give_rows(u=u, delta=delta, B=B, C=C, z=z)
        self.give(A=A, D=D, delta_bias=delta_bias)

    def give(self, **tensors: Tensor | None) -> None:
        for name, tensor in tensors.items():
            if tensor is not None:
                setattr(self._problem, name, self._kept(tensor.contiguous()).data_ptr())

    def give_rows(self, **tensors: Tensor | None) -> None:
        """Tensors (batch, length, k) of which only the last axis must be contiguous: slices are not copied."""
        for name, tensor in tensors.items():
            if tensor is None:
                continue
            if tensor.stride(2) != 1:
                tensor = tensor.contiguous()
            setattr(self._problem, name, _Rows(self._kept(tensor).data_ptr(), tensor.stride(0), tensor.stride(1)))

    def run(self, backward: bool) -> None:
        problem = ctypes.byref(self._problem)
        if library().nnunetv2_lightm_scan(problem, INSTRUCTION_SET, torch.get_num_threads(), backward) != 0:
            raise MemoryError(f"selective scan: no memory left for u of {tuple(self._tensors[0].shape)}")

    def _kept(self, tensor: Tensor) -> Tensor:
        if tensor.dtype != self._dtype or tensor.device.type != "cpu":
            raise ValueError(
                f"a tensor is {tensor.dtype} on {tensor.device}; expected {self._dtype} on the CPU, as `u`"
            )
        self._tensors.append(tensor)
        return tensor


def library() -> ctypes.CDLL:
    """The compiled library. Raises RuntimeError with the reason where there is none."""
    library = _library()
    if isinstance(library, str):
        raise RuntimeError(f"scan backend {NAME!r}: {library}")
    return library


@cache
def _library() -> ctypes.CDLL | str:
    """The compiled library, or why there is none."""
    if not LIBRARY.is_file():
        return f"was not compiled at installation, which needs GCC or Clang (C++17): install one, then {REINSTALL}"
    try:
        library = ctypes.CDLL(str(LIBRARY))
    except OSError as error:
        return f"its compiled library does not load ({error}): {REINSTALL}"
    library.nnunetv2_lightm_problem_bytes.restype = ctypes.c_int64
    if library.nnunetv2_lightm_problem_bytes() != ctypes.sizeof(_Problem):
        return f"its compiled library is of another version of this package: {REINSTALL}"
    library.nnunetv2_lightm_rvm.argtypes = [ctypes.c_void_p, ctypes.c_int64, ctypes.c_int64, ctypes.c_int]
    library.nnunetv2_lightm_depthwise.argtypes = [ctypes.c_void_p, ctypes.c_int64, ctypes.c_int64, ctypes.c_int]
    library.nnunetv2_lightm_rvm_checkpoints.argtypes = [ctypes.c_void_p]
    library.nnunetv2_lightm_rvm_checkpoints.restype = ctypes.c_int64
    library.nnunetv2_lightm_chunk_length.restype = ctypes.c_int64
    library.nnunetv2_lightm_instruction_set.argtypes = [ctypes.c_int64]
    library.nnunetv2_lightm_instruction_set.restype = ctypes.c_char_p
    library.nnunetv2_lightm_scan.argtypes = [ctypes.POINTER(_Problem), ctypes.c_int64, ctypes.c_int64, ctypes.c_int]
    library.nnunetv2_lightm_use_openmp.argtypes = [ctypes.c_void_p]
    library.nnunetv2_lightm_use_openmp.restype = None
    library.nnunetv2_lightm_use_openmp(_torch_openmp())
    return library


def _torch_openmp() -> int | None:
    """Address of GOMP_parallel in the OpenMP runtime that PyTorch is linked to; None if it has none of that kind."""
    try:
        # Searches the library and those it depends on, not the whole process.
        function = ctypes.CDLL(torch._C.__file__).GOMP_parallel
    except (OSError, AttributeError):
        return None
    return ctypes.cast(function, ctypes.c_void_p).value
