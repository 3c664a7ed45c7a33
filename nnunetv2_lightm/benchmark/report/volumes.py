"""The files of a case for pictures: read as nnU-Net does, seen as axial slices with the front of the body up."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import SimpleITK as sitk

from ...evaluation.scores import EvaluationError
from ...evaluation.segmentations import choose_reader, read_with_facts

_OPPOSITE = {"L": "R", "P": "A", "S": "I"}


@dataclass(frozen=True)
class Volume:
    """The voxels of one file.

    Attributes:
        voxels: (z, y, x); an image has one slice.
        spacing_mm: (z, y, x).
        stored_shape: The shape in the file, before axes are reordered.
    """

    voxels: np.ndarray
    spacing_mm: tuple[float, ...]
    stored_shape: tuple[int, ...]


class CaseReader:
    """Reads images and label maps of one data set."""

    def __init__(
        self, example: Path, *, labels: Mapping[str, int | list[int]], file_ending: str, reader: str | None = None
    ) -> None:
        """
        Args:
            example: A file that the reader must be able to read.
            labels: dataset.json's `labels`.
            file_ending: dataset.json's `file_ending`.
            reader: dataset.json's `overwrite_image_reader_writer`, if it has one.
        Raises: EvaluationError: if nnU-Net has no reader for the file, or it cannot be read.
        """
        self._reader = choose_reader(example, file_ending, reader)
        self._values = _label_values(labels)
        self._dtype = np.min_scalar_type(max(self._values))  # nnU-Net's readers give float32

    def labels(self, file: Path) -> Volume:
        """A label map, in the smallest type that holds the labels.

        Raises: EvaluationError: if the file cannot be read, or holds another value than the labels.
        """
        read = read_with_facts(file, self._reader, known_values=self._values)
        return _turned(read.voxels.astype(self._dtype), read.properties)

    def image(self, file: Path) -> Volume:
        """One channel of an image, float32.

        Raises: EvaluationError: if the file cannot be read.
        """
        try:
            channels, properties = self._reader.read_images([str(file)])
        except Exception as error:  # each reader raises errors of its own kind
            raise EvaluationError(f"{file}: cannot be read by {type(self._reader).__name__}: {error}") from error
        return _turned(channels[0], properties)


def require_same_shape(file: Path, volume: Volume, image_file: Path, image: Volume) -> None:
    """Raises: EvaluationError: if a label map and its image are not on one grid."""
    if volume.stored_shape != image.stored_shape:
        raise EvaluationError(
            f"{file} has the shape {volume.stored_shape}, its image {image_file} {image.stored_shape}"
        )


def _label_values(labels: Mapping[str, int | list[int]]) -> list[int]:
    return sorted({0, *(v for value in labels.values() for v in (value if isinstance(value, list) else [value]))})


def _turned(array: np.ndarray, properties: Mapping[str, Any]) -> Volume:
    """Reorder and flip the axes to ITK's "LPS", as a view, because a volume may be large."""
    spacing_mm = tuple(map(float, properties["spacing"]))
    geometry = properties.get("sitk_stuff")
    if geometry is None or len(geometry["spacing"]) != 3:
        return Volume(array, spacing_mm, array.shape)
    axes, flipped = _axes_of(geometry["direction"])
    voxels = array.transpose(axes)
    return Volume(np.flip(voxels, flipped), tuple(spacing_mm[axis] for axis in axes), array.shape)


def _axes_of(direction: Sequence[float]) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """The stored axes, (z, y, x), in axial order, and which of the new axes to flip."""
    stored = sitk.DICOMOrientImageFilter.GetOrientationFromDirectionCosines(direction)[::-1]  # x comes first
    axes = tuple(next(i for i, letter in enumerate(stored) if letter in (to, _OPPOSITE[to])) for to in "SPL")
    return axes, tuple(new for new, (axis, to) in enumerate(zip(axes, "SPL")) if stored[axis] != to)
