"""The command line: ``lightm segment`` and ``lightm info``."""

from __future__ import annotations

import argparse
import csv
import json
import re
import sys
from collections.abc import Sequence
from pathlib import Path

from .bundle import BundleError
from .engine import EngineError, LoadedModel
from .images import ImageError, ending_of, stem_of
from .segmentation import Segmentation, load, segment

PROGRAM = "lightm"
INTERRUPTED = 130
BAR = 30
# nnU-Net's names: CASE_0000.nii.gz, CASE_0001.nii.gz for the channels of one case.
CHANNEL_SUFFIX = re.compile(r"_(\d{4})$")


class UsageError(Exception):
    """The arguments do not fit together or the model."""


def main(argv: Sequence[str] | None = None) -> int:
    """Returns: 0 done, 1 an image or the model cannot be used, 2 wrongly called, 130 interrupted."""
    parser = _parser()
    arguments = parser.parse_args(argv)
    try:
        return arguments.run(arguments)
    except (BundleError, EngineError, ImageError, UsageError, MemoryError) as error:
        print(f"{PROGRAM}: {error or 'not enough memory'}", file=sys.stderr)
        return 2 if isinstance(error, UsageError) else 1
    except OSError as error:
        print(f"{PROGRAM}: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print(f"{PROGRAM}: interrupted; the image in work was not written", file=sys.stderr)
        return INTERRUPTED


def _segment(arguments: argparse.Namespace) -> int:
    model = load(arguments.model, mirroring=not arguments.no_mirroring)
    cases = cases_of(arguments.images, model)
    targets = _targets(arguments, model, cases)
    failed = []
    table = csv.writer(sys.stdout)
    if arguments.volumes:
        table.writerow(["case", "label", "voxels", "ml"])
    for name, files in cases.items():
        try:
            result = segment(model, files, threads=arguments.threads, progress=_Bar(name))
            result.write(targets[name])
        except (ImageError, EngineError) as error:
            if len(cases) == 1:
                raise
            # The other images are segmented all the same; the exit code tells.
            failed.append(name)
            print(f"{PROGRAM}: {name}: {error}", file=sys.stderr)
            continue
        print(f"{name}: {targets[name]}", file=sys.stderr)
        if arguments.volumes:
            table.writerows(_rows(name, result))
    if failed:
        print(f"{PROGRAM}: {len(failed)} of {len(cases)} images failed: {', '.join(failed)}", file=sys.stderr)
    return 1 if failed else 0


def _info(arguments: argparse.Namespace) -> int:
    pipeline = load(arguments.model).bundle.pipeline
    print(json.dumps(pipeline, indent=2, ensure_ascii=False))
    return 0


def cases_of(images: Sequence[Path], model: LoadedModel) -> dict[str, list[Path]]:
    """The files of each case, by its name, in the order of the channels.

    With several channels, files CASE_0000, CASE_0001 ... belong together; other files are the channels of one case in
    the order given, as many as the model has, or each has all channels.
    """
    files = []
    for path in images:
        if path.is_dir():
            found = sorted(file for file in path.iterdir() if file.is_file() and ending_of(file))
            if not found:
                raise UsageError(f"{path}: holds no images")
            files += found
        else:
            files.append(path)
    channels = len(model.channels)
    suffixed = all(CHANNEL_SUFFIX.search(stem_of(file)) for file in files)
    cases: dict[str, list[Path]] = {}
    if suffixed:
        for file in sorted(files, key=lambda file: (CHANNEL_SUFFIX.sub("", stem_of(file)), stem_of(file))):
            cases.setdefault(CHANNEL_SUFFIX.sub("", stem_of(file)), []).append(file)
    elif channels > 1 and len(files) == channels and not any(path.is_dir() for path in images):
        cases[stem_of(files[0])] = files
    else:
        for file in files:
            if stem_of(file) in cases:
                raise UsageError(f"{cases[stem_of(file)][0]} and {file}: would have one name; give them apart")
            cases[stem_of(file)] = [file]
    return cases


def _targets(arguments: argparse.Namespace, model: LoadedModel, cases: dict[str, list[Path]]) -> dict[str, Path]:
    """Where the labels go; nothing is overwritten that is an input, or without --overwrite."""
    out = arguments.output
    if ending_of(out) and not out.is_dir():
        if len(cases) > 1:
            raise UsageError(f"-o {out}: is one file, and there are {len(cases)} images; name a folder")
        targets = dict.fromkeys(cases, out)
    else:
        ending = model.bundle.pipeline["input"]["file_ending"]
        targets = {name: out / f"{name}{ending}" for name in cases}
    inputs = [file for files in cases.values() for file in files if file.exists()]
    for target in targets.values():
        # By the file system's own account: the spelling may differ where it takes no notice of upper case.
        if target.exists() and any(map(target.samefile, inputs)):
            raise UsageError(f"{target}: is an input; name another output by -o")
        if target.suffix.lower() in (".jpg", ".jpeg"):
            raise UsageError(f"{target}: JPEG changes labels; write PNG")
        if target.exists() and not arguments.overwrite:
            raise UsageError(f"{target} already exists; give another output, or --overwrite")
    return targets


def _rows(name: str, result: Segmentation) -> list[list[object]]:
    voxel_ml = result.case.voxel_ml
    return [
        [name, label, count, "" if voxel_ml is None else f"{count * voxel_ml:.3f}"]
        for label, count in result.voxel_counts.items()
    ]


class _Bar:
    """A progress bar on a terminal; nothing elsewhere."""

    def __init__(self, name: str) -> None:
        self.name = name

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
    command.add_argument("--threads", type=_positive, metavar="N", help="default: one for each core")
    command.add_argument("--no-mirroring", action="store_true", help="faster, less exact: one pass instead of up to 8")
    command.add_argument("--volumes", action="store_true", help="print a table (CSV) of voxels and ml of each label")
    command.add_argument("--overwrite", action="store_true", help="replace files that are there")
    command.set_defaults(run=_segment)
    command = commands.add_parser("info", help="print what a model is and does, as JSON")
    command.add_argument("model", type=Path, metavar="MODEL.lightm")
    command.set_defaults(run=_info)
    return parser


def _positive(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"{value}; at least 1 is needed")
    return value


if __name__ == "__main__":
    sys.exit(main())
