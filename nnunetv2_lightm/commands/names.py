"""Names on the command line: any is printed, and one that no library can open is refused before anything begins."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable

from ..images.names import refusal_of_names
from ..nnunet import FOLDERS


def print_any_text() -> None:
    """Make printing escape what the terminal's encoding lacks, instead of raising."""
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):  # a test's stream may not be one of Python's own
            stream.reconfigure(errors="backslashreplace")


def refusal_of_command_line(arguments: Iterable[str]) -> str | None:
    """One sentence on an argument, or one of nnU-Net's folders, that cannot be used; None if all can."""
    return refusal_of_names([*arguments, *(value for name in FOLDERS if (value := os.environ.get(name)))])
