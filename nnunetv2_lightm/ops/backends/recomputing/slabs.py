"""The slabs in which a batch is processed: as many whole images as fit, or planes of one."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch

# Voxels x channels of a slab: bounds the memory of a layer beyond its input and output, some 40 bytes each, and still
# keeps a large GPU busy.
SLAB_ELEMENTS = 1 << 23


@dataclass(frozen=True)
class Slab:
    """Planes ``first`` to ``last`` (exclusive; planes lie across the first spatial axis) of some images of a batch.

    Attributes:
        images: Images of the batch in the slab.
        first: First plane.
        last: The plane after the last one.
        planes: Number of planes in the whole image.
    """

    images: slice
    first: int
    last: int
    planes: int

    @property
    def own(self) -> tuple[slice, slice]:
        """Index of the slab into a map of the whole batch."""
        return self.images, slice(self.first, self.last)

    @property
    def halo(self) -> tuple[slice, slice]:
        """Index of the slab with the plane before and the plane after it, where they exist."""
        return self.images, slice(max(0, self.first - 1), min(self.planes, self.last + 1))

    @property
    def inner(self) -> slice:
        """The slab's own planes within its halo."""
        before = min(1, self.first)
        return slice(before, before + self.last - self.first)

    @property
    def beyond(self) -> tuple[int, int]:
        """Planes of the halo that lie beyond the image, before and after it."""
        return int(self.first == 0), int(self.last == self.planes)


def slab_height(spatial: Sequence[int], channels: int, multiple: int) -> int:
    """As many planes as fit into SLAB_ELEMENTS, which may be more than an image has. Sizes may be symbols
    (torch.export)."""
    per_plane = math.prod(spatial[1:]) * channels
    return torch.sym_max(1, SLAB_ELEMENTS // torch.sym_max(1, per_plane * multiple)) * multiple


def slabs_of(batch: int, spatial: Sequence[int], channels: int, multiple: int = 1) -> list[Slab]:
    """All slabs of a batch, in order of planes within each image; all but the last of an image are equally high.

    Args:
        batch: Images.
        spatial: Their size.
        channels: Channels of the map that SLAB_ELEMENTS limits.
        multiple: Number of planes that must stay together: the pooling's window.
    """
    planes = spatial[0]
    per_plane = math.prod(spatial[1:]) * channels
    height = slab_height(spatial, channels, multiple)
    if height >= planes:
        together = max(1, SLAB_ELEMENTS // max(1, per_plane * planes))
        return [Slab(slice(i, min(i + together, batch)), 0, planes, planes) for i in range(0, batch, together)]
    return [
        Slab(slice(i, i + 1), first, min(first + height, planes), planes)
        for i in range(batch)
        for first in range(0, planes, height)
    ]
