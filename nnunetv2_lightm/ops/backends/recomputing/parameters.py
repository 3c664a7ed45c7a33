"""A layer's parameters in the dtypes in which they are used, and the sums of their gradients over slabs.

Both take many tensors at a time: on a GPU each operator on a small tensor costs the host more than the GPU.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


def in_dtypes(tensors: Sequence[Tensor], dtypes: Sequence[torch.dtype]) -> list[Tensor]:
    """Tensors of the same layout in these dtypes; those that have them already are returned as they are."""
    pairs = list(zip(tensors, dtypes, strict=True))
    converted = [t if t.dtype == dtype else torch.empty_like(t, dtype=dtype) for t, dtype in pairs]
    copied = [(new, t) for new, t in zip(converted, tensors, strict=True) if new is not t]
    if copied:
        torch._foreach_copy_(*map(list, zip(*copied, strict=True)))
    return converted


class Gradients:
    """Adds up the gradients of parameters, slab by slab.

    Args:
        parameters: By name, on the device and of the shapes of their gradients.
        wide: Dtype of the sums.
    """

    def __init__(self, parameters: dict[str, Tensor], wide: torch.dtype) -> None:
        self._parameters, self._wide = parameters, wide
        self._of_slab: dict[str, Tensor] = {}
        self._sums: list[Tensor] | None = None

    def add(self, **gradients: Tensor) -> None:
        """A slab's gradients of some parameters, in any dtype."""
        self._of_slab |= gradients

    def end_slab(self) -> None:
        """Add the slab's gradients, of which there must be one for each parameter, to the sums."""
        parts = [self._of_slab.pop(name) for name in self._parameters]
        if self._sums is None:
            # In memory of their own: some are views of the same tensor, which operators must not return.
            self._sums = [torch.empty_like(part, dtype=self._wide) for part in parts]
            torch._foreach_copy_(self._sums, parts)
        else:
            torch._foreach_add_(self._sums, in_dtypes(parts, [self._wide] * len(parts)))

    def sums(self) -> list[Tensor]:
        """The gradients in the order of the parameters, wide and contiguous; zeros if there was no slab."""
        if self._sums is None:
            return [p.new_zeros(p.shape, dtype=self._wide) for p in self._parameters.values()]
        return [total.contiguous() for total in self._sums]
