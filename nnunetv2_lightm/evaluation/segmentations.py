"""Segmentation files: which belong together, and how to read them as nnU-Net does."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from nnunetv2.imageio.base_reader_writer import BaseReaderWriter
from nnunetv2.imageio.natural_image_reader_writer import NaturalImage2DIO
from nnunetv2.imageio.nibabel_reader_writer import NibabelIOWithReorient
from nnunetv2.imageio.reader_writer_registry import determine_reader_writer_from_dataset_json
from nnunetv2.imageio.simpleitk_reader_writer import SimpleITKIOWithReorient

from ..files import some_of
from ..images.check import ImageFacts, check_label
from ..images.faults import ImageFault
from ..images.names import refusal_of_names
from ..images.values import exactly
from .scores import EvaluationError


def pair_files(
    predictions: Path, references: Path, file_ending: str, *, allow_missing: bool = False
) -> list[tuple[str, Path, Path]]:
    """Match predictions and references by file name.

    Args:
        predictions: Folder of predicted segmentations.
        references: Folder of reference segmentations.
        file_ending: As in dataset.json, e.g. ".nii.gz". Other files and hidden files are ignored.
        allow_missing: References without a prediction are left out instead of refused.
    Returns: (case, prediction, reference) sorted by case.
    Raises: EvaluationError: if a folder is missing or empty, or a file has no partner.
    """
    folders = []
    for kind, folder in (("predictions", predictions), ("references", references)):
        if not folder.is_dir():
            raise EvaluationError(f"{kind}: {folder} is not a folder")
        cases = {
            path.name.removesuffix(file_ending): path
            for path in folder.iterdir()
            if path.name.endswith(file_ending) and not path.name.startswith(".")
        }
        if (refusal := refusal_of_names(cases.values())) is not None:
            raise EvaluationError(refusal)
        if not cases:
            raise EvaluationError(f"{kind}: no file ending in {file_ending} in {folder}")
        folders.append(cases)
    predicted, reference = folders
    surplus = sorted(predicted.keys() - reference.keys())
    missing = sorted(reference.keys() - predicted.keys())
    if surplus:
        raise EvaluationError(f"no reference in {references} for: {some_of([predicted[case] for case in surplus], 5)}")
    if missing and not allow_missing:
        raise EvaluationError(
            f"no prediction in {predictions} for: {some_of([reference[case] for case in missing], 5)}. "
            "Predict these cases, or leave them out on purpose (--chill, allow_missing=True)"
        )
    return [(case, predicted[case], reference[case]) for case in sorted(predicted)]


def choose_reader(example: Path, file_ending: str, reader: str | None = None) -> BaseReaderWriter:
    """The reader that nnU-Net chooses for such a file.

    Args:
        example: A file that the reader must be able to read.
        file_ending: As in dataset.json.
        reader: Name of a reader class, as in dataset.json's `overwrite_image_reader_writer`.
    Raises: EvaluationError: if nnU-Net has no reader for the file, or the file is unreadable.
    """
    description = {"file_ending": file_ending, "overwrite_image_reader_writer": reader or "None"}
    try:
        # nnU-Net prints a traceback for every reader that fails.
        with contextlib.redirect_stderr(io.StringIO()):
            return determine_reader_writer_from_dataset_json(description, str(example), verbose=False)()
    except RuntimeError as error:
        raise EvaluationError(f"{example}: none of nnU-Net's readers for {file_ending} files can read it") from error


@dataclass(frozen=True)
class Segmentation:
    """One segmentation.

    Attributes:
        voxels: Label values, float32, (z, y, x); an image has one slice.
        spacing: Voxel spacing, (z, y, x), in mm if `has_spacing`, as nnU-Net's reader gives it; for
            a single slice the reader invents the one in z.
        facts: What is known about the file.
        properties: What nnU-Net's reader says about it.
    """

    voxels: np.ndarray
    spacing: tuple[float, ...]
    facts: ImageFacts
    properties: Mapping[str, Any]


def check_segmentation(path: Path) -> ImageFacts:
    """Check the file's own bytes: nnU-Net's readers pad a truncated file, and SimpleITK reads NaN as 0.

    Raises: EvaluationError: if the file is damaged, or holds anything but whole numbers in one channel.
    """
    try:
        return check_label(path)
    except ImageFault as fault:
        raise EvaluationError(str(fault)) from fault


def read_with_facts(path: Path, reader: BaseReaderWriter, *, known_values: Sequence[int]) -> Segmentation:
    """Read one segmentation.

    Raises: EvaluationError: if the file is damaged, has several channels, or holds another value than the known ones.
    """
    facts = check_segmentation(path)
    _require_known(path, [value for value in facts.values if value not in known_values], known_values)
    try:
        channels, properties = reader.read_seg(str(path))
    except Exception as error:  # each reader raises errors of its own kind
        raise EvaluationError(f"{path}: cannot be read by {type(reader).__name__}: {error}") from error
    if channels.shape[0] != 1:
        raise EvaluationError(f"{path}: has {channels.shape[0]} channels; a segmentation has one")
    segmentation = channels[0]
    if not facts.values:  # the format was not checked in detail
        _require_known(path, np.unique(segmentation[~np.isin(segmentation, known_values)]), known_values)
    return Segmentation(segmentation, tuple(float(length) for length in properties["spacing"]), facts, properties)


def _require_known(path: Path, unknown: Sequence[float], known_values: Sequence[int]) -> None:
    if len(unknown):
        shown = ", ".join(exactly(value) for value in unknown[:5]) + (", ..." if len(unknown) > 5 else "")
        raise EvaluationError(f"{path}: holds the values {shown}; the labels name only {list(known_values)}")


def has_spacing(reader: BaseReaderWriter) -> bool:
    """Whether the reader's files say how large a voxel is; natural images, such as PNG, do not: their unit is pixels.

    A TIFF without nnU-Net's spacing file counts as one with 1 mm, as nnU-Net's reader assumes (and remarks).
    """
    return not isinstance(reader, NaturalImage2DIO)


def turns_axes(reader: BaseReaderWriter) -> bool:
    """Whether the reader turns images to one orientation: its axes may be in another order than those of the file."""
    return isinstance(reader, (NibabelIOWithReorient, SimpleITKIOWithReorient))
