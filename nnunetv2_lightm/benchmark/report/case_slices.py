"""One slice of a case under all methods: each file is read once, one at a time, and only the slice is kept.

A CT of 512 x 512 x 512 takes half a GiB as nnU-Net reads it; nine methods, each with image and ground truth, would take
13 GiB.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np

from ...evaluation.scores import foreground_classes, score_case
from .figures import slice_name, slice_with_most
from .volumes import CaseReader, Volume, require_same_shape


class CaseFiles(NamedTuple):
    """The files of a case under one method."""

    images: Path
    references: Path
    predictions: Path


@dataclass(frozen=True)
class CaseSlice:
    """One slice of a case under one method: arrays (y, x) on one grid.

    Attributes:
        name: Of the case, and which slice it is.
        image: Intensities.
        reference: Label values of the ground truth.
        prediction: Label values.
        spacing_mm: (y, x).
        mean_dsc: Mean DSC over the classes of the whole case; NaN if none counts.
    """

    name: str
    image: np.ndarray
    reference: np.ndarray
    prediction: np.ndarray
    spacing_mm: tuple[float, float]
    mean_dsc: float


def load_slices(
    case: str,
    files: Mapping[str, CaseFiles],
    *,
    labels: Mapping[str, int | list[int]],
    file_ending: str,
    reader: str | None = None,
) -> dict[str, CaseSlice]:
    """The slice with the most foreground of the ground truth, or of the predictions together where that is empty.

    Args:
        case: Its name.
        files: Each method's files. Image and ground truth are the same in all; those of the first are read.
        labels: dataset.json's `labels`.
        file_ending: dataset.json's `file_ending`.
        reader: dataset.json's `overwrite_image_reader_writer`, or None.
    Returns: Method to its slice.
    Raises: EvaluationError: if a file cannot be read or is on another grid.
    """
    classes, ignored = foreground_classes(labels)
    image_file, reference_file, _ = next(iter(files.values()))
    case_reader = CaseReader(reference_file, labels=labels, file_ending=file_ending, reader=reader)
    reference = case_reader.labels(reference_file)
    index = slice_with_most(reference.voxels, classes)
    if index is None:
        index = _slice_of_predictions(case_reader, files, classes, reference)
    image, spacing_mm = _slice_of_image(case_reader, image_file, reference_file, reference, index)
    name = slice_name(case, index, reference.voxels.shape[0])
    reference_slice = reference.voxels[index].copy()
    slices = {}
    for contender, (_, _, file) in files.items():
        prediction = case_reader.labels(file)
        require_same_shape(file, prediction, image_file, reference)
        dsc = _mean_dsc(prediction.voxels, reference.voxels, classes, ignored)
        slices[contender] = CaseSlice(name, image, reference_slice, prediction.voxels[index].copy(), spacing_mm, dsc)
        del prediction  # before the next one is read
    return slices


def _slice_of_image(
    case_reader: CaseReader, file: Path, reference_file: Path, reference: Volume, index: int
) -> tuple[np.ndarray, tuple[float, float]]:
    image = case_reader.image(file)
    require_same_shape(reference_file, reference, file, image)
    return image.voxels[index].copy(), image.spacing_mm[1:]


def _slice_of_predictions(
    case_reader: CaseReader,
    files: Mapping[str, CaseFiles],
    classes: Mapping[str, tuple[int, ...]],
    reference: Volume,
) -> int:
    """For a case without foreground: reads its predictions twice."""
    together = np.zeros_like(reference.voxels)
    for image_file, _, file in files.values():
        prediction = case_reader.labels(file)
        require_same_shape(file, prediction, image_file, reference)
        np.maximum(together, prediction.voxels, out=together)
        del prediction
    index = slice_with_most(together, classes)
    return reference.voxels.shape[0] // 2 if index is None else index


def _mean_dsc(
    prediction: np.ndarray, reference: np.ndarray, classes: Mapping[str, tuple[int, ...]], ignored: int | None
) -> float:
    """Mean DSC over the classes that count in the case; NaN if none does."""
    scores = score_case(prediction, reference, classes, ignored)[0]
    counted = scores[~np.isnan(scores)]
    return float(counted.mean()) if counted.size else float("nan")
