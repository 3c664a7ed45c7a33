"""LightMUNet and one of nnU-Net's networks, ready to take turns at the same work."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, partial

from .checks import network_failure
from .models import (
    LAYOUTS,
    NNUNET,
    forward_pass,
    light_m_unet,
    nnunet_name,
    nnunet_unet,
    ours_name,
    sample,
    training_step,
)
from .results import Row
from .timing import Effort, fastest

WORKS = {"forward": forward_pass, "training": training_step}
# nnU-Net's network needs at least 2 voxels along one axis at its lowest resolution.
PATCHES = {"3d_64": (64, 64, 64), "3d_128": (128, 128, 128), "2d_512": (512, 512)}
QUICK_PATCHES = {"3d_64": (64, 32, 32), "3d_128": (64, 64, 64), "2d_512": (256, 128)}
CHECK_PATCHES = {3: (16, 12, 10), 2: (40, 36)}


@dataclass(frozen=True)
class Pair:
    """Two networks at the same work.

    Attributes:
        row: The row without its numbers; with the reason, if ours must not be timed.
        ours: One run of ours; None if it must not be timed.
        nnunet: One run of nnU-Net's.
    """

    row: Row
    ours: Callable[[], object] | None
    nnunet: Callable[[], object]


def make_pair(work: str, size: str, effort: Effort, threads: int, rival: str = NNUNET) -> Pair:
    """Build both networks, check ours, and find the layout in which nnU-Net's is faster.

    Args:
        work: Key of ``WORKS``.
        size: Key of ``PATCHES``.
        effort: Decides between the real and the quick patches.
        threads: PyTorch's.
        rival: Key of ``models.RIVALS``.
    """
    patch = patch_of(size, effort)
    prepare, dims = WORKS[work], len(patch)
    runs = {layout: partial(prepare(nnunet_unet(dims, layout, rival)), *sample(patch, layout)) for layout in LAYOUTS}
    layout = fastest(runs)
    ours, failure = light_m_unet(dims), check(dims)
    row = Row(
        f"{work}_{size}",
        f"{describe(work)}, {'x'.join(map(str, patch))}",
        ours_name(ours),
        nnunet_name(layout, rival),
        threads=threads,
        not_measured=failure,
    )
    return Pair(row, None if failure else partial(prepare(ours), *sample(patch)), runs[layout])


def patch_of(size: str, effort: Effort) -> tuple[int, ...]:
    return (QUICK_PATCHES if effort.quick else PATCHES)[size]


def describe(work: str) -> str:
    return {"forward": "network forward", "training": "network training step"}[work]


@cache
def check(spatial_dims: int) -> str | None:
    """Why our network must not be timed: its difference from the one on the reference scan, on a small image."""
    return network_failure(light_m_unet(spatial_dims), sample(CHECK_PATCHES[spatial_dims])[0])
