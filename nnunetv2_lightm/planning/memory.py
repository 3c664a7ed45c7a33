"""What a training step of LightMUNet takes in memory, by the voxels at each resolution.

Unlike nnU-Net's network, this one spends most of its memory on what a stage computes inside: maps of twice the stage's
channels, of which the selective scan takes some in float32 whatever autocast says. So it is not counted in feature
maps, as nnU-Net's planner does, but in bytes that were measured; ``python
benchmarks/speed/training_memory.py`` measures them again and prints the numbers below.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

Strides = Sequence[Sequence[int]]


@dataclass(frozen=True)
class StepMemory:
    """Coefficients of a training step of the network with its default widths, with deep supervision.

    A sample's peak is in the loss, when all is saved, or in the backward pass of one of the resolutions: what autograd
    has saved up to there, and what the backward pass of that stage takes itself.

    Attributes:
        saved: Bytes that autograd saves for the backward pass, per voxel of each resolution: full, then after each
            pooling.
        backward: Bytes that a stage's backward pass takes itself, per voxel of its resolution and for the channels at
            full resolution; it grows with the stage's channels.
        per_class: Bytes of logits and loss, per class and voxel of the resolutions with logits: all but the lowest.
        fixed_mib: Weights, gradients, the optimizer's state and work space, whatever the patch, in MiB.
    """

    saved: tuple[float, ...]
    backward: float
    per_class: float
    fixed_mib: float

    def sample_bytes(self, patch_size: Sequence[int], strides: Strides, num_classes: int) -> float:
        """One sample's bytes.

        Args:
            patch_size: Spatial size, 2D or 3D.
            strides: One for each resolution, the first of which is 1 on each axis.
            num_classes: Channels of the logits.
        """
        voxels = voxels_at(patch_size, strides)
        peak = saved = 0.0
        for level, (count, per_voxel) in enumerate(zip(voxels, self.saved, strict=True)):
            saved += per_voxel * count
            peak = max(peak, saved + self.backward * 2**level * count)
        return max(peak, saved + self.per_class * num_classes * sum(voxels[:-1]))

    def gib(self, patch_size: Sequence[int], strides: Strides, batch_size: int, num_classes: int) -> float:
        """The whole step's GiB."""
        return self.fixed_mib / 2**10 + batch_size * self.sample_bytes(patch_size, strides, num_classes) / 2**30

    def largest_batch(self, gib: float, patch_size: Sequence[int], strides: Strides, num_classes: int) -> int:
        """How many samples fit into the memory; 0: not even one."""
        left = gib * 2**30 - self.fixed_mib * 2**20
        return max(0, math.floor(left / self.sample_bytes(patch_size, strides, num_classes)))


# On a GPU, under autocast: nothing of it is measured on a GPU. The saved bytes are counted on tensors that have a GPU's
# dtypes and no memory, the rest is what a step takes beyond its saved bytes on a CPU under autocast.
GPU = StepMemory(saved=(2407, 9927, 19672, 67034), backward=2978, per_class=15, fixed_mib=167)
# On a CPU with the compiled layers, which recompute instead of saving: fitted to the peak of the resident memory.
CPU_COMPILED = StepMemory(saved=(198, 1488, 2973, 9244), backward=379, per_class=12, fixed_mib=101)
# Of a GPU's memory; the rest is left to CUDA itself and to the allocator's gaps. Not measured.
USABLE_SHARE = 0.9


def voxels_at(patch_size: Sequence[int], strides: Strides) -> list[int]:
    """Voxels at each resolution; an odd axis is floored, as the network's pooling does."""
    sizes, voxels = list(patch_size), []
    for stride in strides:
        sizes = [max(1, size // step) for size, step in zip(sizes, stride, strict=True)]
        voxels.append(math.prod(sizes))
    return voxels
