"""``nnUNetv2_lightm evaluate``: DSC, mIoU, HD95 and NSD per class for one folder of predictions, or two compared."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

from ..escaping import escape_terminal
from ..option_types import finite_number, whole_number

DEFAULT_NSD_TOLERANCE_MM = 2.0


def main(argv: list[str]) -> int:
    """Run the command. Returns its exit code: 0 done, 1 the input cannot be evaluated."""
    arguments = _parse(argv)
    # After the arguments: `--help` loads neither torch nor scipy.
    from ..evaluation.folders import evaluate_folder, find_dataset_json, read_dataset_json
    from ..evaluation.json_files import to_json
    from ..evaluation.paired import compare
    from ..evaluation.scores import EvaluationError
    from ..evaluation.tables import comparison_table, markdown_table, to_csv
    from ..files import write_text

    try:
        dataset_file = arguments.dataset_json or find_dataset_json(arguments.predictions, arguments.references)
        dataset_json = read_dataset_json(dataset_file)
        _check_outputs(arguments, dataset_file, dataset_json["file_ending"])
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
        for output in filter(None, (arguments.csv, arguments.json)):
            output.absolute().parent.mkdir(parents=True, exist_ok=True)
        if arguments.csv:
            write_text(arguments.csv, to_csv(evaluations[0]))
        if arguments.json:
            write_text(arguments.json, to_json(*evaluations, comparisons=comparisons))
    except (EvaluationError, ImportError, OSError) as error:
        print(f"evaluate: {escape_terminal(error)}", file=sys.stderr)
        return 1
    if arguments.surface and not evaluations[0].spacing_known:
        remark = f"{dataset_json['file_ending']} files have no spacing: HD95 and the tolerance of NSD are in pixels"
        print(f"evaluate: {escape_terminal(remark)}", file=sys.stderr)
    if not comparisons:
        print(markdown_table(evaluations[0]))
        return 0
    for folder, evaluation in zip((arguments.predictions, arguments.against), evaluations):
        print(escape_terminal(f"{folder}\n\n{markdown_table(evaluation)}\n"))
    what = escape_terminal(f"{arguments.predictions} minus {arguments.against}, paired")
    print(f"{what}\n\n{comparison_table(comparisons, evaluations[0])}")
    return 0


def _check_outputs(arguments: argparse.Namespace, dataset_file: Path, file_ending: str) -> None:
    """Before any work: refuse outputs that exist, unless --overwrite is given, or that would replace an input.

    Raises: OSError: naming the file in the way.
    """
    from ..files import check_free, keep_apart

    folders = filter(None, (arguments.predictions, arguments.references, arguments.against))
    inputs = [file for folder in folders if folder.is_dir() for file in folder.glob(f"*{file_ending}")]
    for output in filter(None, (arguments.csv, arguments.json)):
        check_free(output, inputs=[dataset_file, *inputs], overwrite=arguments.overwrite)
        _check_place(output)
    if arguments.csv and arguments.json:
        keep_apart([arguments.csv], [arguments.json])


def _check_place(output: Path) -> None:
    """Refuse a file that could not be written after hours of work. Its folder is made when there is something to write.

    Raises: OSError: naming the folder or file in the way.
    """
    if os.path.exists(output) and not os.path.isfile(output):  # a device or pipe, which is written to as it is
        return
    real = os.path.realpath(output)
    # Unlike those of a Path, these functions raise nothing in a folder that must not be searched.
    above = next(folder for folder in Path(real).parents if os.path.exists(folder))
    if not os.path.isdir(above):
        raise NotADirectoryError(f"cannot write {output}: {above} is not a folder. Give another name")
    if not os.access(above, os.W_OK | os.X_OK):
        raise PermissionError(f"cannot write {output}: you have no permission to write to {above}. Give another name")


def _parse(argv: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="nnUNetv2_lightm evaluate",
        description="Print DSC and mIoU of each class as a Markdown table: mean and standard deviation over the cases, "
        "and in brackets the bootstrap 95 % interval of the mean (percentiles of 10,000 resamples; from three cases).",
        epilog="Files are refused if they are damaged, hold anything but the labels' values, or lie on another grid "
        "than their partner (another size, or voxels shifted by more than a quarter of the shortest edge); smaller "
        "differences that nnU-Net's integrity check sees are reported. A case in which neither the reference nor the "
        "prediction has a voxel of a class does not count for this class; if only one of them has, DSC, IoU and NSD "
        "are 0 and HD95 is the diagonal of the image. With --against, a case counts for a class if it counts for at "
        "least one of the two methods; if for one alone, the other one has rightly found nothing, and its DSC, IoU and "
        "NSD are 1, its HD95 0. p comes from the two-sided Wilcoxon signed-rank test over the cases (zeros dropped; 1 "
        "if there is no difference), not corrected for the number of classes and metrics.",
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
        help="also HD95 in mm and NSD, the share of the surfaces that agrees within the tolerance; in pixels for "
        "files without a spacing, such as PNG; needs MONAI (extra `metrics`)",
    )
    parser.add_argument(
        "--nsd-tolerance-mm",
        type=finite_number("mm", at_least=0),
        metavar="MM",
        help=f"tolerance of NSD with --surface (default: {DEFAULT_NSD_TOLERANCE_MM:g}); best what experts differ by",
    )
    parser.add_argument(
        "--dataset-json",
        type=Path,
        metavar="FILE",
        help="dataset.json with the labels (default: the one in the prediction folder or next to the references)",
    )
    parser.add_argument("--csv", type=Path, metavar="FILE", help="also write the scores of every case in `predictions`")
    parser.add_argument(
        "--json",
        type=Path,
        metavar="FILE",
        help="also write statistics, rules, scores of every case, and the comparison",
    )
    parser.add_argument("--overwrite", action="store_true", help="replace the files of --csv and --json if they exist")
    parser.add_argument("--chill", action="store_true", help="leave out references that have no prediction")
    parser.add_argument(
        "--workers", type=whole_number(at_least=1), metavar="N", help="cases read at a time (default: cores, at most 4)"
    )
    arguments = parser.parse_args(argv)
    if not arguments.surface and arguments.nsd_tolerance_mm is not None:
        parser.error("--nsd-tolerance-mm is for NSD: give --surface too")
    if arguments.surface and arguments.nsd_tolerance_mm is None:
        arguments.nsd_tolerance_mm = DEFAULT_NSD_TOLERANCE_MM
    return arguments
