"""PNG files of every type of colour and depth, most of which Pillow does not write."""

from __future__ import annotations

import struct
import zlib
from pathlib import Path

import numpy as np

SIZE = (7, 9)  # no byte holds a line of few bits
GREY, RGB, PALETTE, GREY_ALPHA, RGBA = 0, 2, 3, 4, 6
SAMPLES = {GREY: 1, RGB: 3, PALETTE: 1, GREY_ALPHA: 2, RGBA: 4}
DEPTHS = {GREY: (1, 2, 4, 8, 16), RGB: (8, 16), PALETTE: (1, 2, 4, 8), GREY_ALPHA: (8, 16), RGBA: (8, 16)}


def chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def png(colour: int, depth: int, *more: bytes, size: tuple[int, int] = SIZE, seed: int = 0) -> bytes:
    """A file of random pixels; ``more``: chunks before them, a palette's colours for example."""
    rng = np.random.default_rng(seed)
    height, width = size
    lines = rng.integers(0, 256, (height, (width * SAMPLES[colour] * depth + 7) // 8), np.uint8)
    header = chunk(b"IHDR", struct.pack(">2I5B", width, height, depth, colour, 0, 0, 0))
    pixels = chunk(b"IDAT", zlib.compress(b"".join(b"\0" + line.tobytes() for line in lines)))
    return b"\x89PNG\r\n\x1a\n" + header + b"".join(more) + pixels + chunk(b"IEND", b"")


def write_every_png(folder: Path) -> list[Path]:
    """All that nnU-Net reads, and grey with opacity, which it reads with 16 bits and refuses with 8."""
    rng = np.random.default_rng(1)
    made = {}
    for colour, depths in DEPTHS.items():
        for depth in depths:
            name = f"type{colour}_{depth:02d}"
            if colour != PALETTE:
                made[name] = png(colour, depth)
            else:
                colours = chunk(b"PLTE", rng.integers(0, 256, 3 * 2**depth, np.uint8).tobytes())
                made[name] = png(colour, depth, colours)
                for clear in (b"\0", b"\xff\0", b"\x0a\x14"[: 2**depth]):
                    made[f"{name}_clear{clear.hex()}"] = png(colour, depth, colours, chunk(b"tRNS", clear))
            if colour in (GREY, RGB):
                made[f"{name}_clear"] = png(colour, depth, chunk(b"tRNS", struct.pack(">H", 1) * SAMPLES[colour]))
                made[f"{name}_gamma"] = png(colour, depth, chunk(b"gAMA", struct.pack(">I", 10000)))
    folder.mkdir(exist_ok=True)
    for name, content in made.items():
        (folder / f"{name}.png").write_bytes(content)
    return [folder / f"{name}.png" for name in made]
