"""Which files of a folder this package made, by size and time: only these are removed, and only while unchanged."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from .atomic import whole_file, write_text
from .guard import NotOursError, set_aside
from .patience import patiently
from .relative import relative_path
from .text import some_of

RECORD_FILE = ".nnunetv2_lightm.json"
# Network file systems round times; an edit is later than this.
SAME_TIME_NS = 2_000_000_000
# Nobody's work: the record itself, and what operating systems leave around. It goes with the last file of its folder.
INCIDENTAL = {RECORD_FILE, ".DS_Store", "Thumbs.db", "desktop.ini"}


class Record:
    """Files below a folder, each with the size and the time of change that it had when it was complete."""

    def __init__(self, folder: Path, files: Mapping[str, Any] | None = None) -> None:
        """
        Args:
            folder: What the names are relative to.
            files: As :attr:`files` of an earlier record; entries of another form are left out.
        """
        self.folder = folder
        self.files: dict[str, tuple[int, int]] = {
            name: (entry[0], entry[1]) for name, entry in (files or {}).items() if _is_entry(entry)
        }

    @classmethod
    def read(cls, folder: Path) -> Record | None:
        """The record in a folder; None if it is missing or damaged: then nothing in the folder counts as ours."""
        try:
            content = json.loads((folder / RECORD_FILE).read_text(encoding="utf-8"))
            return cls(folder, content["files"])
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            return None

    def write(self, made_by: str) -> None:
        """Sign the folder: write the record into it."""
        content = {"made_by": made_by, "files": {name: list(entry) for name, entry in sorted(self.files.items())}}
        write_text(self.folder / RECORD_FILE, json.dumps(content, indent=1) + "\n")

    def add(self, path: Path) -> None:
        """Record a file, or all files now in a folder."""
        self.files.update({name: _entry(file) for name, file in self._files_in(path)})

    @contextmanager
    def writing(self, file: Path, made_by: str) -> Iterator[Path]:
        """Yield a path to write to; the file takes its place in one step, after it was recorded. Until then the old
        file stays.

        Raises: NotOursError: if a file is there that is not ours.
        """
        self.check_only_ours(file)
        with whole_file(file) as partial:
            yield partial
            self.files[self._name(file)] = _entry(partial)
            self.write(made_by)

    def not_ours(self, path: Path | None = None) -> list[Path]:
        """The files in the folder, or at a path in it, that are not recorded or have changed since."""
        return [
            file
            for name, file in self._files_in(path or self.folder)
            if file.name not in INCIDENTAL and not self._is_unchanged(name, file)
        ]

    def check_only_ours(self, path: Path | None = None) -> None:
        """
        Raises: NotOursError: naming the files that are not ours or were changed.
        """
        if others := self.not_ours(path):
            raise NotOursError(
                f"{path or self.folder} is not replaced: it holds {some_of(others)}, not made by this command or "
                "changed since. Nothing was changed. Move that away, or write to another place"
            )

    def remove(self, path: Path) -> Path | None:
        """Remove what was recorded at a path, and rename what remains.

        Returns: The name of the rest; None if there is none.
        """
        for name, file in list(self._files_in(path)):
            if self._is_unchanged(name, file):
                patiently(file.unlink)
            self.files.pop(name, None)
        if path.is_dir() and not path.is_symlink():
            for folder, _, _ in os.walk(path, topdown=False):
                left = os.listdir(folder)
                if set(left) <= INCIDENTAL:
                    for name in left:
                        patiently(Path(folder, name).unlink)
                    patiently(os.rmdir, folder)
        return set_aside(path) if os.path.lexists(path) else None

    def _is_unchanged(self, name: str, file: Path) -> bool:
        recorded = self.files.get(name)
        if recorded is None:
            return False
        size, time_ns = _entry(file)
        return size == recorded[0] and abs(time_ns - recorded[1]) < SAME_TIME_NS

    def _files_in(self, path: Path) -> Iterator[tuple[str, Path]]:
        """Names and paths of all files, links to folders among them."""
        if path.is_symlink() or not path.is_dir():
            if os.path.lexists(path):
                yield self._name(path), path
            return
        for folder, folders, names in os.walk(path):
            links = [name for name in folders if os.path.islink(os.path.join(folder, name))]
            for name in sorted([*names, *links]):
                file = Path(folder, name)
                yield self._name(file), file

    def _name(self, file: Path) -> str:
        return Path(relative_path(file, self.folder)).as_posix()


def check_replaceable(folder: Path, overwrite: bool) -> None:
    """Refuse to write a folder that exists, or with ``overwrite`` one that is not entirely ours.

    Raises: NotOursError: saying what is in the way.
    """
    if not os.path.lexists(folder):
        return
    if not overwrite:
        raise NotOursError(
            f"{folder}: already exists; give another folder, or --overwrite to replace what this command made"
        )
    if not folder.is_dir():
        raise NotOursError(f"{folder}: is not a folder and is not replaced; move it away, or give another name")
    (Record.read(folder) or Record(folder)).check_only_ours()


def _entry(file: Path) -> tuple[int, int]:
    status = file.lstat()  # of a link itself
    return status.st_size, status.st_mtime_ns


def _is_entry(entry: object) -> bool:
    return isinstance(entry, (list, tuple)) and len(entry) == 2 and all(isinstance(value, int) for value in entry)
