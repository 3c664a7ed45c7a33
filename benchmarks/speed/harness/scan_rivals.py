"""What the selective scan is compared with: Mamba's reference loop, mamba.py's parallel scan, the exps alone."""

from __future__ import annotations

import ctypes
import math
import timeit
from collections.abc import Callable
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor

from nnunetv2_lightm.measure.machine import version
from nnunetv2_lightm.ops.backends import native_library

LOOP_NAME = "Mamba's reference loop in PyTorch, its layout and order of operations"
# Two arrays of this many floats lie well inside any level-1 cache.
EXP_BUFFER = 2048
EXP2 = 0
BATCHES, CALLS = 20, 200


def reference_loop(u: Tensor, delta: Tensor, A: Tensor, B: Tensor, C: Tensor, D: Tensor, delta_bias: Tensor) -> Tensor:
    """The selective scan as Mamba's own reference (``selective_scan_ref``) computes it: discretise all tokens at
    once with einsum, then go through them one by one.

    u, delta: (batch, d_inner, length); A: (d_inner, d_state); B, C: (batch, d_state, length);
    D, delta_bias: (d_inner,).

    Returns: (batch, d_inner, length).
    """
    delta = F.softplus(delta + delta_bias[:, None])
    decay = torch.exp(torch.einsum("bdl,dn->bdln", delta, A))
    inflow = torch.einsum("bdl,bnl,bdl->bdln", delta, B, u)
    state = u.new_zeros(*u.shape[:2], A.shape[1])
    outputs = []
    for token in range(u.shape[2]):
        state = decay[:, :, token] * state + inflow[:, :, token]
        outputs.append(torch.einsum("bdn,bn->bd", state, C[:, :, token]))
    return torch.stack(outputs, dim=2) + u * D[:, None]


def channels_first(inputs: dict[str, Tensor]) -> dict[str, Tensor]:
    """Our layout's inputs in that of :func:`reference_loop`, contiguous, so that the rival pays for no transpose."""
    sequences = ("u", "delta", "B", "C")
    return {key: t.transpose(1, 2).contiguous() if key in sequences else t for key, t in inputs.items()}


def mamba_py_name() -> str:
    return f"mamba.py's parallel scan (mambapy {version('mambapy')})"


def mamba_py_scan() -> Callable[..., Tensor] | None:
    """mamba.py's selective scan on our layout, with the softplus that its block applies before; None: not installed."""
    try:
        from mambapy.mamba import MambaBlock
    except ImportError:
        return None

    def scan(u: Tensor, delta: Tensor, A: Tensor, B: Tensor, C: Tensor, D: Tensor, delta_bias: Tensor) -> Tensor:
        # The method takes nothing from the block.
        return MambaBlock.selective_scan(None, u, F.softplus(delta + delta_bias), A, B, C, D)

    return scan


class ExpRate:
    """Seconds for one vectorised exp (2^x, on arrays in the level-1 cache) on one thread of this processor.

    The kernels are the compiled library's own; the instruction set with the fastest exp counts, whichever the scan
    runs on. This is a rate that the machine can reach, so the fastest of several short batches of calls counts, minus
    that of empty calls, which is what Python adds to a call.

    Attributes:
        instruction_set: Name of the one with the fastest exp.
    """

    def __init__(self) -> None:
        self._apply = native_library.library().nnunetv2_lightm_apply
        self._buffers = (torch.linspace(-8, 0, EXP_BUFFER), torch.empty(EXP_BUFFER))
        names = native_library.instruction_sets()
        best = [self._seconds(index) for index in range(len(names))]
        self._index = best.index(min(best))
        self.instruction_set = names[self._index]

    def seconds(self) -> float:
        return self._seconds(self._index)

    def _seconds(self, index: int) -> float:
        calls = {count: self._call(count, index) for count in (0, EXP_BUFFER)}
        fastest = dict.fromkeys(calls, math.inf)
        for _ in range(BATCHES):
            for count, call in calls.items():
                fastest[count] = min(fastest[count], timeit.timeit(call, number=CALLS) / CALLS)
        return max(fastest[EXP_BUFFER] - fastest[0], 0.0) / EXP_BUFFER

    def _call(self, count: int, index: int) -> Callable[[], None]:
        arguments = (
            ctypes.c_int(EXP2),
            ctypes.c_int64(index),
            *(ctypes.c_void_p(t.data_ptr()) for t in self._buffers),
            ctypes.c_int64(count),
        )
        return partial(self._apply, *arguments)
