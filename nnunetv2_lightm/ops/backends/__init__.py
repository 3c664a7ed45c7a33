"""The backends of the selective scan, in order of preference, and the choice among them.

A backend is a module with ``NAME``, ``COMPUTE_DTYPES``, ``TAKES_HALF`` (tokens need not be cast), ``describe()``,
``not_supported_reason(device_type)``, ``checkpoint_count(length)``, ``forward`` and ``backward`` (see
:mod:`.torch_chunked`). It is imported on first use. A backend that can start from a given state, and so scan an image
slab by slab, also has ``replay``.
"""

from __future__ import annotations

import importlib
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from dataclasses import dataclass
from functools import cache
from types import ModuleType

import torch

from ..graphs import constant_in_graphs

ENVIRONMENT_VARIABLE = "NNUNETV2_LIGHTM_BACKEND"
# Tried in this order on a device; the first one that can run is used. Elsewhere (MPS, XPU): only the last resort. The
# order on CUDA is a prediction, not measured: mamba-ssm's kernel has one block for each sequence and channel, which
# walks through the tokens 2048 at a time, whereas Triton's chunks run side by side.
PRIORITIES = {
    "cpu": ("cpu_native", "torch_chunked"),
    "cuda": ("triton_gpu", "mamba_ssm_cuda", "torch_chunked"),
}
# If there are enough sequences and channels to fill a GPU with such blocks, and each block has few tokens.
PRIORITIES_SHORT = PRIORITIES | {"cuda": ("mamba_ssm_cuda", "triton_gpu", "torch_chunked")}
SHORT_TOKENS, MANY_BLOCKS = 4096, 512
LAST_RESORT = "torch_chunked"
REGISTRY: tuple[str, ...] = ("cpu_native", "mamba_ssm_cuda", "triton_gpu", "torch_chunked")
# Layers on this backend take their other kernels from Triton too.
TRITON = "triton_gpu"
# The specification is not a backend to train with, but can be requested by name.
REFERENCE = "reference"
# Neither is the scan in operators that every runtime has: see portable_operators().
PORTABLE = "portable"
_portable = ContextVar("portable", default=False)


@contextmanager
def portable_operators() -> Iterator[None]:
    """Within the context no registered operator or compiled code is used: for export to runtimes that have neither."""
    token = _portable.set(True)
    try:
        yield
    finally:
        _portable.reset(token)


def portable_asked_for() -> bool:
    """Whether :func:`portable_operators` is in effect."""
    return _portable.get()


@dataclass(frozen=True)
class BackendStatus:
    """One line of the backend table: a backend on a device type ("cpu", "cuda", ...).

    ``reason`` says why it is not usable or, if it is, what it is; ``considered`` marks those that are tried there
    unless one is requested by name, ``selected`` the one that runs by default.
    """

    name: str
    device: str
    usable: bool
    reason: str
    considered: bool
    selected: bool


def starts_from_a_state(name: str) -> bool:
    """Whether the backend can scan a long sequence piece by piece."""
    return name not in (REFERENCE, PORTABLE) and hasattr(load_backend(name), "replay")


@cache
def load_backend(name: str) -> ModuleType:
    """Import a backend by its name.

    Raises: ValueError: if there is no backend of that name.
    """
    if name not in REGISTRY:
        raise ValueError(f"no scan backend named {name!r}; there are: {', '.join((*REGISTRY, REFERENCE))}")
    return importlib.import_module(f"{__name__}.{name}")


@constant_in_graphs
def select_backend(
    device_type: str, requested: str | None = None, dtype: torch.dtype = torch.float32, short: bool = False
) -> str:
    """Name of the backend for the device type.

    Args:
        device_type: "cpu", "cuda", "mps", ...
        requested: A name to force; None: environment variable NNUNETV2_LIGHTM_BACKEND, else the fastest usable one.
        dtype: The dtype to compute in, float32 or float64.
        short: Whether the sequences are short and many; see :func:`is_short`.

    Raises:
        ValueError: if the requested name does not exist.
        RuntimeError: if the requested backend cannot run on the device or in the dtype; it never silently falls back.
    """
    if portable_asked_for():
        return PORTABLE
    if device_type == "meta":
        # Nothing is computed there: the operator returns shapes, whichever backend is requested.
        return LAST_RESORT
    requested = requested or os.environ.get(ENVIRONMENT_VARIABLE) or None
    if requested == REFERENCE:
        return REFERENCE
    reasons = []
    for name in _considered(device_type, short) if requested is None else (requested,):
        reason = _not_supported_reason(name, device_type, dtype)
        if reason is None:
            return name
        reasons.append(f"{name}: {reason}")
    failed = "no scan backend runs" if requested is None else f"the requested scan backend {requested!r} does not run"
    raise RuntimeError(f"{failed} on {device_type!r}:\n  " + "\n  ".join(reasons))


def backend_table(device_types: tuple[str, ...] = ("cpu", "cuda", "mps")) -> Iterator[BackendStatus]:
    """The status of each backend on each device type, with reasons, in the order in which they are tried there.

    None is selected on a device that is absent or that the requested backend cannot run on.

    Raises: ValueError: if the environment variable NNUNETV2_LIGHTM_BACKEND names no backend.
    """
    for device in device_types:
        absent = None if _is_present(device) else f"this machine has no {device} device, or this torch cannot use it"
        selected = None
        if absent is None:
            with suppress(RuntimeError):
                selected = select_backend(device)
        considered = _considered(device)
        for name in sorted(REGISTRY, key=lambda name: [*considered, *REGISTRY].index(name)):
            reason = absent or _not_supported_reason(name, device)
            described = reason or load_backend(name).describe()
            yield BackendStatus(name, device, reason is None, described, name in considered, name == selected)


def is_short(batch: int, tokens: int, channels: int) -> bool:
    """Whether sequences are so short, and so many with their channels, that cutting them gains nothing."""
    return tokens <= SHORT_TOKENS and batch * channels >= MANY_BLOCKS


def _considered(device_type: str, short: bool = False) -> tuple[str, ...]:
    return (PRIORITIES_SHORT if short else PRIORITIES).get(device_type, (LAST_RESORT,))


def _not_supported_reason(name: str, device_type: str, dtype: torch.dtype = torch.float32) -> str | None:
    backend = load_backend(name)
    if dtype not in backend.COMPUTE_DTYPES:
        return f"does not compute in {dtype}"
    return backend.not_supported_reason(device_type)


def _is_present(device_type: str) -> bool:
    accelerator = torch.accelerator.current_accelerator() if torch.accelerator.is_available() else None
    return device_type == "cpu" or (accelerator is not None and accelerator.type == device_type)
