"""``nnUNetv2_lightm evaluate``: DSC and mIoU per class of a folder of predictions."""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import sys
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from .scores import METRICS, Evaluation, EvaluationError, foreground_classes, score_case
from .segmentations import choose_reader, pair_files, read_segmentation
from .tables import markdown_table, to_csv, to_json, write_text


def evaluate_folder(
    predictions: Path,
    references: Path,
    labels: Mapping[str, int | list[int]],
    *,
    file_ending: str,
    reader: str | None = None,
    allow_missing: bool = False,
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
        workers: Cases that are read at the same time; default: the number of cores, at most 4.
    Raises: EvaluationError: if a file is missing, surplus, damaged, of another shape than its partner, or holds
        values that no label names; or if the labels are no dataset.json's.
    """
    classes, ignored = foreground_classes(labels)
    known = sorted({0, *(v for values in classes.values() for v in values), *([] if ignored is None else [ignored])})
    pairs = pair_files(Path(predictions), Path(references), file_ending, allow_missing=allow_missing)

    # nnU-Net's readers print remarks, and standard output is for the table.
    with contextlib.redirect_stdout(sys.stderr):
        image_reader = choose_reader(pairs[0][2], file_ending, reader)

        def score(pair: tuple[str, Path, Path]) -> np.ndarray:
            case, *files = pair
            arrays = [read_segmentation(file, image_reader, known_values=known) for file in files]
            try:
                return score_case(*arrays, classes, ignored)
            except EvaluationError as error:
                raise EvaluationError(f"case {case} ({files[0]} and {files[1]}): {error}") from error

        with ThreadPoolExecutor(workers or min(4, os.cpu_count() or 1)) as pool:
            scores = np.stack(list(pool.map(score, pairs)))
    return Evaluation(
        cases=tuple(case for case, _, _ in pairs),
        classes=tuple(classes),
        scores={metric: scores[:, i] for i, metric in enumerate(METRICS)},
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
    arguments = _parser().parse_args(argv)
    try:
        for output in filter(None, (arguments.csv, arguments.json)):
            output.absolute().parent.mkdir(parents=True, exist_ok=True)
        dataset_json = read_dataset_json(
            arguments.dataset_json or find_dataset_json(arguments.predictions, arguments.references)
        )
        evaluation = evaluate_folder(
            arguments.predictions,
            arguments.references,
            dataset_json["labels"],
            file_ending=dataset_json["file_ending"],
            reader=dataset_json.get("overwrite_image_reader_writer"),
            allow_missing=arguments.chill,
            workers=arguments.workers,
        )
        if arguments.csv:
            write_text(arguments.csv, to_csv(evaluation))
        if arguments.json:
            write_text(arguments.json, to_json(evaluation))
    except (EvaluationError, OSError) as error:
        print(f"evaluate: {error}", file=sys.stderr)
        return 1
    print(markdown_table(evaluation))
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="nnUNetv2_lightm evaluate",
        description="DSC and mIoU of each class, mean and standard deviation over the cases, as a Markdown table.",
        epilog="A case in which neither the reference nor the prediction has a voxel of a class does not count for "
        "this class; if only one of them has, it counts as 0.",
    )
    parser.add_argument("predictions", type=Path, help="folder of predicted segmentations")
    parser.add_argument("references", type=Path, help="folder of reference segmentations with the same file names")
    parser.add_argument(
        "--dataset-json",
        type=Path,
        metavar="FILE",
        help="names the labels (default: the one in the prediction folder or beside the references)",
    )
    parser.add_argument("--csv", type=Path, metavar="FILE", help="also write the scores of every case")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write statistics and scores of every case")
    parser.add_argument("--chill", action="store_true", help="leave out references that have no prediction")
    parser.add_argument("--workers", type=_positive, metavar="N", help="cases read at once (default: cores, at most 4)")
    return parser


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"{text}: need at least 1")
    return number


if __name__ == "__main__":
    sys.exit(main())
