"""The table of `--spacings`: the voxel spacing of cases whose files have lost it."""

from __future__ import annotations

import csv
import math
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path

from ._errors import ConversionError
from ._files import SourceCase

SpacingMm = tuple[float, float, float]


def read_spacings(file: Path) -> dict[str, SpacingMm]:
    """Read a CSV with a line a case: its name, and its spacing in mm along z, y and x.

    The first line may hold headings (case, z, y, x); empty lines and lines that begin with # are skipped.

    Raises:
        ConversionError: naming the line, if it is anything else, or its case occurs twice.
    """
    table: dict[str, SpacingMm] = {}
    try:
        lines = file.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise ConversionError(f"{file} cannot be read: {getattr(error, 'strerror', None) or error}") from error
    for number, line in enumerate(lines, start=1):
        if not line.strip() or line.startswith("#"):
            continue
        cells = [cell.strip() for cell in next(csv.reader([line.replace(";", ",").replace("\t", ",")]))]
        if not table and [cell.lower() for cell in cells] == ["case", "z", "y", "x"]:
            continue
        spacing_mm = _numbers(cells[1:])
        if spacing_mm is None:
            raise ConversionError(
                f"{file}, line {number}: {line!r}; expected CASE,Z,Y,X, the spacing in mm, such as 28,1.6,0.74,0.74"
            )
        if table.setdefault(cells[0], spacing_mm) != spacing_mm:
            raise ConversionError(f"{file}, line {number}: {cells[0]} occurs twice, with different spacings")
    if not table:
        raise ConversionError(f"{file} holds no spacing; expected lines CASE,Z,Y,X in mm, such as 28,1.6,0.74,0.74")
    return table


def with_spacings(cases: Iterable[SourceCase], table: Mapping[str, SpacingMm]) -> tuple[list[SourceCase], list[str]]:
    """The cases; those that the table names have their spacing.

    A case is named by its identifier (`LiTS_028`), its image (`volume-28`, with or without the ending) or its number
    (`28`, of the cases with a label).

    Returns: The cases; and the names in the table that match no case.
    Raises:
        ConversionError: if two names of one case have different spacings.
    """
    found, unknown = [], set(table)
    for case in cases:
        names = {name for name in _names(case) if name in table}
        if len({table[name] for name in names}) > 1:
            raise ConversionError(
                f"--spacings names {case.case} twice, with different spacings: {', '.join(sorted(names))}"
            )
        unknown -= names
        found.append(replace(case, spacing_mm=table[min(names)]) if names else case)
    return found, sorted(unknown)


def _names(case: SourceCase) -> set[str]:
    stem = case.image.name.removesuffix(".gz").removesuffix(".nii")
    names = {case.case, case.image.name, stem}
    digits = case.case.rpartition("_")[2]
    if case.labels and digits.isdigit():
        names |= {digits, str(int(digits))}
    return names


def _numbers(cells: list[str]) -> SpacingMm | None:
    try:
        numbers = tuple(float(cell) for cell in cells)
    except ValueError:
        return None
    if len(numbers) != 3 or not all(0 < number < math.inf for number in numbers):
        return None
    return numbers
