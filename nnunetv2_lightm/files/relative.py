"""The way from a folder to a file, which still leads there when both are moved together."""

from __future__ import annotations

import os


def relative_path(path: str | os.PathLike[str], folder: str | os.PathLike[str]) -> str:
    """A path relative to a folder; absolute where no way leads there: on Windows, from one drive to another."""
    try:
        return os.path.relpath(path, folder)
    except ValueError:
        return os.path.abspath(path)
