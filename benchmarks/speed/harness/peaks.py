"""What this machine can do at best: GFLOP/s of a large matrix product and of a large convolution, GB/s of a large copy.

PyTorch computes the two with different libraries, one of which may not use everything that the processor has.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F

from nnunetv2_lightm.measure.timing import Spread, alternate

from .timing import Effort

MATRIX, QUICK_MATRIX = 2048, 256
CHANNELS, KERNEL, EDGE, QUICK_EDGE = 128, 3, 32, 8
COPY_MIB, QUICK_COPY_MIB = 512, 16


def measure_peaks(effort: Effort) -> dict[str, Spread]:
    """Keys "matmul_gflops" and "convolution_gflops" (float32), "copy_gbytes_per_s" (bytes read plus bytes written)."""
    size, edge = (QUICK_MATRIX, QUICK_EDGE) if effort.quick else (MATRIX, EDGE)
    a, b, product = torch.randn(size, size), torch.randn(size, size), torch.empty(size, size)
    x, kernel = torch.randn(1, CHANNELS, *[edge] * 3), torch.randn(CHANNELS, CHANNELS, *[KERNEL] * 3)
    source = torch.ones((QUICK_COPY_MIB if effort.quick else COPY_MIB) << 18)
    copy = torch.empty_like(source)
    times = alternate(
        {
            "matmul": lambda: torch.mm(a, b, out=product),
            "convolution": lambda: F.conv3d(x, kernel, padding=KERNEL // 2),
            "copy": lambda: copy.copy_(source),
        },
        effort,
    )
    return {
        "matmul_gflops": _rate(2 * size**3 / 1e9, times["matmul"]),
        "convolution_gflops": _rate(2 * CHANNELS**2 * KERNEL**3 * edge**3 / 1e9, times["convolution"]),
        "copy_gbytes_per_s": _rate(2 * source.nbytes / 1e9, times["copy"]),
    }


def _rate(amount: float, seconds: Spread) -> Spread:
    """A short time is a high rate: the quartiles change places."""
    return Spread(amount / seconds.median, amount / seconds.q3, amount / seconds.q1, seconds.samples)
