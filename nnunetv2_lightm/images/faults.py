"""A file that must not be used."""

from __future__ import annotations

from pathlib import Path

from ..escaping import escape_name


class ImageFault(ValueError):
    """A file that must not be used: which one, what is wrong with it, and how to fix it.

    Attributes:
        path: The file.
        reason: Continues a sentence that begins with the file's name: "is truncated: ...".
    """

    def __init__(self, path: Path, reason: str) -> None:
        super().__init__(f"{escape_name(path)} {reason}")
        self.path = path
        self.reason = reason

    def __reduce__(self) -> tuple[type[ImageFault], tuple[Path, str]]:
        return type(self), (self.path, self.reason)  # worker processes send it back
