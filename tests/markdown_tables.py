"""The tables of a Markdown document, for tests of what they say."""

from __future__ import annotations

import re


def tables(text: str) -> list[tuple[list[str], list[list[str]]]]:
    """Header and rows, as cells, of each Markdown table."""
    found, lines = [], text.splitlines()
    for number, line in enumerate(lines):
        if re.fullmatch(r"\|[-:| ]+\|", line):
            rows = []
            for row in lines[number + 1 :]:
                if not row.startswith("|"):
                    break
                rows.append(cells(row))
            found.append((cells(lines[number - 1]), rows))
    return found


def cells(row: str) -> list[str]:
    return [cell.strip() for cell in row.strip().strip("|").split("|")]
