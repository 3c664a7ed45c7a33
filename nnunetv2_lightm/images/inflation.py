"""A deflate stream, inflated to count its bytes: a few at a time, whatever a small file may blow up to."""

from __future__ import annotations

import zlib

ZLIB_OR_GZIP = 47  # wbits
_STEP_BYTES = 1 << 20


class Inflation:
    """The stream, in pieces.

    Attributes:
        num_bytes: Bytes inflated so far, and never held together.
    """

    def __init__(self, most: int | None, wbits: int = zlib.MAX_WBITS) -> None:
        """
        Args:
            most: The stream is not followed much further than this many bytes; None: to its end.
            wbits: As in `zlib.decompressobj`.
        """
        self.num_bytes = 0
        self._most = most
        self._inflate = zlib.decompressobj(wbits)

    @property
    def has_ended(self) -> bool:
        """Whether the stream is complete, with the right checksum."""
        return self._inflate.eof

    @property
    def is_too_long(self) -> bool:
        return self._most is not None and self.num_bytes > self._most

    @property
    def unused(self) -> int:
        """Bytes that followed the stream's end in its last piece."""
        return len(self._inflate.unused_data)

    def add(self, piece: bytes) -> None:
        """The next bytes of the stream; none once it has ended or is too long.

        Raises: zlib.error: if they are damaged.
        """
        while not (self.has_ended or self.is_too_long):
            inflated = len(self._inflate.decompress(piece, _STEP_BYTES))
            self.num_bytes += inflated
            piece = self._inflate.unconsumed_tail
            if not piece and inflated < _STEP_BYTES:
                return
