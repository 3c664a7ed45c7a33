"""Labels in files: which formats hold them, and files that appear whole or not at all."""

from __future__ import annotations

import json
import os
import secrets
import stat
from collections.abc import Callable
from pathlib import Path

import numpy as np
import SimpleITK as sitk

from .faults import ImageError
from .formats import TIFF as TIFF_ENDINGS
from .formats import ending_of, last_line, refusal_of_output, stem_of
from .images import TIFF, Case


def spacing_file_for(path: Path, reader: str) -> Path | None:
    """Where the spacing of labels stands that are written as TIFF, as nnU-Net writes it; None: in the file itself."""
    return (
        path.with_name(f"{stem_of(path)}.json") if reader == TIFF and ending_of(path).lower() in TIFF_ENDINGS else None
    )


def require_writable(folder: Path) -> None:
    """Make a folder, and a file in it that goes again. Raises ImageError if that fails."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        _new_file(folder / "labels").unlink()
    except OSError as error:
        raise ImageError(
            f"{folder}: cannot be written to ({error.strerror or error}); name another output by -o"
        ) from error


def write_labels(labels: np.ndarray, case: Case, path: Path) -> None:
    """Write labels (z, y, x) with the image's geometry; the file appears whole or not at all.

    Raises:
        ImageError: if they cannot be written in this format, or another program has the file open on Windows.
        OSError: if the folder cannot be written to.
    """
    flat = case.geometry.dimensions == 2
    refusal = refusal_of_output(path, flat=flat, sources=case.files, tiff_model=case.reader == TIFF)
    if refusal is not None:
        raise ImageError(f"{path}: {refusal}")
    if labels.max() < 255:  # as nnU-Net writes them
        labels = labels.astype(np.uint8)
    image = sitk.GetImageFromArray(labels[0] if flat else labels)
    image.SetSpacing(case.geometry.spacing)
    image.SetOrigin(case.geometry.origin)
    image.SetDirection(case.geometry.direction)
    if case.orientation is not None:
        image = sitk.DICOMOrient(image, case.orientation)
    path.parent.mkdir(parents=True, exist_ok=True)
    spacing_file = spacing_file_for(path, case.reader)
    if spacing_file is not None and not _has(spacing_file, case.spacing_mm):
        spacing = json.dumps({"spacing": list(case.spacing_mm)}) + "\n"
        _replace(spacing_file, lambda new: new.write_text(spacing, encoding="utf-8"))
    _replace(path, lambda new: sitk.WriteImage(image, str(new), True))


def _has(spacing_file: Path, spacing_mm: tuple[float, ...]) -> bool:
    """Whether a file has this spacing already: the image's own, which may hold more, stays as it is."""
    try:
        return tuple(json.loads(spacing_file.read_text(encoding="utf-8"))["spacing"]) == spacing_mm
    except (FileNotFoundError, KeyError, TypeError, ValueError, RecursionError):
        return False


def _replace(path: Path, write: Callable[[Path], object]) -> None:
    new = _new_file(path)
    try:
        write(new)
        if path.exists():
            new.chmod(stat.S_IMODE(path.stat().st_mode))
        os.replace(new, path)
    except RuntimeError as error:
        raise ImageError(f"{path}: cannot be written: {last_line(error)}") from error
    except PermissionError as error:  # the folder can be written to: another file is there already
        raise ImageError(
            f"{path}: cannot be replaced: {error.strerror}. Close it where it is open, or name another output"
        ) from error
    finally:
        new.unlink(missing_ok=True)


def _new_file(path: Path) -> Path:
    """An empty hidden file next to a path, with the permissions that a new file gets."""
    new = path.with_name(f".{stem_of(path)}.{secrets.token_hex(4)}{ending_of(path)}")
    new.touch(exist_ok=False)
    return new
