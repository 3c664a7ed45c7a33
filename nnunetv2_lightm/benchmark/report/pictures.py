"""The pictures of a report: PNG files in ``figures/``, and no other files."""

from __future__ import annotations

from pathlib import Path

from PIL import Image

FOLDER = "figures"
SIGNATURE = b"\x89PNG\r\n\x1a\n"


class Pictures:
    """The pictures of one report: drawn by it, or kept from an earlier report in the same folder."""

    def __init__(self, folder: Path) -> None:
        """Create ``figures`` in the folder of the report."""
        self._folder = folder
        self._paths: list[str] = []
        (folder / FOLDER).mkdir(parents=True, exist_ok=True)

    def new(self, path: str) -> Path:
        """The file to draw; `path` is relative to the report, with ``/``."""
        self._paths.append(path)
        return self._folder / path

    def take_over(self, path: str) -> bool:
        """Keep an earlier report's picture if it is a PNG in the folder itself, not a link. Returns whether it is."""
        file = self._folder / path
        if file.is_symlink() or not file.is_file() or file.resolve().parent != self._folder.resolve() / FOLDER:
            return False
        try:
            with Image.open(file, formats=("PNG",)) as picture:
                picture.verify()
        except (OSError, SyntaxError, ValueError, Image.DecompressionBombError):
            return False
        self._paths.append(path)
        return True

    def read(self) -> dict[str, bytes]:
        """Path to content, for every picture."""
        return {path: (self._folder / path).read_bytes() for path in self._paths if (self._folder / path).is_file()}
