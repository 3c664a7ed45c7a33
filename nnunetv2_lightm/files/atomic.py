"""A file appears whole or not at all: it is written under a hidden name, then renamed in one step."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from .patience import patiently
from .writers import is_being_written

PREFIX = ".partial-"


def partial_path(path: Path) -> Path:
    """Where a file is written before it takes its place: hidden, with the same ending, which some libraries go by."""
    return path.with_name(PREFIX + path.name)


@contextmanager
def whole_file(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Yield a path to write to; the result takes the place of ``path`` in one step at the end.

    After an error or a kill the old file is still there, if there was one. A symbolic link stays one: the file it
    names is replaced. Permissions stay. Devices and pipes, such as ``/dev/stdout``, are written to directly.

    Raises: IsADirectoryError: if ``path`` is a folder.
    """
    path = Path(path)
    if path.is_dir():
        raise IsADirectoryError(f"{path} is a folder; the name of a file is needed")
    if path.exists() and not path.is_file():
        yield path
        return
    path = Path(os.path.realpath(path))  # only now: of a pipe's name in /dev/fd it leads to no file
    partial = partial_path(path)
    try:
        yield partial
        with partial.open("rb+") as file:
            os.fsync(file.fileno())
        if path.exists():
            shutil.copymode(path, partial)
        patiently(partial.replace, path)
    finally:
        patiently(partial.unlink, missing_ok=True)


def write_text(path: str | os.PathLike[str], text: str) -> None:
    """Write a text file, UTF-8, whole or not at all; on Windows too its lines end as in the text, by which it is known.

    Raises: OSError: naming the file, unlike the system's own error on a full disk.
    """
    try:
        with whole_file(path) as partial:
            partial.write_text(text, encoding="utf-8", newline="\n")
    except OSError as error:
        if isinstance(error, IsADirectoryError):
            raise
        raise OSError(f"cannot write {path}: {error.strerror or error}") from error


def remove_partial(path: Path) -> None:
    """Remove what a killed process left of ``path``, unless another one is writing it."""
    partial = partial_path(path)
    if partial.is_file() and not is_being_written(partial):
        patiently(partial.unlink, missing_ok=True)
