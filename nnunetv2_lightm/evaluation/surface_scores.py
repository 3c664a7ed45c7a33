"""HD95 and NSD of one case, by MONAI.

With S_P and S_R the surfaces of prediction and reference, and d(s, S) the distance of s to the nearest point of S:

    HD95 = max(P95 of d(s, S_R) over s in S_P, P95 of d(s, S_P) over s in S_R)                    (mm; less is better)
    NSD  = (|{s in S_P: d(s, S_R) <= t}| + |{s in S_R: d(s, S_P) <= t}|) / (|S_P| + |S_R|)        (tolerance t in mm)

HD95 is taken over the centres of the voxels that have a neighbour outside the mask, as in Metrics Reloaded (Maier-Hein
et al. 2024); |.| of NSD is the area of the surface's elements, in 2D their length, as Nikolov et al. 2021 define it, so
that anisotropic voxels do not weigh more than they measure. MONAI is maintained, tested and needed for the
baselines anyway. HD95 is its function. Its function for NSD takes 140 bytes per voxel; here its surface elements are
made slab by slab, with the same result.

Empty masks: where neither the reference nor the prediction has a voxel of the class, neither score counts (NaN). Where
only one has, NSD is 0 and HD95 the diagonal of the image, the longest distance in it, as in the BraTS challenge.
Leaving such cases out would reward a method that finds nothing where it is unsure; an infinity would leave no mean to
compare.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
import torch
from scipy.ndimage import find_objects
from scipy.spatial import KDTree

from ..extras import import_extra
from .scores import class_mask

SURFACE_METRICS = ("HD95_mm", "NSD")

_SLAB_VOXELS = 4_000_000
_USER = "evaluating surfaces (HD95, NSD)"


def require_monai() -> None:
    """Check for MONAI before hours of work. Raises: ImportError: with the command that installs it."""
    import_extra("monai.metrics", _USER)


def score_surfaces(
    prediction: np.ndarray,
    reference: np.ndarray,
    classes: Mapping[str, tuple[int, ...]],
    ignored: int | None = None,
    *,
    spacing_mm: Sequence[float],
    tolerance_mm: float,
) -> np.ndarray:
    """HD95 and NSD of one case.

    Args:
        prediction: Label values, (z, y, x); with one slice the surface is the contour in it.
        reference: Label values, the same shape.
        classes: Name to the values that make up the class.
        ignored: Reference value of voxels that belong to no class, in neither of the two.
        spacing_mm: Voxel spacing, (z, y, x); distances come out in its unit.
        tolerance_mm: Largest distance at which a surface still counts as correct.
    Returns: (2, classes) in the order of `SURFACE_METRICS`.
    Raises: ImportError: if MONAI is missing.
    """
    metrics = import_extra("monai.metrics", _USER)
    spacing = tuple(float(length) for length in spacing_mm)
    if prediction.shape[0] == 1:
        # nnU-Net's readers give a 2D image a slice of made-up thickness.
        prediction, reference, spacing = prediction[0], reference[0], spacing[1:]
    diagonal = math.dist(np.multiply(reference.shape, spacing), np.zeros(len(spacing)))
    kept = None if ignored is None else reference != ignored

    scores = np.full((len(SURFACE_METRICS), len(classes)), np.nan)
    for i, values in enumerate(classes.values()):
        masks = np.stack([class_mask(prediction, values), class_mask(reference, values)])
        if kept is not None:
            masks &= kept
        filled = masks.reshape(2, -1).any(axis=1)
        if not filled.all():
            if filled.any():
                scores[:, i] = diagonal, 0
            continue
        # Outside the union's box there is no surface, and a CT is much larger than most organs.
        (box,) = find_objects((masks[0] | masks[1]).view(np.uint8))
        masks = masks[(slice(None), *box)]
        predicted, present = torch.from_numpy(masks.copy())[:, None, None]
        distance = metrics.compute_hausdorff_distance(
            predicted, present, include_background=True, percentile=95, spacing=spacing
        )
        scores[:, i] = distance.item(), surface_dice(masks, spacing, tolerance_mm)
    return scores


def surface_dice(masks: np.ndarray, spacing_mm: Sequence[float], tolerance_mm: float) -> float:
    """NSD of two masks that both have voxels.

    Args:
        masks: Prediction and reference, bool, (2, z, y, x) or (2, y, x).
        spacing_mm: One for each spatial axis.
        tolerance_mm: A distance that exceeds it by rounding alone is within it.
    """
    surfaces = _surface_elements(masks, spacing_mm)
    trees = [KDTree(points) for points, _ in surfaces]
    within = 0.0
    for (points, areas), other in zip(surfaces, reversed(trees)):
        # The query returns infinity for anything at this distance or farther.
        distances, _ = other.query(points, distance_upper_bound=tolerance_mm * (1 + 1e-6) + 1e-9)
        within += areas[np.isfinite(distances)].sum()
    return float(within / sum(areas.sum() for _, areas in surfaces))


def _surface_elements(masks: np.ndarray, spacing_mm: Sequence[float]) -> list[tuple[np.ndarray, np.ndarray]]:
    """Surface elements of each mask: their positions in mm, (n, axes), and areas (lengths in 2D), (n,).

    An element lies between 2 x 2 (x 2) voxels, of which some are in the mask.
    """
    get_mask_edges = import_extra("monai.metrics.utils", _USER).get_mask_edges
    padded = torch.from_numpy(np.pad(masks, [(0, 0)] + [(1, 1)] * (masks.ndim - 1)))
    num_slices = padded.shape[1]
    step = max(1, _SLAB_VOXELS // padded[0, 0].numel())
    elements_of = ([], [])
    for start in range(0, num_slices - 1, step):
        slab = padded[:, start : start + step + 1]  # one slice more: elements lie between slices
        edges_and_areas = get_mask_edges(slab[0], slab[1], crop=False, spacing=spacing_mm)
        for i, elements in enumerate(elements_of):
            edges, areas = edges_and_areas[i], edges_and_areas[2 + i]
            places = np.argwhere(edges.numpy())
            places[:, 0] += start
            elements.append((places * np.asarray(spacing_mm), areas[edges].numpy().astype(float)))
    return [tuple(map(np.concatenate, zip(*elements))) for elements in elements_of]
