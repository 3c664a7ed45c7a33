"""The command line that the converters share."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path
from typing import Any

from ..escaping import escape_name, escape_terminal
from ..option_types import whole_number
from ..signals import exit_code, interruptions
from ._convert import DEFAULTS, ConversionOptions, DatasetKind
from ._errors import ConversionError
from ._parallel import end_workers
from ._report import ConversionReport
from ._split import parse_ratio

EPILOG = (
    "nnUNet_raw and nnUNet_preprocessed must be set, as for nnU-Net itself. The data set appears whole at the end or "
    "not at all; the source is never changed. Exit code 0: written (the summary names the cases that were repaired or "
    "refused); 1, or 2 for a wrong option: nothing was written, the message says why."
)


def make_parser(kind: DatasetKind, *, command: str, description: str, axes: tuple[str, ...]) -> argparse.ArgumentParser:
    """The parser of a converter: `SOURCE`, and what `ConversionOptions` has.

    Args:
        kind: Its data set.
        command: Its name after `nnUNetv2_lightm convert`.
        description: What it reads.
        axes: Names of the values of `--resize`, in order.
    """
    parser = argparse.ArgumentParser(prog=f"nnUNetv2_lightm convert {command}", description=description, epilog=EPILOG)
    parser.add_argument("source", type=Path, metavar="SOURCE", help="the data set's folder, in any nesting")
    parser.add_argument(
        "--id",
        type=whole_number(at_least=1, at_most=999),
        default=kind.dataset_id,
        dest="dataset_id",
        help="default: %(default)s",
    )
    parser.add_argument("--name", default=kind.dataset_name, dest="dataset_name", help="default: %(default)s")
    parser.add_argument(
        "--split",
        type=_ratio,
        default=":".join(map(str, DEFAULTS.split)),
        metavar="TRAIN:VAL:TEST",
        help="random split by patient, in the same ratio for every source (MCU, CHN). Test cases go to imagesTs and "
        "labelsTs; train and val become fold 0 in splits_final.json. 'none': all labelled cases go to imagesTr, and "
        "nnU-Net makes its five folds (default: %(default)s)",
    )
    parser.add_argument(
        "--seed", type=whole_number(at_least=0), default=DEFAULTS.seed, help="of the split (default: %(default)s)"
    )
    parser.add_argument(
        "--resize",
        type=whole_number(at_least=1),
        nargs=len(axes),
        metavar=axes,
        help=f"resample to this many voxels, in numpy's and nnU-Net's order ({', '.join(axes).lower()}): images by "
        "averaging along axes that shrink and linearly along axes that grow, labels by nearest neighbour; the physical "
        "extent stays",
    )
    if len(axes) == 3:
        parser.add_argument(
            "--spacings",
            type=Path,
            metavar="FILE",
            help="CSV with the spacing of cases whose files have lost it (1 mm along each axis, from 0 on; noted in "
            "the summary) or contradict themselves: one line CASE,Z,Y,X per case, in mm, such as 28,1.6,0.74,0.74. "
            "Image and label are repaired",
        )
    parser.add_argument(
        "--workers",
        type=whole_number(at_least=1),
        help="processes (default: the number of cores, at most 8; about 2 GB each on large CT volumes)",
    )
    transfer = parser.add_mutually_exclusive_group()
    transfer.add_argument(
        "--copy", action="store_false", dest="link", help="copy the files of cases that need no change (default)"
    )
    transfer.add_argument("--link", action="store_true", dest="link", help="make symbolic links to such files instead")
    parser.add_argument("--strict", action="store_true", help="write nothing if any case is refused")
    parser.add_argument("--dry-run", action="store_true", help="check everything and print the summary; write nothing")
    parser.add_argument(
        "--overwrite",
        action="store_true",
        help="replace the data set that a conversion made, and set aside what was planned and preprocessed from it; "
        "results stay",
    )
    parser.set_defaults(link=False)
    return parser


def run(
    parser: argparse.ArgumentParser,
    argv: list[str] | None,
    convert: Callable[..., ConversionReport],
    configuration: str,
) -> int:
    """Parse, convert and print the summary with the next commands.

    Args:
        parser: From `make_parser`, perhaps with options of this converter alone.
        argv: The arguments; None: the process's.
        convert: Takes the source, `ConversionOptions` and, by their names, options of this converter alone.
        configuration: What the paper trains.
    Returns: The exit code: 0, 1 after an error, 130 after Ctrl-C, 143 after a SIGTERM, 129 after a SIGHUP.
    """
    own: dict[str, Any] = vars(parser.parse_args(argv))
    source, resize = own.pop("source"), own.pop("resize")
    shared = {field.name: own.pop(field.name) for field in fields(ConversionOptions) if field.name in own}
    options = ConversionOptions(**shared, resize=None if resize is None else tuple(resize), show_progress=True)
    try:
        with interruptions(end_workers):
            report = convert(source, options, **own)
    except (ConversionError, OSError) as error:
        print(f"{parser.prog}: {escape_terminal(_reason(error))}", file=sys.stderr)
        return 1
    except KeyboardInterrupt as error:
        written = getattr(error, "written", None)
        what = "nothing was written" if written is None else f"but {escape_terminal(written)} is written"
        print(f"{parser.prog}: interrupted, {what}", file=sys.stderr)
        return exit_code(error)
    print(escape_terminal(report.summary()))
    if report.dry_run:
        print("Dry run: nothing was written.")
        return 0
    print(
        f"Written to {escape_terminal(report.raw_folder)}, with conversion_report.json. Next:\n"
        f"  nnUNetv2_plan_and_preprocess -d {options.dataset_id} --verify_dataset_integrity\n"
        f"  nnUNetv2_train {options.dataset_id} {configuration} 0 -tr nnUNetTrainerLightMUNet"
    )
    return 0


def _reason(error: Exception) -> str:
    """The system's bare "[Errno 13] Permission denied: '/path'" as a sentence."""
    if isinstance(error, OSError) and error.filename is not None and error.strerror:
        names = " or ".join(escape_name(name) for name in (error.filename, error.filename2) if name is not None)
        return f"cannot read or write {names}: {error.strerror}"
    return str(error)


def _ratio(text: str) -> tuple[float, float, float] | None:
    try:
        return parse_ratio(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from error
