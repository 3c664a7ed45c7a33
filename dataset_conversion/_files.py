"""Files of a source: found in any nesting, and taken over as they are."""

from __future__ import annotations

import os
import shutil
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from ..escaping import escape_name
from ..files import some_of
from ..images.names import refusal_of_name
from ._errors import ConversionError
from ._report import CaseReport


@dataclass(frozen=True)
class SourceCase:
    """One case as it lies in the source.

    Attributes:
        case: nnU-Net's case identifier.
        source: Where it comes from, for the stratified split.
        image: The image.
        labels: No file, one, or several that make up one label.
        spacing_mm: (z, y, x), where the user gives it instead of the file.
    """

    case: str
    source: str
    image: Path
    labels: tuple[Path, ...]
    spacing_mm: tuple[float, float, float] | None = None


@dataclass
class FoundCases:
    """What a source holds: cases to convert, cases refused by their file names alone, and other files."""

    cases: list[SourceCase] = field(default_factory=list)
    refused: list[CaseReport] = field(default_factory=list)
    ignored: list[Path] = field(default_factory=list)
    links: list[str] = field(default_factory=list)


def list_files(source: Path, links: list[str]) -> list[Path]:
    """All files below `source`, sorted, through links too; without hidden ones (`._*` of macOS) and `__MACOSX`.

    A link to a folder that contains the source, such as `/`, is not followed: what else is there is not part of it.

    Args:
        source: The folder.
        links: Receives messages about links to folders outside the source.
    Raises:
        ConversionError: if `source` is not a folder.
    """
    if not source.is_dir():
        what = "is a file; unpack it and give the folder" if source.is_file() else "does not exist"
        raise ConversionError(f"{escape_name(source)} {what}")

    def stop(error: OSError) -> None:
        raise ConversionError(f"cannot read the folder {escape_name(error.filename)}: {error.strerror}")

    files, seen, root = [], set(), Path(os.path.realpath(source))
    for folder, subfolders, names in os.walk(source, followlinks=True, onerror=stop):
        real = os.path.realpath(folder)
        if real in seen:
            subfolders.clear()
            continue
        seen.add(real)
        subfolders[:] = sorted(name for name in subfolders if not name.startswith(".") and name != "__MACOSX")
        for link in [Path(folder, name) for name in subfolders if os.path.islink(os.path.join(folder, name))]:
            target = Path(os.path.realpath(link))
            if target in root.parents:
                subfolders.remove(link.name)
                name = relative_names([link], source)[0]
                links.append(f"{name} -> {escape_name(target)}, which holds the source: not followed")
            elif root != target and root not in target.parents:
                links.append(f"{relative_names([link], source)[0]} -> {escape_name(target)}")
        files += [Path(folder, name) for name in names if not name.startswith(".")]
    return sorted(files)


def relative_names(files: Iterable[Path], source: Path) -> list[str]:
    """How the report names files of a source."""
    return [escape_name(file.relative_to(source).as_posix()) for file in files]


def refuse_alike(found: FoundCases, source: Path) -> FoundCases:
    """Refuse cases whose names differ only in upper and lower case: to Windows and macOS their files are the same."""
    alike: dict[str, list[SourceCase]] = defaultdict(list)
    for case in found.cases:
        alike[case.case.casefold()].append(case)
    for cases in alike.values():
        for case in cases if len(cases) > 1 else ():
            others = some_of([other.case for other in cases if other is not case])
            reason = (
                f"{others} differs from it only in upper and lower case, which Windows and macOS ignore; rename one"
            )
            files = relative_names((case.image, *case.labels), source)
            found.refused.append(CaseReport(case.case, "refused", files, reason))
            found.cases.remove(case)
    return found


def require_utf8(path: Path) -> None:
    """Refuse a file whose name the image libraries cannot open, before any work is done.

    Raises:
        ConversionError: naming the path.
    """
    if (refusal := refusal_of_name(path)) is not None:
        raise ConversionError(refusal)


def take_over(file: Path, target: Path, *, link: bool) -> None:
    """Put `file` at `target` unchanged: a copy, or a symbolic link (which also works across file systems).

    Raises:
        ConversionError: if the file system or the user's permissions allow no links.
    """
    if not link:
        shutil.copyfile(file, target)
        return
    try:
        os.symlink(file.resolve(), target)
    except OSError as error:
        raise ConversionError(f"cannot make the symbolic link {target}: {error.strerror}. Use --copy.") from error
