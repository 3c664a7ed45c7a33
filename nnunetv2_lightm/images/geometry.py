"""Where voxels lie: a grid, and whether two grids agree up to rounding or really differ.

A grid maps voxel indices (x, y, z) to millimetres in ITK's world (LPS).
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import SimpleITK as sitk

# Two geometries agree up to rounding if no voxel's centre moves by more than this share of the image's shortest voxel
# edge: 0.17 mm at 0.7 mm. It covers headers rounded to three decimals over 512 voxels, and stays clear of half a
# voxel, the shift between the two conventions of where an image begins, which is a real disagreement.
ROUNDING_SHARE_OF_VOXEL = 0.25


@dataclass(frozen=True)
class Grid:
    """Size, in ITK's order (x, y, z), and the square matrix of one row more from voxel indices to mm."""

    size: tuple[int, ...]
    voxel_to_mm: np.ndarray

    @property
    def spacing_mm(self) -> tuple[float, ...]:
        """(x, y, z)."""
        return tuple(float(length) for length in np.linalg.norm(self.voxel_to_mm[:-1, :-1], axis=0))

    @property
    def origin_mm(self) -> tuple[float, ...]:
        """Position of the first voxel's centre."""
        return tuple(float(value) for value in self.voxel_to_mm[:-1, -1])

    @property
    def direction(self) -> np.ndarray:
        """Unit vectors of the axes, in columns."""
        return self.voxel_to_mm[:-1, :-1] / self.spacing_mm

    @property
    def is_default(self) -> bool:
        """Whether software writes this when it has no geometry: voxels of 1 mm along the axes, from 0 on."""
        matrix = self.voxel_to_mm[:-1]
        return bool(np.array_equal(np.abs(matrix), np.eye(len(matrix) + 1)[:-1]))

    @property
    def doubt(self) -> int:
        """If two geometries differ, the one with less doubt is trusted.

        2: a default; 1: along the axes from 0 mm on, like a default with a spacing from elsewhere; 0: any other.
        """
        along_axes = np.array_equal(np.abs(self.direction), np.eye(len(self.direction)))
        return 2 if self.is_default else int(along_axes and not any(self.origin_mm))

    def describe(self) -> str:
        """Origin, spacing and direction, for messages."""
        parts = (("origin", self.origin_mm), ("spacing", self.spacing_mm), ("direction", self.direction.ravel()))
        return ", ".join(f"{name} ({', '.join(f'{value:.7g}' for value in values)})" for name, values in parts)


def grid_of(image: sitk.Image | sitk.ImageFileReader) -> Grid:
    """Size and geometry of an image, or of the file whose header a reader has read."""
    dimension = image.GetDimension()
    matrix = np.eye(dimension + 1)
    matrix[:-1, :-1] = np.reshape(image.GetDirection(), (dimension, dimension)) * image.GetSpacing()
    matrix[:-1, -1] = image.GetOrigin()
    return Grid(image.GetSize(), matrix)


@dataclass(frozen=True)
class Difference:
    """How two grids of one size differ.

    Attributes:
        equal: By nnU-Net's own comparison, np.allclose of spacing, origin and direction.
        shift_mm: Largest distance that a voxel's centre moves if one is taken for the other.
        limit_mm: The largest shift that counts as rounding.
    """

    equal: bool
    shift_mm: float
    limit_mm: float

    @property
    def is_rounding(self) -> bool:
        """False also where a number is NaN."""
        return self.shift_mm <= self.limit_mm


def compare(first: Grid, second: Grid) -> Difference:
    """Compare two grids of the same size."""
    pairs = (
        (first.spacing_mm, second.spacing_mm),
        (first.origin_mm, second.origin_mm),
        (first.direction, second.direction),
    )
    return Difference(
        equal=all(np.allclose(ours, theirs) for ours, theirs in pairs),
        shift_mm=largest_shift_mm(first.voxel_to_mm, second.voxel_to_mm, second.size),
        limit_mm=rounding_mm(second.spacing_mm),
    )


def advice_on_headers(first: tuple[str, Grid], second: tuple[str, Grid]) -> str:
    """Which of two headers, each with its file's name, to copy to the other: not one that looks like a default."""
    (right, trusted), (wrong, doubted) = (first, second) if first[1].doubt < second[1].doubt else (second, first)
    lost = ", which seems to have lost its own (it lies along the axes, from 0 mm on)"
    return f"If their voxels do correspond one to one, copy the header of {right} to {wrong}" + (
        lost if doubted.doubt > trusted.doubt else ""
    )


def largest_shift_mm(first: np.ndarray, second: np.ndarray, size: Sequence[int]) -> float:
    """Largest distance that a voxel's centre moves if one geometry is taken for the other; it occurs at a corner."""
    corners = np.array([(*corner, 1) for corner in itertools.product(*((0, n - 1) for n in size))], dtype=float)
    return float(np.linalg.norm((corners @ (first - second).T)[:, :-1], axis=1).max())


def rounding_mm(spacing_mm: Sequence[float]) -> float:
    """The largest shift that counts as rounding."""
    return ROUNDING_SHARE_OF_VOXEL * min(spacing_mm)
