"""The memory of a training step of LightMUNet, from the voxels at each resolution.

The network's layers recompute in their backward pass, one slab of the image at a time, so nnU-Net's way of counting
feature maps does not apply. Memory is counted in bytes; ``python -m benchmarks.speed.training_memory`` counts and
measures it again and prints the numbers below.
"""

from __future__ import annotations

import bisect
import math
from collections.abc import Sequence
from dataclasses import dataclass

Strides = Sequence[Sequence[int]]


@dataclass(frozen=True)
class StepMemory:
    """Coefficients of a training step of the network with its default widths, with deep supervision.

    The peak is in the loss, when everything is saved, or in the backward pass of one of the resolutions: what autograd
    has saved up to there, the gradients of that stage's maps, and the slab being processed. The latter two grow with
    the stage's channels, the slab only until it is full.

    Attributes:
        saved: Bytes that autograd saves for the backward pass, per voxel of each resolution: full, then after each
            pooling.
        backward: Bytes of a stage's backward pass, per voxel of its resolution and for the channels at full resolution.
        slab: The same for the slab being processed.
        slab_voxels: Voxels at full resolution that a slab holds.
        per_class: Bytes of logits and loss, per class and voxel of the resolutions with logits: all but the lowest.
        fixed_mib: Weights, gradients, the optimizer's state and work space, whatever the patch, in MiB.
    """

    saved: tuple[float, ...]
    backward: float
    slab: float
    slab_voxels: int
    per_class: float
    fixed_mib: float

    def maps_bytes(self, patch_size: Sequence[int], strides: Strides, batch_size: int, num_classes: int) -> float:
        """Bytes of a step, without the fixed ones.

        Args:
            patch_size: Spatial size, 2D or 3D.
            strides: One for each resolution, the first of which is 1 on each axis.
            batch_size: Samples.
            num_classes: Channels of the logits.
        """
        voxels = [batch_size * count for count in voxels_at(patch_size, strides)]
        peak = saved = 0.0
        for level, (count, per_voxel) in enumerate(zip(voxels, self.saved, strict=True)):
            saved += per_voxel * count
            wide = 2**level * count
            peak = max(peak, saved + self.backward * wide + self.slab * min(wide, self.slab_voxels))
        return max(peak, saved + self.per_class * num_classes * sum(voxels[:-1]))

    def gib(self, patch_size: Sequence[int], strides: Strides, batch_size: int, num_classes: int) -> float:
        """GiB of the whole step."""
        return self.fixed_mib / 2**10 + self.maps_bytes(patch_size, strides, batch_size, num_classes) / 2**30

    def largest_batch(self, gib: float, patch_size: Sequence[int], strides: Strides, num_classes: int) -> int:
        """How many samples fit into this much memory; 0: not even one."""
        above = 1
        while self.gib(patch_size, strides, above, num_classes) <= gib:
            above *= 2
        return (
            bisect.bisect_right(
                range(above), gib, lo=1, key=lambda batch: self.gib(patch_size, strides, batch, num_classes)
            )
            - 1
        )


# On a GPU, under autocast: counted on tensors that have a GPU's dtypes and no memory, never measured on a GPU.
GPU = StepMemory(saved=(172, 777, 1523, 4637), backward=71, slab=2422, slab_voxels=1 << 18, per_class=17, fixed_mib=19)
# On a CPU with the compiled layers, which recompute as well: fitted to the peak of the resident memory.
CPU_COMPILED = StepMemory(
    saved=(198, 1488, 2973, 9244), backward=379, slab=0, slab_voxels=0, per_class=12, fixed_mib=101
)
# Share of a GPU's memory to plan for; the rest is left to CUDA itself and to fragmentation. Not measured.
USABLE_SHARE = 0.9


def voxels_at(patch_size: Sequence[int], strides: Strides) -> list[int]:
    """Voxels at each resolution; an odd axis is floored, as the network's pooling does."""
    sizes, voxels = list(patch_size), []
    for stride in strides:
        sizes = [max(1, size // step) for size, step in zip(sizes, stride, strict=True)]
        voxels.append(math.prod(sizes))
    return voxels
