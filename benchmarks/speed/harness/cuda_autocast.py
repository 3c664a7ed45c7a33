"""CUDA's autocast on a CPU, to see the dtypes, overflows and memory of a GPU without one.

The CPU's autocast casts other operators than CUDA's. ``cuda_rules`` makes them the same for the operators of our
networks, of nnU-Net's and of its loss. The tests compare the dtypes with those of fake CUDA tensors.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

ATEN = torch.ops.aten
# CUDA computes these in float32, a CPU in the dtype of the input.
FLOAT32 = (
    ATEN.layer_norm.default,
    ATEN.upsample_bilinear2d.vec,
    ATEN.upsample_trilinear3d.vec,
    ATEN.softmax.int,
    ATEN.cross_entropy_loss.default,
)
# A CPU computes these in float32, CUDA in the dtype of the input.
UNCHANGED = (ATEN.max_pool3d.default,)


@contextmanager
def cuda_rules() -> Iterator[None]:
    """``torch.autocast("cpu")`` follows CUDA's rules."""
    library = torch.library.Library("aten", "IMPL")
    for operator in FLOAT32:
        library.impl(operator, _in_float32(operator), "AutocastCPU")
    for operator in UNCHANGED:
        library.impl(operator, torch.library.fallthrough_kernel, "AutocastCPU")
    try:
        yield
    finally:
        library._destroy()


def _in_float32(operator: Callable) -> Callable:
    def kernel(*arguments: object, **options: object) -> Tensor:
        with torch.autocast("cpu", enabled=False):
            return operator(
                *(a.float() if isinstance(a, Tensor) and a.is_floating_point() else a for a in arguments), **options
            )

    return kernel
