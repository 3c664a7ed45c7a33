"""A few names for a message."""

from __future__ import annotations

from collections.abc import Iterable


def some_of(names: Iterable[object], shown: int = 3, separator: str = ", ") -> str:
    """The first names, and how many more there are: ``a, b, c and 4 more``.

    With another separator than a comma the rest stands behind it too, e.g. on a line of its own.
    """
    names = [str(name) for name in names]
    text = separator.join(names[:shown])
    if len(names) > shown:
        text += f"{' ' if separator == ', ' else separator}and {len(names) - shown} more"
    return text
