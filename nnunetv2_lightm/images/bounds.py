"""How much memory a file may ask for, judged by its size and header before anything is allocated."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path

from ..limits import free_memory_bytes
from .faults import ImageFault

# No byte of a deflate stream makes more than this many (zlib's technical notes: 1032:1).
DEFLATE_RATIO = 1032
MAX_HEADER_BYTES = 16 << 20
# Files that are checked at a time.
READERS = 8
_one_large_file = threading.Lock()


def require_plausible_size(path: Path, needed_bytes: int, *, compressed: bool, what: str) -> None:
    """Refuse a file that is too small for what its header describes.

    Args:
        path: The file.
        needed_bytes: What the header describes, uncompressed.
        compressed: Whether the file is a deflate stream.
        what: What is described, for the message.
    Raises:
        ImageFault: if no file of this size can hold it.
    """
    size = path.stat().st_size
    if size * (DEFLATE_RATIO if compressed else 1) < needed_bytes:
        raise ImageFault(path, f"is truncated: its {size} bytes cannot hold {what}")


def require_memory(path: Path, needed_bytes: int, *, what: str) -> None:
    """Refuse what does not fit into the free memory.

    Raises:
        ImageFault: naming both sizes.
    """
    free = free_memory_bytes()
    if free is not None and needed_bytes > free:
        raise ImageFault(
            path, f"is too large to read: {what} takes {needed_bytes / 2**30:.1f} GiB, {free / 2**30:.1f} GiB are free"
        )


@contextmanager
def memory_for(path: Path, needed_bytes: int, *, what: str) -> Iterator[None]:
    """Like `require_memory`, around the reading: of files that do not fit into memory together, one at a time.

    Raises:
        ImageFault: naming both sizes.
    """
    free = free_memory_bytes()
    fit_together = free is not None and READERS * needed_bytes <= free
    with nullcontext() if fit_together else _one_large_file:
        require_memory(path, needed_bytes, what=what)
        yield
