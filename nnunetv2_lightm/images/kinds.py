"""What a file really is, by its first bytes: for messages when its name says otherwise."""

from __future__ import annotations

from pathlib import Path

PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_SIGNATURES = (
    (PNG_SIGNATURE, "a PNG image"),
    (b"\xff\xd8\xff", "a JPEG image"),
    (b"GIF8", "a GIF image"),
    (b"II*\0", "a TIFF image"),
    (b"MM\0*", "a TIFF image"),
    (b"BM", "a BMP image"),
    (b"RIFF", "a RIFF file (WebP?)"),
    (b"\0\0\0\x0cjP", "a JPEG 2000 image"),
    (b"\x1f\x8b", "compressed by gzip"),
    (b"PK\x03\x04", "a ZIP archive"),
    (b"NRRD", "an NRRD file"),
    (b"version https://git-lfs", "a Git LFS pointer, not the file itself (git lfs pull)"),
    (b"<!DOCTYPE", "an HTML page: the download failed"),
    (b"<html", "an HTML page: the download failed"),
)


def kind_of(first_bytes: bytes) -> str | None:
    """What a file that begins with these bytes is, such as "a JPEG image"; None: unknown."""
    if first_bytes[128:132] == b"DICM":
        return "a DICOM file"
    if first_bytes[:4] in (b"\x5c\x01\0\0", b"\0\0\x01\x5c", b"\x1c\x02\0\0", b"\0\0\x02\x1c"):  # its header's size
        return "a NIfTI file, not compressed"
    return next((kind for signature, kind in _SIGNATURES if first_bytes.startswith(signature)), None)


def first_bytes_of(path: Path) -> bytes:
    """As many as `kind_of` looks at.

    Raises:
        OSError: if the file cannot be read.
    """
    with path.open("rb") as stream:
        return stream.read(132)
