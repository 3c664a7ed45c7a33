"""Names of files and folders that are not UTF-8, as old archives unpack them.

Python keeps such bytes as lone surrogates. ITK and nanobind abort the process on them, and printing them raises.
"""

from __future__ import annotations

import os
from collections.abc import Iterable

from ..escaping import escape_name


def is_utf8(path: str | os.PathLike[str]) -> bool:
    """Whether C++ libraries can open this path."""
    try:
        os.fspath(path).encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True


def refusal_of_name(path: str | os.PathLike[str]) -> str | None:
    """One sentence on a path that cannot be used; None if it can."""
    if is_utf8(path):
        return None
    return (
        f"the name of {escape_name(path)} is not UTF-8, and the libraries that read images cannot open it: rename it "
        "(convmv -f latin1 -t utf8 -r --notest FOLDER renames a whole folder)"
    )


def refusal_of_names(paths: Iterable[str | os.PathLike[str]]) -> str | None:
    """As `refusal_of_name`, of the first path that cannot be used."""
    return next((refusal for path in paths if (refusal := refusal_of_name(path)) is not None), None)
