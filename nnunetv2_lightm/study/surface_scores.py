"""HD95 and NSD of one case, by MONAI.

With S_P and S_R the surfaces of prediction and reference, and d(s, S) the distance of s to the nearest point of S:

    HD95 = max(P95 of d(s, S_R) over s in S_P, P95 of d(s, S_P) over s in S_R)                    (mm; less is better)
    NSD  = (|{s in S_P: d(s, S_R) <= t}| + |{s in S_R: d(s, S_P) <= t}|) / (|S_P| + |S_R|)        (tolerance t in mm)

HD95 is taken over the centres of the voxels that have a neighbour outside the mask, as in Metrics Reloaded (Maier-Hein
et al. 2024); |.| of NSD is the surface's area, in 2D its length, as Nikolov et al. 2021 define it, so that anisotropic
voxels do not weigh more than they measure. Both are MONAI's, which is maintained, tested, and already there for the
baselines; the packages of DeepMind's code and medpy change seldom.

Empty masks: where neither the reference nor the prediction has a voxel of the class, neither score counts (NaN). Where
only one has, NSD is 0 and HD95 the diagonal of the image, the longest distance in it, as in the BraTS challenge: left
out, such cases would reward a method that finds nothing where it is unsure; an infinity would leave no mean to compare.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
import torch
from scipy.ndimage import find_objects

from ..extras import import_extra
from .scores import class_mask

SURFACE_METRICS = ("HD95_mm", "NSD")


def require_monai() -> None:
    """See to it that MONAI is there before hours are spent. Raises: ImportError: with the command that installs it."""
    import_extra("monai.metrics", "evaluating surfaces (HD95, NSD)")


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
        spacing_mm: Of the voxels, (z, y, x); in another unit, so is the result.
        tolerance_mm: A surface this far away is still right.
    Returns: (2, classes) in the order of `SURFACE_METRICS`.
    Raises: ImportError: if MONAI is missing.
    """
    metrics = import_extra("monai.metrics", "evaluating surfaces (HD95, NSD)")
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
        # Of a CT the organ's box alone is looked at: MONAI makes several copies of what it is given.
        (box,) = find_objects((masks[0] | masks[1]).view(np.uint8))
        predicted, present = torch.from_numpy(masks[(slice(None), *box)].copy())[:, None, None]
        arguments = {"include_background": True, "spacing": spacing}
        distance = metrics.compute_hausdorff_distance(predicted, present, percentile=95, **arguments)
        overlap = metrics.compute_surface_dice(predicted, present, [tolerance_mm], use_subvoxels=True, **arguments)
        scores[:, i] = distance.item(), overlap.item()
    return scores
