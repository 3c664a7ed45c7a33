"""Geometries of image and label: whether they agree, and resampling both onto a grid of another size."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import SimpleITK as sitk
from skimage.transform import resize_local_mean

from ..images.geometry import advice_on_headers, compare, grid_of
from ._errors import CaseRefused


def adopt_geometry(label: sitk.Image, image: sitk.Image) -> str | None:
    """Give the label the image's geometry if they agree up to rounding.

    Returns: What was repaired; None if nnU-Net takes the two for equal anyway.
    Raises:
        CaseRefused: if shapes or geometries really differ, or a number in them is NaN.
    """
    if label.GetSize() != image.GetSize():
        raise CaseRefused(
            f"image and label differ in shape: image {image.GetSize()[::-1]}, label {label.GetSize()[::-1]} (z, y, x)"
        )
    ours, theirs = grid_of(label), grid_of(image)
    difference = compare(ours, theirs)
    if not difference.is_rounding:
        raise CaseRefused(
            f"image and label lie up to {difference.shift_mm:.4g} mm apart, more than rounding "
            f"({difference.limit_mm:.4g} mm): image {theirs.describe()}; label {ours.describe()}. "
            f"{advice_on_headers(('the label', ours), ('the image', theirs))}, and convert again"
        )
    label.CopyInformation(image)
    if difference.equal:
        return None
    return f"label took the image's geometry (they differed by at most {difference.shift_mm:.4g} mm)"


def resample_to_shape(image: sitk.Image, shape: Sequence[int], *, is_label: bool) -> sitk.Image:
    """Resample onto `shape` voxels over the same physical extent.

    Args:
        image: Image or label, 2D or 3D.
        shape: In numpy's order, (z, y, x) or (y, x).
        is_label: Nearest neighbour if True; otherwise the mean of what a new voxel covers along axes that shrink, which
            lets no pattern finer than the new voxels through as a coarser one, and linear along axes that grow. Rounded
            if the image holds integers.
    Returns: An image of the same dtype; its spacing is the old one times old size over new size.
    """
    pixel = image.GetPixelID()
    is_integer = np.issubdtype(sitk.GetArrayViewFromImage(image).dtype, np.integer)
    if not is_label:
        image = _shrink(image, shape)
    size = tuple(int(n) for n in reversed(shape))
    old_spacing = np.array(image.GetSpacing())
    spacing = old_spacing * image.GetSize() / size
    resampler = sitk.ResampleImageFilter()
    resampler.SetSize(size)
    resampler.SetOutputSpacing(spacing.tolist())
    resampler.SetOutputOrigin(_first_centre(image, spacing / old_spacing))
    resampler.SetOutputDirection(image.GetDirection())
    if is_label:
        resampler.SetInterpolator(sitk.sitkNearestNeighbor)
        return resampler.Execute(image)
    resampler.SetInterpolator(sitk.sitkLinear)
    resampled = resampler.Execute(image)
    # ITK would truncate towards zero.
    return sitk.Cast(sitk.Round(resampled) if is_integer else resampled, pixel)


def _shrink(image: sitk.Image, shape: Sequence[int]) -> sitk.Image:
    """The mean over what each new voxel covers, along the axes that become shorter; float32."""
    old = sitk.GetArrayViewFromImage(image)
    smaller = tuple(min(new, length) for new, length in zip(shape, old.shape))
    if smaller == old.shape:
        return sitk.Cast(image, sitk.sitkFloat32)
    means = resize_local_mean(old.astype(np.float32), smaller, grid_mode=True, preserve_range=True)
    shrunk = sitk.GetImageFromArray(np.ascontiguousarray(means, np.float32))
    factors = np.array(old.shape[::-1]) / smaller[::-1]
    shrunk.SetSpacing((image.GetSpacing() * factors).tolist())
    shrunk.SetDirection(image.GetDirection())
    shrunk.SetOrigin(_first_centre(image, factors))
    return shrunk


def _first_centre(image: sitk.Image, factors: np.ndarray) -> tuple[float, ...]:
    """Where the first voxel's centre lies once voxels are longer by these factors: outer edges stay, so it moves by
    half the difference."""
    return image.TransformContinuousIndexToPhysicalPoint(((factors - 1) / 2).tolist())
