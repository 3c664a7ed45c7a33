"""Whether Triton can run kernels here."""

from __future__ import annotations

import os
import subprocess
from functools import cache

# What comes with PyTorch 2.10, the oldest that this package takes; Triton 3.3 does not compile all kernels.
MIN_TRITON = (3, 6)
# Times 10, as Triton writes it.
MIN_COMPUTE_CAPABILITY = 70


def not_supported_reason(device_type: str) -> str | None:
    """Why this backend cannot run on the device; None: it can."""
    interpreter_wanted = bool(os.environ.get("TRITON_INTERPRET"))
    if device_type != "cuda" and not (device_type == "cpu" and interpreter_wanted):
        return "CUDA only"
    try:
        import triton
    except ImportError as error:
        return (
            f"needs Triton ({error}), which comes with PyTorch for CUDA on Linux; elsewhere install the version that "
            "fits this PyTorch: pip install triton, on Windows triton-windows"
        )
    if tuple(map(int, triton.__version__.split(".")[:2])) < MIN_TRITON:
        return (
            f"needs Triton {MIN_TRITON[0]}.{MIN_TRITON[1]}, which comes with PyTorch 2.10; this is {triton.__version__}"
        )
    # Triton decides this when a kernel is defined; for its own kernels, when it is imported.
    if not isinstance(triton.language.sum, triton.runtime.JITFunction):
        return None
    return (
        "CUDA only; TRITON_INTERPRET was set after Triton had been imported" if device_type == "cpu" else _no_launch()
    )


@cache
def _no_launch() -> str | None:
    """Why Triton cannot launch kernels here; None: it can."""
    from triton.runtime import driver

    try:
        # Compiles Triton's own driver stub: this needs a C compiler, the headers of Python and a driver of the GPU.
        target = driver.active.get_current_target()
    except (RuntimeError, OSError, ImportError, subprocess.SubprocessError) as error:
        return f"Triton cannot launch kernels here: {error}"
    if target.backend == "cuda" and target.arch < MIN_COMPUTE_CAPABILITY:
        return (
            f"Triton needs a GPU of compute capability {MIN_COMPUTE_CAPABILITY / 10}, this one has {target.arch / 10}"
        )
    return None
