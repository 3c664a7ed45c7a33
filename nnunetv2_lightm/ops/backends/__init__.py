"""The backends of the selective scan, in order of preference, and the choice among them.

A backend is a module with ``NAME``, ``describe()``, ``not_supported_reason(device_type)``,
``checkpoint_count(length)``, ``forward`` and ``backward`` (see :mod:`.torch_chunked`), imported when it is looked at.
"""

from __future__ import annotations

import importlib
import os
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from types import ModuleType

import torch

ENVIRONMENT_VARIABLE = "NNUNETV2_LIGHTM_BACKEND"
# Fastest first; the first one that supports the device is taken.
REGISTRY: tuple[str, ...] = ("cpu_native", "torch_chunked")
# The specification is not a backend to train with, but may be asked for by name.
REFERENCE = "reference"


@dataclass(frozen=True)
class BackendStatus:
    """One line of the backend table: a backend on a device type ("cpu", "cuda", ...).

    ``reason`` says why it is not usable or, if it is, what it is; ``selected`` marks the one that runs by default.
    """

    name: str
    device: str
    usable: bool
    reason: str
    selected: bool


@cache
def load_backend(name: str) -> ModuleType:
    """Import a backend by its name.

    Raises: ValueError: if there is no backend of that name.
    """
    if name not in REGISTRY:
        raise ValueError(f"no scan backend named {name!r}; there are: {', '.join((*REGISTRY, REFERENCE))}")
    return importlib.import_module(f"{__name__}.{name}")


# torch.compile shall take the name as a constant, not trace how it was found.
@torch.compiler.assume_constant_result
def select_backend(device_type: str, requested: str | None = None) -> str:
    """Name of the backend for the device type.

    Args:
        device_type: "cpu", "cuda", "mps", ...
        requested: A name to force; None: environment variable NNUNETV2_LIGHTM_BACKEND, else the fastest usable one.

    Raises:
        ValueError: if the requested name does not exist.
        RuntimeError: if the requested backend cannot run on the device; never falls back in silence.
    """
    requested = requested or os.environ.get(ENVIRONMENT_VARIABLE) or None
    if requested == REFERENCE:
        return REFERENCE
    reasons = []
    for name in REGISTRY if requested is None else (requested,):
        reason = load_backend(name).not_supported_reason(device_type)
        if reason is None:
            return name
        reasons.append(f"{name}: {reason}")
    wanted = "no scan backend" if requested is None else f"the requested scan backend {requested!r} does not"
    raise RuntimeError(f"{wanted} run(s) on {device_type!r}:\n  " + "\n  ".join(reasons))


def backend_table(device_types: tuple[str, ...] = ("cpu", "cuda", "mps")) -> Iterator[BackendStatus]:
    """The status of each backend on each device type, with reasons."""
    for device in device_types:
        absent = None if _is_present(device) else f"this machine has no {device} device, or this torch cannot use it"
        selected = None if absent else select_backend(device)
        for name in REGISTRY:
            backend = load_backend(name)
            reason = absent or backend.not_supported_reason(device)
            yield BackendStatus(name, device, reason is None, reason or backend.describe(), name == selected)


def _is_present(device_type: str) -> bool:
    accelerator = torch.accelerator.current_accelerator() if torch.accelerator.is_available() else None
    return device_type == "cpu" or (accelerator is not None and accelerator.type == device_type)
