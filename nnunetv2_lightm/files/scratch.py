"""A temporary folder for a piece of work."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from .atomic import partial_path, write_text
from .guard import NotOursError
from .patience import patiently

SIGNATURE_FILE = ".nnunetv2_lightm_scratch"


@contextmanager
def scratch_folder(folder: Path) -> Iterator[Path]:
    """Make a folder, signed as temporary, and remove it at the end; one that a killed process left is removed first.

    Raises: NotOursError: if another folder has that name.
    """
    _remove(folder)
    folder.mkdir(parents=True)
    write_text(folder / SIGNATURE_FILE, "Made by nnunetv2_lightm for the time of some work.\n")
    try:
        yield folder
    finally:
        _remove(folder)


def _remove(folder: Path) -> None:
    if not folder.exists():
        return
    signature = folder / SIGNATURE_FILE
    unfinished = {partial_path(signature).name}  # killed before it could sign
    if not signature.is_file() and any(path.name not in unfinished for path in folder.iterdir()):
        raise NotOursError(f"{folder} is in the way and was not made here: move it away")
    for path in folder.iterdir():
        if path != signature:
            patiently(shutil.rmtree if path.is_dir() and not path.is_symlink() else os.remove, path)
    # Last: a process that is killed before this leaves a folder that is known.
    patiently(signature.unlink, missing_ok=True)
    patiently(folder.rmdir)
