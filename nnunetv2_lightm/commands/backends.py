"""``nnUNetv2_lightm backends``: which scan backends are usable, which one is taken, and why the others are not."""

from __future__ import annotations

import argparse

from ..ops import backend_table


def main(argv: list[str]) -> int:
    """Print one line for each backend and device; the one that runs by default is marked with an asterisk."""
    argparse.ArgumentParser(
        prog="nnUNetv2_lightm backends",
        description="List the backends of the selective scan. An asterisk marks the one that runs by default.",
    ).parse_args(argv)
    rows = [("", "BACKEND", "DEVICE", "USABLE", "WHAT IT IS, OR WHY NOT")]
    for backend in backend_table():
        mark, usable = "*" if backend.selected else "", "yes" if backend.usable else "no"
        rows.append((mark, backend.name, backend.device, usable, backend.reason))
    widths = [max(map(len, column)) for column in zip(*rows)]
    for row in rows:
        print("  ".join(cell.ljust(width) for cell, width in zip(row, widths)).rstrip())
    return 0
