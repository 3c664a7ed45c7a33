"""``nnUNetv2_lightm evaluate``: DSC, mIoU, HD95 and NSD per class of a folder of predictions, or of two, compared."""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import sys
import warnings
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from .comparison import compare
from .evaluation_json import to_json
from .scores import METRICS, Evaluation, EvaluationError, foreground_classes, score_case
from .segmentations import choose_reader, has_spacing, pair_files, read_segmentation_and_spacing
from .surface_scores import SURFACE_METRICS, require_monai, score_surfaces
from .tables import comparison_table, markdown_table, to_csv, write_text

DEFAULT_NSD_TOLERANCE_MM = 2.0


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
        allow_missing: References without a prediction are left out instead of refused.
        nsd_tolerance_mm: Also HD95 and NSD, the latter at this tolerance, by the spacing of the reference; for files
            without a spacing, as PNG, all is in pixels. Needs MONAI.
        workers: Cases that are read at the same time; default: the number of cores, at most 4. HD95 and NSD take 15
            bytes (with MONAI 1.5: 200) for each voxel of a class's bounding box.
    Raises: EvaluationError: if a file is missing, surplus, damaged, of another shape than its partner, or holds
        values that no label names; or if the labels are no dataset.json's. ImportError: if MONAI is needed and missing.
    """
    if nsd_tolerance_mm is not None:
        require_monai()
    classes, ignored = foreground_classes(labels)
    known = sorted({0, *(v for values in classes.values() for v in values), *([] if ignored is None else [ignored])})
    pairs = pair_files(Path(predictions), Path(references), file_ending, allow_missing=allow_missing)

    # nnU-Net's readers print remarks, and standard output is for the table; MONAI warns of an argument of its own.
    with contextlib.redirect_stdout(sys.stderr), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*always_return_as_numpy", category=FutureWarning)
        image_reader = choose_reader(pairs[0][2], file_ending, reader)

        def score(pair: tuple[str, Path, Path]) -> np.ndarray:
            case, *files = pair
            (prediction, _), (reference, spacing) = (
                read_segmentation_and_spacing(file, image_reader, known_values=known) for file in files
            )
            try:
                scores = score_case(prediction, reference, classes, ignored)
            except EvaluationError as error:
                raise EvaluationError(f"case {case} ({files[0]} and {files[1]}): {error}") from error
            if nsd_tolerance_mm is None:
                return scores
            surfaces = score_surfaces(
                prediction, reference, classes, ignored, spacing_mm=spacing, tolerance_mm=nsd_tolerance_mm
            )
            return np.concatenate([scores, surfaces])

        with ThreadPoolExecutor(workers or min(4, os.cpu_count() or 1)) as pool:
            scores = np.stack(list(pool.map(score, pairs)))
    metrics = METRICS if nsd_tolerance_mm is None else (*METRICS, *SURFACE_METRICS)
    return Evaluation(
        cases=tuple(case for case, _, _ in pairs),
        classes=tuple(classes),
        scores={metric: scores[:, i] for i, metric in enumerate(metrics)},
        nsd_tolerance_mm=nsd_tolerance_mm,
        spacing_known=has_spacing(image_reader),
    )


def find_dataset_json(predictions: Path, references: Path) -> Path:
    """The dataset.json in the prediction folder, or beside or in the folder of the references.

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
    """Read a dataset.json and see to it that it has what an evaluation needs.

    Raises: EvaluationError: if it is unreadable, or lacks `labels` or `file_ending`.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise EvaluationError(f"{path}: cannot be read: {error}") from error
    if not isinstance(content, dict) or not isinstance(content.get("labels"), dict) or "file_ending" not in content:
        raise EvaluationError(f'{path}: needs "labels" (name to value) and "file_ending", as nnU-Net v2 writes them')
    return content


def main(argv: list[str] | None = None) -> int:
    """Run the command. Returns its exit code: 0 done, 1 the input cannot be evaluated."""
    arguments = _parse(argv)
    try:
        for output in filter(None, (arguments.csv, arguments.json)):
            output.absolute().parent.mkdir(parents=True, exist_ok=True)
        dataset_json = read_dataset_json(
            arguments.dataset_json or find_dataset_json(arguments.predictions, arguments.references)
        )
        evaluations = [
            evaluate_folder(
                predictions,
                arguments.references,
                dataset_json["labels"],
                file_ending=dataset_json["file_ending"],
                reader=dataset_json.get("overwrite_image_reader_writer"),
                allow_missing=arguments.chill,
                nsd_tolerance_mm=arguments.nsd_tolerance_mm,
                workers=arguments.workers,
            )
            for predictions in filter(None, (arguments.predictions, arguments.against))
        ]
        comparisons = [compare(*evaluations, metric) for metric in evaluations[0].scores if len(evaluations) == 2]
        if arguments.csv:
            write_text(arguments.csv, to_csv(evaluations[0]))
        if arguments.json:
            write_text(arguments.json, to_json(*evaluations, comparisons=comparisons))
    except (EvaluationError, ImportError, OSError) as error:
        print(f"evaluate: {error}", file=sys.stderr)
        return 1
    if arguments.surface and not evaluations[0].spacing_known:
        remark = f"{dataset_json['file_ending']} files have no spacing: HD95 and the tolerance of NSD are in pixels"
        print(f"evaluate: {remark}", file=sys.stderr)
    if not comparisons:
        print(markdown_table(evaluations[0]))
        return 0
    for folder, evaluation in zip((arguments.predictions, arguments.against), evaluations):
        print(f"{folder}\n\n{markdown_table(evaluation)}\n")
    print(
        f"{arguments.predictions} less {arguments.against}, paired\n\n{comparison_table(comparisons, evaluations[0])}"
    )
    return 0


def _parse(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="nnUNetv2_lightm evaluate",
        description="DSC and mIoU of each class as a Markdown table: mean and standard deviation over the cases, and "
        "in brackets the bootstrap 95 % interval of the mean (percentiles of 10,000 resamples; from three cases).",
        epilog="A case in which neither the reference nor the prediction has a voxel of a class does not count for "
        "this class; if only one of them has, DSC, IoU and NSD are 0 and HD95 is the diagonal of the image. p is that "
        "of the two-sided Wilcoxon signed-rank test over the cases (zeros dropped; 1 if there is no difference), "
        "not corrected for the number of classes and metrics.",
    )
    parser.add_argument("predictions", type=Path, help="folder of predicted segmentations")
    parser.add_argument("references", type=Path, help="folder of reference segmentations with the same file names")
    parser.add_argument(
        "--against",
        type=Path,
        metavar="FOLDER",
        help="predictions of a second method for the same cases: also the paired difference of each metric, its "
        "bootstrap 95 %% interval and Wilcoxon's p",
    )
    parser.add_argument(
        "--surface",
        action="store_true",
        help="also HD95 in mm and NSD, the part of the surfaces that is right within the tolerance; in pixels for "
        "files without a spacing, as PNG; needs MONAI (the extra metrics)",
    )
    parser.add_argument(
        "--nsd-tolerance-mm",
        type=_tolerance,
        metavar="MM",
        help=f"tolerance of NSD with --surface (default: {DEFAULT_NSD_TOLERANCE_MM:g}); best what experts differ by",
    )
    parser.add_argument(
        "--dataset-json",
        type=Path,
        metavar="FILE",
        help="names the labels (default: the one in the prediction folder or beside the references)",
    )
    parser.add_argument("--csv", type=Path, metavar="FILE", help="also write the scores of every case (of predictions)")
    parser.add_argument(
        "--json",
        type=Path,
        metavar="FILE",
        help="also write statistics, rules, scores of every case, and the comparison",
    )
    parser.add_argument("--chill", action="store_true", help="leave out references that have no prediction")
    parser.add_argument("--workers", type=_positive, metavar="N", help="cases read at once (default: cores, at most 4)")
    arguments = parser.parse_args(argv)
    if not arguments.surface and arguments.nsd_tolerance_mm is not None:
        parser.error("--nsd-tolerance-mm is for NSD: give --surface too")
    if arguments.surface and arguments.nsd_tolerance_mm is None:
        arguments.nsd_tolerance_mm = DEFAULT_NSD_TOLERANCE_MM
    return arguments


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"{text}: need at least 1")
    return number


def _tolerance(text: str) -> float:
    number = float(text)
    if not 0 <= number < float("inf"):
        raise argparse.ArgumentTypeError(f"{text}: need a distance of 0 or more")
    return number


if __name__ == "__main__":
    sys.exit(main())
