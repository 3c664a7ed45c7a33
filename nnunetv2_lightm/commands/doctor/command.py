"""``nnUNetv2_lightm doctor``: checks whether training can start, and prints the fix if not."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable

from ...autoload import shim_directory
from . import dataset, discovery, folders, fresh_process, libraries, machine, package, scan_backends
from .finding import Finding, Status
from .render import as_json, as_text

IN_A_FRESH_PROCESS: tuple[Callable[[dict[str, object]], list[Finding]], ...] = (
    package.check_package,
    libraries.check_nnunetv2,
    libraries.check_torch,
    libraries.check_device,
    discovery.check_discovery,
    scan_backends.check_backends,
)
HERE: tuple[Callable[[], list[Finding]], ...] = (folders.check_folders, machine.check_machine)


def main(argv: list[str]) -> int:
    """Print the findings. Returns 0 if training can start, 1 if not."""
    parser = argparse.ArgumentParser(
        prog="nnUNetv2_lightm doctor",
        description="Check whether training can start on this machine; if not, print why and the fix.",
        epilog="Exit code: 0 if training can start, 1 if not.",
    )
    parser.add_argument(
        "--dataset",
        metavar="DATASET",
        help="also check this data set, given by name or id; reads all of its raw images and labels",
    )
    parser.add_argument(
        "--plans", default="nnUNetPlans", metavar="NAME", help="name of its plans (default: %(default)s)"
    )
    parser.add_argument("--json", action="store_true", help="print the findings as JSON")
    parser.add_argument(
        "--print-trainer-path",
        action="store_true",
        help="print only the directory to add to nnUNet_extTrainer where autoload cannot work",
    )
    arguments = parser.parse_args(argv)
    if arguments.print_trainer_path:
        print(shim_directory())
        return 0
    if sys.stderr.isatty():
        print("Looking the trainer up as nnU-Net does; this takes some seconds.", file=sys.stderr)
    findings = examine()
    if arguments.dataset is not None:
        findings += dataset.check_dataset(arguments.dataset, arguments.plans)
    print(as_json(findings) if arguments.json else as_text(findings))
    return 1 if any(finding.status is Status.FAIL for finding in findings) else 0


def examine() -> list[Finding]:
    """All findings, in the order of the screen."""
    outcomes = fresh_process.examine()
    return [finding for check in IN_A_FRESH_PROCESS for finding in check(outcomes)] + [
        finding for check in HERE for finding in check()
    ]
