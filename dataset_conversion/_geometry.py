"""Where voxels lie: do image and label agree, and resampling of both onto a grid of another size.

Geometries are voxel-to-millimetre maps in ITK's world (LPS), over voxel indices in ITK's order (x, y, z).
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import numpy as np
import SimpleITK as sitk

from ._errors import CaseRefused

# Two geometries agree up to rounding if no voxel's centre moves by more than this share of the image's shortest voxel
# edge: 0.17 mm at 0.7 mm. It covers headers rounded to three decimals over 512 voxels, and stays clear of half a
# voxel, the shift between the two conventions of where an image begins, which is a real disagreement.
ROUNDING_SHARE_OF_VOXEL = 0.25


def voxel_to_mm(image: sitk.Image) -> np.ndarray:
    """The (dimension + 1) square matrix from voxel indices to mm."""
    dimension = image.GetDimension()
    matrix = np.eye(dimension + 1)
    matrix[:-1, :-1] = np.reshape(image.GetDirection(), (dimension, dimension)) * image.GetSpacing()
    matrix[:-1, -1] = image.GetOrigin()
    return matrix


def largest_shift_mm(first: np.ndarray, second: np.ndarray, size: Sequence[int]) -> float:
    """How far a voxel's centre moves, at most, if one geometry is taken for the other; it does so at a corner."""
    corners = np.array([(*corner, 1) for corner in itertools.product(*((0, n - 1) for n in size))], dtype=float)
    return float(np.linalg.norm((corners @ (first - second).T)[:, :-1], axis=1).max())


def rounding_mm(spacing_mm: Sequence[float]) -> float:
    """The largest shift that counts as rounding."""
    return ROUNDING_SHARE_OF_VOXEL * min(spacing_mm)


def adopt_geometry(label: sitk.Image, image: sitk.Image) -> str | None:
    """Give the label the image's geometry if they agree up to rounding.

    Returns: What was mended; None if nnU-Net takes the two for equal anyway.
    Raises:
        CaseRefused: if shapes or geometries really differ.
    """
    if label.GetSize() != image.GetSize():
        raise CaseRefused(
            f"image and label differ in shape: image {image.GetSize()[::-1]}, label {label.GetSize()[::-1]} (z, y, x)"
        )
    # The comparison of nnU-Net's integrity check.
    equal = all(
        np.allclose(ours, theirs)
        for ours, theirs in (
            (label.GetSpacing(), image.GetSpacing()),
            (label.GetOrigin(), image.GetOrigin()),
            (label.GetDirection(), image.GetDirection()),
        )
    )
    shift_mm = largest_shift_mm(voxel_to_mm(label), voxel_to_mm(image), image.GetSize())
    limit_mm = rounding_mm(image.GetSpacing())
    if shift_mm > limit_mm:
        raise CaseRefused(
            f"image and label lie up to {shift_mm:.4g} mm apart, more than rounding ({limit_mm:.4g} mm): image "
            f"{describe(image)}; label {describe(label)}. If their voxels do correspond one to one, copy the image's "
            "header to the label and convert again"
        )
    label.CopyInformation(image)
    return None if equal else f"label took the image's geometry (they differed by at most {shift_mm:.4g} mm)"


def describe(image: sitk.Image) -> str:
    """Origin, spacing and direction, for messages."""
    parts = (("origin", image.GetOrigin()), ("spacing", image.GetSpacing()), ("direction", image.GetDirection()))
    return ", ".join(f"{name} ({', '.join(f'{value:.7g}' for value in values)})" for name, values in parts)


def resample_to_shape(image: sitk.Image, shape: Sequence[int], *, is_label: bool) -> sitk.Image:
    """Resample onto `shape` voxels over the same physical extent.

    Args:
        image: Image or label, 2D or 3D.
        shape: In numpy's order, (z, y, x) or (y, x).
        is_label: Nearest neighbour if True; otherwise linear, and rounded if the image holds integers.
    Returns: An image of the same dtype; its spacing is the old one times old size over new size.
    """
    size = tuple(int(n) for n in reversed(shape))
    old_spacing = np.array(image.GetSpacing())
    spacing = old_spacing * image.GetSize() / size
    # The outer edges stay, so the first voxel's centre moves by half the difference of the edges' lengths.
    first_centre = image.TransformContinuousIndexToPhysicalPoint(list((spacing / old_spacing - 1) / 2))
    resampler = sitk.ResampleImageFilter()
    resampler.SetSize(size)
    resampler.SetOutputSpacing(spacing.tolist())
    resampler.SetOutputOrigin(first_centre)
    resampler.SetOutputDirection(image.GetDirection())
    if is_label:
        resampler.SetInterpolator(sitk.sitkNearestNeighbor)
        return resampler.Execute(image)
    resampler.SetInterpolator(sitk.sitkLinear)
    resampler.SetOutputPixelType(sitk.sitkFloat32)
    resampled = resampler.Execute(image)
    # ITK would truncate towards zero.
    is_integer = np.issubdtype(sitk.GetArrayViewFromImage(image).dtype, np.integer)
    return sitk.Cast(sitk.Round(resampled) if is_integer else resampled, image.GetPixelID())
