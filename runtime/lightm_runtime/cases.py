"""Which files are the channels of which case."""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence
from pathlib import Path

from .faults import ImageError
from .formats import DICOM, ending_of, is_dicom, refusal_of, stem_of
from .images import CHANNEL_SUFFIX

NAMED = 3  # files in one message


class UsageError(Exception):
    """The arguments do not fit together or the model."""


def cases_of(images: Sequence[Path], channels: int) -> dict[str, list[Path]]:
    """The files of each case, by its name, in the order of the channels.

    CASE_0000, CASE_0001 ... of one folder are CASE. Names with other numbers, or none, are cases of their own, each
    with all channels; as many of them as there are channels, named one by one, are one case in the order given.

    Raises:
        UsageError: if channels are missing or too many, or two cases have one name.
        ImageError: if a file is of a format that is not read.
    """
    files = _files(images)
    groups: dict[tuple[Path, str], list[Path]] = {}
    for file in files:
        groups.setdefault((file.parent, CHANNEL_SUFFIX.sub("", stem_of(file))), []).append(file)
    # A number counts channels where the model has one of that number; 1001 and 1002 of a lung are two patients.
    in_parts = {key for key, group in groups.items() if any(_number_of(file) in range(channels) for file in group)}
    if not in_parts and 1 < channels == len(files) and len(groups) > 1 and not any(path.is_dir() for path in images):
        return {stem_of(files[0]): files}
    cases: list[tuple[str, list[Path]]] = []
    for key, group in groups.items():
        if key in in_parts:
            cases.append((key[1], _in_order(key[1], group, channels)))
        else:
            cases += [(stem_of(file), [file]) for file in group]
    return _by_name(cases)


def _files(images: Sequence[Path]) -> list[Path]:
    """Files, and those of folders: of these the images that are not hidden, as the companions that macOS adds are."""
    files: list[Path] = []
    for path in images:
        if not path.is_dir():
            files.append(path)
            continue
        visible = sorted(file for file in path.iterdir() if file.is_file() and not file.name.startswith("."))
        found = [file for file in visible if ending_of(file)]
        if not found and any(map(is_dicom, visible)):
            raise ImageError(f"{path}: {DICOM}")
        if not found:
            raise UsageError(f"{path}: holds no images")
        files += found
    refusals: dict[str, list[Path]] = {}
    for file in files:
        if file.is_file() and (refusal := refusal_of(file)) is not None:
            refusals.setdefault(refusal, []).append(file)
    if refusals:
        raise ImageError("; ".join(f"{_names(refused)}: {refusal}" for refusal, refused in refusals.items()))
    return files


def _number_of(file: Path) -> int | None:
    """The number at the end of a name."""
    found = CHANNEL_SUFFIX.search(stem_of(file))
    return int(found[1]) if found else None


def _in_order(name: str, group: Sequence[Path], channels: int) -> list[Path]:
    """The channels of a case, by their numbers: each once."""
    by_number: dict[int | None, Path] = {}
    for file in group:
        number = _number_of(file)
        if number in by_number:
            raise UsageError(f"{by_number[number]} and {file}: are one channel of {name} by their names; take one away")
        by_number[number] = file
    if None in by_number and len(group) > 1:
        other = next(file for number, file in by_number.items() if number is not None)
        raise UsageError(f"{by_number[None]} and {other}: would have one name; give them apart")
    missing = [f"{name}_{number:04d}" for number in range(channels) if number not in by_number]
    if missing:
        raise UsageError(
            f"{_names(group)}: {', '.join(missing)} is missing in {group[0].parent}; the model takes {channels} "
            f"channel(s), {name}_0000 to {name}_{channels - 1:04d} in one folder; rename files "
            "whose number is their case's"
        )
    others = [file for number, file in by_number.items() if number not in range(channels)]
    if others:
        raise UsageError(
            f"{_names(others)}: is another channel of {name} by its name, and the model takes {channels}; take it "
            "away, or rename it if it is a case of its own"
        )
    return [by_number[number] for number in range(channels)]


def _by_name(cases: Sequence[tuple[str, list[Path]]]) -> dict[str, list[Path]]:
    """Each has a name of its own, also where upper case and the encoding of accents make no difference."""
    seen: dict[str, tuple[str, list[Path]]] = {}
    for name, files in cases:
        other, theirs = seen.setdefault(unicodedata.normalize("NFC", name).casefold(), (name, files))
        if theirs is not files:
            where = "" if other == name else " on Windows and macOS"
            raise UsageError(f"{theirs[0]} and {files[0]}: would have one name{where}; give them apart")
    return dict(cases)


def _names(files: Sequence[Path]) -> str:
    more = f" and {len(files) - NAMED} more" if len(files) > NAMED else ""
    return ", ".join(map(str, files[:NAMED])) + more
