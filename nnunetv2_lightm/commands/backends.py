"""``nnUNetv2_lightm backends``: which scan backends can run, which one is used, and why others cannot run."""

from __future__ import annotations

import argparse
import os
import sys

from ..escaping import escape_terminal


def main(argv: list[str]) -> int:
    """Print one line for each backend and device; the one that runs by default is marked with an asterisk.

    Returns 1 if the environment asks for a backend that does not exist or runs on no device here, else 0.
    """
    argparse.ArgumentParser(
        prog="nnUNetv2_lightm backends",
        description="List the backends of the selective scan, on each device in the order in which they are tried. "
        "An asterisk marks the one that runs by default.",
        epilog="The environment variable NNUNETV2_LIGHTM_BACKEND forces one by name.",
    ).parse_args(argv)
    # After the arguments: `--help` loads no torch.
    from ..ops import backend_table
    from ..ops.backends import ENVIRONMENT_VARIABLE, REFERENCE

    forced = os.environ.get(ENVIRONMENT_VARIABLE)
    try:
        table = list(backend_table())
    except ValueError as error:
        print(f"{ENVIRONMENT_VARIABLE}: {escape_terminal(error)}", file=sys.stderr)
        return 1
    rows = [("", "BACKEND", "DEVICE", "USABLE", "WHAT IT IS, OR WHY NOT")]
    for backend in table:
        mark, usable = "*" if backend.selected else "", "yes" if backend.usable else "no"
        rows.append((mark, backend.name, backend.device, usable, backend.reason))
    widths = [max(map(len, column)) for column in zip(*rows)]
    for row in rows:
        print("  ".join(cell.ljust(width) for cell, width in zip(row, widths)).rstrip())
    if forced and forced != REFERENCE and not any(backend.selected for backend in table):
        print(f"{ENVIRONMENT_VARIABLE}={forced}, but that backend runs on no device here; unset it", file=sys.stderr)
        return 1
    if forced:
        print(f"{ENVIRONMENT_VARIABLE}={forced}: only this one is used, on every device")
    return 0
