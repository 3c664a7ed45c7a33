"""Scores of a folder of predictions against a folder of references."""

from __future__ import annotations

import contextlib
import os
import sys
import warnings
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from ..escaping import escape_name
from ..images.cases import listed
from ..images.check import DEFAULT_GEOMETRY
from ..images.pairs import match
from ..json_input import JsonInputError, read_json
from ..nnunet_faults import faults_of_file_ending, faults_of_labels, faults_of_reader
from .scores import METRICS, Evaluation, EvaluationError, foreground_classes, score_case
from .segmentations import (
    Segmentation,
    check_segmentation,
    choose_reader,
    has_spacing,
    pair_files,
    read_with_facts,
    turns_axes,
)
from .surface_scores import SURFACE_METRICS, require_monai, score_surfaces


def evaluate_folder(
    predictions: Path,
    references: Path,
    labels: Mapping[str, int | list[int]],
    *,
    file_ending: str,
    reader: str | None = None,
    allow_missing: bool = False,
    nsd_tolerance_mm: float | None = None,
    workers: int | None = None,
) -> Evaluation:
    """Compare a folder of predictions with the references of the same file names.

    Args:
        predictions: Folder that e.g. `nnUNetv2_predict` wrote.
        references: Folder of reference segmentations, e.g. labelsTs.
        labels: dataset.json's `labels`: name to value, or to the values of a region. The background (0) is not
            scored; voxels where the reference has the value of "ignore" are left out. Every value that occurs in a
            file must be named here.
        file_ending: dataset.json's `file_ending`.
        reader: dataset.json's `overwrite_image_reader_writer`, if it has one.
        allow_missing: Leave out references without a prediction instead of refusing them.
        nsd_tolerance_mm: Also compute HD95, and NSD at this tolerance, with the spacing of the reference; for files
            without a spacing, such as PNG, all is in pixels. Needs MONAI.
        workers: Cases to read at a time; default: the number of cores, at most 4. HD95 and NSD take 15 bytes (with
            MONAI 1.5: 200) for each voxel of a class's bounding box.
    Raises: EvaluationError: if a file is missing, surplus, damaged, on another grid than its partner, or holds
        values that no label names; or if the labels are not those of a dataset.json. ImportError: if MONAI is needed
        and missing.
    """
    if nsd_tolerance_mm is not None:
        require_monai()
    classes, ignored = foreground_classes(labels)
    known = sorted({0, *(v for values in classes.values() for v in values), *([] if ignored is None else [ignored])})
    pairs = pair_files(Path(predictions), Path(references), file_ending, allow_missing=allow_missing)

    # nnU-Net's readers print remarks, but standard output is for the table; MONAI warns about one of its own arguments.
    with contextlib.redirect_stdout(sys.stderr), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*always_return_as_numpy", category=FutureWarning)
        check_segmentation(pairs[0][2])
        image_reader = choose_reader(pairs[0][2], file_ending, reader)
        notes: dict[str, list[str]] = {}

        def score(pair: tuple[str, Path, Path]) -> np.ndarray:
            case, *files = pair
            read = [read_with_facts(file, image_reader, known_values=known) for file in files]
            matched = match(*(segmentation.facts for segmentation in read))
            if matched.fault is not None:
                raise EvaluationError(f"case {case}: {matched.fault}")
            notes[case] = [] if matched.note is None else [matched.note]
            for one in read:
                # Without distances, two files with default geometry are fine.
                passed = () if nsd_tolerance_mm is not None else (DEFAULT_GEOMETRY,)
                notes[case] += [
                    f"{escape_name(one.facts.path)} {note}" for note in one.facts.notes if note not in passed
                ]
            prediction, reference = (segmentation.voxels for segmentation in read)
            try:
                scores = score_case(prediction, reference, classes, ignored)
            except EvaluationError as error:
                raise EvaluationError(f"case {case} ({files[0]} and {files[1]}): {error}") from error
            if nsd_tolerance_mm is None:
                return scores
            spacing_mm = _spacing(read[1], turned=turns_axes(image_reader))
            surfaces = score_surfaces(
                prediction, reference, classes, ignored, spacing_mm=spacing_mm, tolerance_mm=nsd_tolerance_mm
            )
            return np.concatenate([scores, surfaces])

        with ThreadPoolExecutor(workers or min(4, os.cpu_count() or 1)) as pool:
            scores = np.stack(list(pool.map(score, pairs)))
        if texts := [text for case in sorted(notes) for text in notes[case]]:
            print(f"evaluate: {len(texts)} remark(s) on files:{listed(texts)}", file=sys.stderr)
    metrics = METRICS if nsd_tolerance_mm is None else (*METRICS, *SURFACE_METRICS)
    return Evaluation(
        cases=tuple(case for case, _, _ in pairs),
        classes=tuple(classes),
        scores={metric: scores[:, i] for i, metric in enumerate(metrics)},
        nsd_tolerance_mm=nsd_tolerance_mm,
        spacing_known=has_spacing(image_reader),
    )


def _spacing(reference: Segmentation, *, turned: bool) -> tuple[float, ...]:
    """The reader's spacing, if the header agrees with itself.

    Args:
        reference: As the reader gives it.
        turned: The reader's axes may be in another order than the header's; which order says nothing then.
    Raises: EvaluationError: if it states two spacings; distances in mm would depend on the reader.
    """
    grid = reference.facts.grid
    if grid is not None:
        axes = len(reference.facts.shape)
        theirs, ours = reference.spacing[-axes:], grid.spacing_mm[:axes][::-1]
        in_order = sorted if turned else list
        if not np.allclose(in_order(theirs), in_order(ours), rtol=0.01):
            raise EvaluationError(
                f"{escape_name(reference.facts.path)} has a contradicting header: the spacing (z, y, x) is {theirs} mm "
                f"or {ours} mm. Make them agree; without --surface it can be evaluated"
            )
    return reference.spacing


def find_dataset_json(predictions: Path, references: Path) -> Path:
    """The dataset.json in the prediction folder, or next to or inside the reference folder.

    Raises: EvaluationError: if there is none.
    """
    candidates = [folder / "dataset.json" for folder in (predictions, references.absolute().parent, references)]
    for candidate in candidates:
        if candidate.is_file():
            return candidate
    raise EvaluationError(
        f"no dataset.json among {', '.join(map(str, candidates))}; it names the labels: give it with --dataset-json"
    )


def read_dataset_json(path: Path) -> dict:
    """Read a dataset.json and check that it has what an evaluation needs.

    Raises: EvaluationError: if it is unreadable, lacks `labels` or `file_ending`, or holds what cannot be one.
    """
    try:
        content = read_json(path)
    except JsonInputError as error:
        raise EvaluationError(str(error)) from error
    if not isinstance(content, dict) or not isinstance(content.get("labels"), dict) or "file_ending" not in content:
        raise EvaluationError(f'{path}: needs "labels" (name to value) and "file_ending", as nnU-Net v2 writes them')
    faults = (
        faults_of_labels(content["labels"]) + faults_of_file_ending(content["file_ending"]) + faults_of_reader(content)
    )
    if faults:
        raise EvaluationError(f"{path}: {'; '.join(faults[:3])}")
    return content
