"""The command line: ``lightm segment`` and ``lightm info``."""

from __future__ import annotations

import argparse
import csv
import io
import json
import sys
from collections.abc import Sequence
from pathlib import Path

from .bundle import BundleError
from .cases import UsageError, cases_of
from .engine import EngineError, LoadedModel
from .escaping import escape_cell, escape_terminal
from .faults import ImageError
from .formats import WRITTEN, ending_of, is_flat, refusal_of_output
from .images import TIFF, spacing_file_of
from .output import require_writable, spacing_file_for
from .segmentation import Segmentation, load, segment

PROGRAM = "lightm"
INTERRUPTED = 130
BAR = 30
NO_MEMORY = "not enough memory"


def main(argv: Sequence[str] | None = None) -> int:
    """Returns: 0 done, 1 an image or the model cannot be used, 2 wrongly called, 130 interrupted."""
    parser = _parser()
    arguments = parser.parse_args(argv)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # a label's name may have letters that the terminal's code page lacks
            stream.reconfigure(errors="backslashreplace")
    try:
        return arguments.run(arguments)
    except (BundleError, EngineError, ImageError, UsageError, MemoryError) as error:
        _say(str(error) or NO_MEMORY)
        return 2 if isinstance(error, UsageError) else 1
    except OSError as error:
        _say(error)
        return 1
    except KeyboardInterrupt:
        _say("interrupted; the image in work was not written")
        return INTERRUPTED


def _say(text: object) -> None:
    """Names of files, labels and channels in it come from others."""
    print(f"{PROGRAM}: {escape_terminal(text)}", file=sys.stderr)


def _segment(arguments: argparse.Namespace) -> int:
    model = load(arguments.model, mirroring=not arguments.no_mirroring)
    cases = cases_of(arguments.images, len(model.channels))
    targets = _targets(arguments, model, cases)
    failed = []
    table = csv.writer(sys.stdout, lineterminator="\n")  # of which standard output makes what the system has
    if arguments.volumes:
        table.writerow(["case", "label", "voxels", "ml"])
    for name, files in cases.items():
        try:
            result = segment(model, files, threads=arguments.threads, progress=_Bar(name))
            result.write(targets[name])
        except (ImageError, EngineError, OSError, MemoryError) as error:
            if len(cases) == 1:
                raise
            # The other images are segmented all the same; the exit code tells.
            failed.append(name)
            _say(f"{name}: {str(error) or NO_MEMORY}")
            continue
        if result.case.note:
            _say(result.case.note)
        print(escape_terminal(f"{name}: {targets[name]}"), file=sys.stderr)
        if arguments.volumes:
            table.writerows(_rows(name, result))
    if failed:
        _say(f"{len(failed)} of {len(cases)} images failed: {', '.join(failed)}")
    return 1 if failed else 0


def _info(arguments: argparse.Namespace) -> int:
    pipeline = load(arguments.model).bundle.pipeline
    for line in json.dumps(pipeline, indent=2, ensure_ascii=False).split("\n"):
        print(escape_terminal(line))
    return 0


def _targets(arguments: argparse.Namespace, model: LoadedModel, cases: dict[str, list[Path]]) -> dict[str, Path]:
    """Where the labels go, all of which can be written; nothing is that is an input, or without --overwrite."""
    out, reader = arguments.output, model.bundle.pipeline["input"]["reader"]
    if ending_of(out) and not out.is_dir():
        if len(cases) > 1:
            raise UsageError(f"-o {out}: is one file, and there are {len(cases)} images; name a folder")
        targets = dict.fromkeys(cases, out)
    else:
        ending = _ending_of_model(model)
        targets = {name: out / f"{name}{ending}" for name in cases}
    inputs = [file for files in cases.values() for file in files if file.exists()]
    for name, target in targets.items():
        _check_target(target, cases[name], inputs, reader, arguments.overwrite)
    for folder in {target.parent: None for target in targets.values()}:
        require_writable(folder)
    return targets


