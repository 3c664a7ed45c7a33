"""A distribution's page on the package index: its readme, whose relative links would lead nowhere there.

Both setup.py take the page from here. Needs nothing but the standard library.
"""

from __future__ import annotations

import posixpath
import re
from pathlib import Path
from urllib.parse import urlsplit

FENCED_CODE = re.compile(r"(^```.*?^```$)", re.MULTILINE | re.DOTALL)
# `](` of a link, or the whole label of a picture, then the target.
TARGET = re.compile(r"(?P<label>!\[[^\]]*\]|\])\((?P<target>[^()\s]+)")


def long_description(folder: Path, place: str = ".") -> str:
    """The readme in a folder; its links lead into the repository if pyproject.toml has one, in [project.urls].

    Args:
        place: The folder's path within the repository.
    """
    text = (folder / "README.md").read_text(encoding="utf-8")
    project = (folder / "pyproject.toml").read_text(encoding="utf-8")
    repository = re.search(r'^Repository *= *"(.+?)/?"', project, re.MULTILINE)
    version = re.search(r'^version = "(.+)"', project, re.MULTILINE)
    return with_absolute_targets(text, repository[1], f"v{version[1]}", place) if repository else text


def with_absolute_targets(text: str, repository: str, tag: str, place: str = ".") -> str:
    """Markdown whose relative links and pictures are those of the repository at a tag."""

    def absolute(match: re.Match[str]) -> str:
        label, target = match["label"], match["target"]
        if not _is_relative(target):
            return match[0]
        kind = "raw" if label.startswith("!") else "blob"
        # A heading's name is known to the repository's page, not to the package index.
        path = posixpath.normpath(posixpath.join(place, f"README.md{target}" if target[0] == "#" else target))
        return f"{label}({repository}/{kind}/{tag}/{path}"

    return "".join(part if code else TARGET.sub(absolute, part) for part, code in _parts(text))


def relative_targets(text: str) -> list[str]:
    """Targets of links and pictures in Markdown that need the repository around it."""
    found = [match["target"] for part, code in _parts(text) if not code for match in TARGET.finditer(part)]
    return list(filter(_is_relative, found))


def _is_relative(target: str) -> bool:
    address = urlsplit(target)
    return not address.scheme and not address.netloc


def _parts(text: str) -> list[tuple[str, bool]]:
    """Pieces of the text, and whether each is fenced code."""
    return [(part, index % 2 == 1) for index, part in enumerate(FENCED_CODE.split(text))]
