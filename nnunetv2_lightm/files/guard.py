"""Whether a path may be written, replaced or removed: never where that would hit a source, or a file of the user's."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterable, Iterator
from itertools import count
from pathlib import Path

from .patience import patiently

MAX_LINKS = 40  # as Linux
LARGEST_TEXT = 1 << 28  # bytes; reports have fewer


class NotOursError(OSError):
    """Continuing would overwrite or remove what this package must not replace; nothing was changed."""


def keep_apart(sources: Iterable[Path], targets: Iterable[Path]) -> None:
    """Refuse a target whose writing or removal would hit a source.

    Real places are compared: links are followed, each link on the way counts too, and folders are identified by the
    file system's own numbers, so that neither another spelling nor a bind mount hides one.

    Args:
        sources: Files and folders that are read.
        targets: Files and folders that are written, or replaced with everything in them.
    Raises:
        NotOursError: if a source is a target, or lies in one.
    """
    inside = {place: target for target in targets for place in _places_in(target)}
    seen: set[str] = set()
    for source in sources:
        for step in _ways_to(os.path.join(os.getcwd(), source)):
            for place in _up_from(step, seen):
                if (target := inside.get(place)) is not None:
                    raise NotOursError(
                        f"{target} would be written or replaced, and {source} lost with it. Nothing was changed. Write "
                        "to another place, or move it out of there first"
                    )


def check_output(path: Path, *, inputs: Iterable[Path] = (), ours: Callable[[bytes], bool]) -> None:
    """Refuse to overwrite a file that must stay: an input, or one that this package did not write.

    Args:
        path: The file to write.
        inputs: Files that are read.
        ours: Whether the content of an existing file is what the same command writes.
    Raises:
        NotOursError: if the file must stay, or is the one that standard output or standard error goes to.
        IsADirectoryError: if it is a folder.
    """
    if not _is_existing_file(path, inputs):
        return
    text = path.read_bytes() if path.stat().st_size <= LARGEST_TEXT else b"too large"
    if text and not ours(text):
        raise NotOursError(
            f"{path} already exists and was not written by this command, or was changed since; it is not replaced. "
            "Give another name, or move it away"
        )


def check_free(path: Path, *, inputs: Iterable[Path] = (), overwrite: bool) -> None:
    """Refuse to write over an existing file unless ``overwrite``; an input is never written over.

    Args:
        path: The file to write.
        inputs: Files that are read.
        overwrite: Whether another existing file may be replaced.
    Raises:
        NotOursError: if the file exists and may not be replaced, or standard output or standard error goes to it.
        IsADirectoryError: if it is a folder.
    """
    if _is_existing_file(path, inputs) and not overwrite:
        raise NotOursError(f"{path} already exists; give another name, or --overwrite to replace it")


def _is_existing_file(path: Path, inputs: Iterable[Path]) -> bool:
    """Whether an output is a file that exists: not nothing, and no device or pipe, which is written to as it is.

    Raises: NotOursError, IsADirectoryError: if it can be no output of any command.
    """
    if path.is_dir():
        raise IsADirectoryError(f"{path} is a folder; the name of a file is needed")
    keep_apart(inputs, [path])
    if not path.is_file():
        return False
    if _is_printed_to(path):
        raise NotOursError(
            f"{path} is the file that this command's messages go to, and they would be lost; it is not replaced. Give "
            "another name"
        )
    return True


def _is_printed_to(path: Path) -> bool:
    """Whether standard output or standard error is redirected to this file: `/dev/stdout` leads to it, too."""
    for descriptor in (1, 2):
        with contextlib.suppress(OSError):  # it is closed
            if os.path.samestat(os.fstat(descriptor), path.stat()):
                return True
    return False


def set_aside(path: Path, wanted: Path | None = None) -> Path:
    """Rename whatever is in the way instead of removing it.

    Args:
        path: File, folder or link.
        wanted: Its new name; default: ``kept_NAME``, which nnU-Net, which goes by how names begin and end, ignores.
            If the name is taken, ``-2``, ``-3``... is added.
    Returns: Its new name.
    """
    wanted = wanted or path.with_name(f"kept_{path.name}")
    free = wanted
    for number in count(2):
        if not os.path.lexists(free):
            break
        free = wanted.with_name(f"{wanted.name}-{number}")
    patiently(path.rename, free)
    return free


# A place is a path with all links resolved, or the numbers by which the file system knows a file or folder.
_Place = str | tuple[int, int]


def _places_in(target: Path) -> Iterator[_Place]:
    """The target itself, and the folders in it, which may be mounted elsewhere too."""
    real = os.path.realpath(target)
    yield real
    # A link that is a target is replaced itself.
    yield os.path.join(os.path.realpath(target.parent), target.name)
    yield from _numbers(real)
    for folder, _, _ in os.walk(real):
        yield from _numbers(folder)


def _ways_to(path: str) -> Iterator[str]:
    """The real place of each symbolic link on the way to a file, and that of the file."""
    drive, root = os.path.splitdrive(path)[0], os.sep
    real, links = drive + root, 0
    parts = path[len(drive) :].split(os.sep)[::-1]
    while parts:
        part = parts.pop()
        if part in ("", "."):
            continue
        if part == "..":
            real = os.path.dirname(real)
            continue
        place = os.path.join(real, part)
        if os.path.islink(place) and links < MAX_LINKS:
            links += 1
            yield place
            link = os.readlink(place)
            link_drive, link = os.path.splitdrive(_plain(link) if os.name == "nt" else link)
            if link.startswith(os.sep):
                real = (link_drive or drive) + root
            parts += link.split(os.sep)[::-1]
        else:
            real = place
    yield real


def _plain(link: str) -> str:
    """A link's target on Windows without the prefix that it may have: `\\\\?\\C:\\...`, `\\\\?\\UNC\\server\\...`."""
    link = link.replace("/", "\\")
    if link.startswith("\\\\?\\UNC\\"):
        return "\\\\" + link[8:]
    return link.removeprefix("\\\\?\\")


def _up_from(path: str, seen: set[str]) -> Iterator[_Place]:
    """A path and the folders above it, as far as they are not known already."""
    while path not in seen:
        seen.add(path)
        yield path
        yield from _numbers(path)
        path = os.path.dirname(path)


def _numbers(path: str) -> Iterator[_Place]:
    if os.path.exists(path):
        status = os.stat(path)
        if status.st_ino:  # some network file systems number nothing on Windows
            yield status.st_dev, status.st_ino