def _ending_of_model(model: LoadedModel) -> str:
    """The file ending of the training images; a model of unknown origin may have anything there, such as a path."""
    ending = model.bundle.pipeline["input"]["file_ending"]
    if ending not in WRITTEN:
        raise BundleError(
            f"{model.bundle.path}: its images end in {ending!r}; labels are written as {', '.join(WRITTEN)}: name "
            "a file by -o for each image"
        )
    return ending


def _check_target(target: Path, files: Sequence[Path], inputs: Sequence[Path], reader: str, overwrite: bool) -> None:
    # By the file system's own account: the spelling may differ where it takes no notice of upper case.
    if target.exists() and any(map(target.samefile, inputs)):
        raise UsageError(f"{target}: is an input; name another output by -o")
    flat = False if any(is_flat(file) is False for file in files) else None
    refusal = refusal_of_output(target, flat=flat, sources=files, tiff_model=reader == TIFF)
    if refusal is not None:
        raise UsageError(f"{target}: {refusal}")
    spacing_file = spacing_file_for(target, reader)
    for file in (target, spacing_file):
        if file is None or not file.exists():
            continue
        if file.is_dir():
            raise UsageError(f"{file}: is a folder; name another output by -o")
        if not overwrite and not (file is spacing_file and file == spacing_file_of(files[0])):
            raise UsageError(f"{file} already exists; give another output, or --overwrite")


def _rows(name: str, result: Segmentation) -> list[list[object]]:
    voxel_ml = result.case.voxel_ml
    return [
        [escape_cell(name), escape_cell(label), count, "" if voxel_ml is None else f"{count * voxel_ml:.3f}"]
        for label, count in result.voxel_counts.items()
    ]


class _Bar:
    """A progress bar on a terminal; nothing elsewhere."""

    def __init__(self, name: str) -> None:
        self.name = escape_terminal(name)

    def __call__(self, done: int, total: int) -> None:
        if sys.stderr.isatty():
            filled = BAR * done // total
            end = "\n" if done == total else ""
            print(f"\r{self.name} [{'#' * filled}{'.' * (BAR - filled)}] {done}/{total}", end=end, file=sys.stderr)
            sys.stderr.flush()


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog=PROGRAM, description="Segment images with a trained LightM-UNet. For research use only."
    )
    parser.add_argument("--version", action=_PrintVersion, nargs=0, help="print the version and exit")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    command = commands.add_parser(
        "segment",
        help="segment images",
        description="Segment images: one, several, or those of a folder. For research use only.",
        epilog="With several channels, CASE_0000.nii.gz, CASE_0001.nii.gz ... are one image, or give its files in the "
        "model's order (`lightm info MODEL`).",
    )
    command.add_argument("model", type=Path, metavar="MODEL.lightm")
    command.add_argument("images", type=Path, nargs="+", metavar="IMAGE", help="file or folder")
    command.add_argument("-o", "--output", type=Path, required=True, metavar="OUT", help="file, or folder for several")
    command.add_argument("--threads", type=_positive, metavar="N", help="at most one for each core, the default")
    command.add_argument("--no-mirroring", action="store_true", help="faster, less exact: one pass instead of up to 8")
    command.add_argument("--volumes", action="store_true", help="print a table (CSV) of voxels and ml of each label")
    command.add_argument("--overwrite", action="store_true", help="replace files that are there")
    command.set_defaults(run=_segment)
    command = commands.add_parser("info", help="print what a model is and does, as JSON")
    command.add_argument("model", type=Path, metavar="MODEL.lightm")
    command.set_defaults(run=_info)
    return parser


class _PrintVersion(argparse.Action):
    def __call__(self, parser, *_):
        from importlib.metadata import version  # slow to import, and segmenting does not need it

        print(f"lightm-runtime {version('lightm-runtime')}")
        parser.exit()


def _positive(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"{value}; at least 1 is needed")
    return value


if __name__ == "__main__":
    sys.exit(main())
