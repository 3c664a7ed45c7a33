"""Whether the backend that a fused layer is given can take its operands."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from ._operands import Operands
from .backends import cpu_native, select_backend
from .reference import compute_dtype


def require_backend(operands: Operands, tensors: Sequence[Tensor], backend: str, stored: bool) -> None:
    """Check that a backend runs on the device of the operands and, but for the compiled layers, in their dtype.

    Raises:
        ValueError: if the compiled layers do not run there.
        RuntimeError: if another backend does not.
    """
    if not stored:
        return
    device = tensors[0].device
    if backend != cpu_native.NAME:
        select_backend(device.type, backend, compute_dtype(*tensors))
    elif (reason := cpu_native.not_supported_reason(device.type)) is not None:
        operands.refuse(f"`x` is on {device}, where the compiled layers do not run: {reason}")
