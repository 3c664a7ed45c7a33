"""The pictures of a report: PNG files in ``figures/``, and no other files."""

from __future__ import annotations

from pathlib import Path

from PIL import Image

from ...files import Record, set_aside

FOLDER = "figures"
MADE_BY = "nnUNetv2_lightm benchmark-report"


class Pictures:
    """The pictures of one report: drawn by it, or kept from an earlier report in the same folder."""

    def __init__(self, folder: Path, record: Record) -> None:
        """
        Args:
            folder: Of the report; has the folder ``figures``.
            record: Which files of ``figures`` were written here.
        """
        self._folder, self._record = folder, record
        self._drawn: list[Path] = []
        self._paths: list[str] = []

    def new(self, path: str) -> Path:
        """The file to draw; `path` is relative to the report, with ``/``.

        An earlier report's picture that was changed since is renamed; one without a record, as in a repository, is
        replaced.
        """
        self._paths.append(path)
        file = self._folder / path
        if file.name in self._record.files:
            if self._record.not_ours(file):
                set_aside(file)
            # If this process is killed after drawing, the new picture must not look like a changed one.
            del self._record.files[file.name]
            self._record.write(MADE_BY)
        self._drawn.append(file)
        return file

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

    def record(self) -> None:
        """Record what was drawn."""
        for file in self._drawn:
            self._record.add(file)

    def read(self) -> dict[str, bytes]:
        """Path to content, for every picture."""
        return {path: (self._folder / path).read_bytes() for path in self._paths if (self._folder / path).is_file()}
