"""NIfTI and PNG files with seeded damage: bits flipped, cut, overwritten, headers edited."""

from __future__ import annotations

import gzip
import struct
import zlib
from collections.abc import Callable

import numpy as np

Mutation = Callable[[np.random.Generator, bytes], bytes]

# Field of a NIfTI-1 header, its offset, its form, and values that are likely to hurt.
NIFTI_FIELDS = (
    ("sizeof_hdr", 0, "<i", (0, 348, 540, -1)),
    ("dim0", 40, "<h", (0, 1, 2, 3, 4, 5, 7, 8, -3)),
    ("dim1", 42, "<h", (0, -1, 1, 2, 5, 11, 12, 13, 32767)),
    ("dim2", 44, "<h", (0, -1, 1, 2, 9, 10, 11, 32767)),
    ("dim3", 46, "<h", (0, -1, 1, 2, 7, 8, 9, 32767)),
    ("dim4", 48, "<h", (0, 1, 2, 3)),
    ("datatype", 70, "<h", (0, 1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 768, 1536, 77)),
    ("bitpix", 72, "<h", (0, 1, 8, 16, 32, 64)),
    ("pixdim0", 76, "<f", (0, 1, -1, float("nan"))),
    ("pixdim1", 80, "<f", (0, 1, -1, 0.5, float("nan"), float("inf"), 1e30)),
    ("pixdim3", 88, "<f", (0, 1, -1, 5, float("nan"), float("inf"), 1e-30)),
    ("vox_offset", 108, "<f", (0, 348, 351, 353, 368, 400, 629145600, 1e30, float("nan"))),
    ("scl_slope", 112, "<f", (0, 2, -1, 0.5, 1e38, float("nan"), float("inf"))),
    ("scl_inter", 116, "<f", (0, 1, -1024, float("nan"), float("inf"))),
    ("xyzt_units", 123, "<B", (0, 1, 2, 3, 10, 255)),
    ("qform_code", 252, "<h", (0, 1, 2, -1)),
    ("sform_code", 254, "<h", (0, 1, 2, 4, -1)),
    ("quatern_b", 256, "<f", (0, 1, 0.7071, 2, float("nan"))),
    ("qoffset_x", 268, "<f", (0, 1, 500, float("nan"))),
    ("srow_x0", 280, "<f", (0, 1, -0.7, 0.7, float("nan"))),
    ("srow_x3", 292, "<f", (0, 77, float("inf"))),
    ("srow_y0", 296, "<f", (0.001, 0.3)),
    ("srow_z2", 320, "<f", (0, 1, -1.6, 3, float("nan"))),
    ("magic", 344, "<4s", (b"n+1\0", b"ni1\0", b"\0\0\0\0", b"n+2\0")),
    ("extension", 348, "<4s", (b"\0\0\0\0", b"\1\0\0\0")),
)


def flip_bits(rng: np.random.Generator, content: bytes) -> bytes:
    mutated = bytearray(content)
    for _ in range(rng.integers(1, 9)):
        mutated[rng.integers(len(mutated))] ^= 1 << int(rng.integers(8))
    return bytes(mutated)


def cut(rng: np.random.Generator, content: bytes) -> bytes:
    return content[: rng.integers(len(content))]


def cut_the_end(rng: np.random.Generator, content: bytes) -> bytes:
    return content[: len(content) - int(rng.integers(1, 40))]


def overwrite(rng: np.random.Generator, content: bytes) -> bytes:
    start, length = int(rng.integers(len(content))), int(rng.integers(1, 64))
    return (content[:start] + bytes([int(rng.choice([0, 255]))]) * length + content[start + length :])[: len(content)]


def insert(rng: np.random.Generator, content: bytes) -> bytes:
    start = int(rng.integers(len(content)))
    return content[:start] + rng.bytes(int(rng.integers(1, 64))) + content[start:]


def append(rng: np.random.Generator, content: bytes) -> bytes:
    return content + rng.bytes(int(rng.integers(1, 5000)))


def leave_out(rng: np.random.Generator, content: bytes) -> bytes:
    start = int(rng.integers(len(content)))
    return content[:start] + content[start + int(rng.integers(1, 64)) :]


def edit_nifti_header(rng: np.random.Generator, content: bytes) -> bytes:
    """One to three fields; in a compressed file the stream around them stays valid."""
    compressed = content.startswith(b"\x1f\x8b")
    plain = bytearray(gzip.decompress(content) if compressed else content)
    for _ in range(rng.integers(1, 4)):
        _, offset, form, values = NIFTI_FIELDS[rng.integers(len(NIFTI_FIELDS))]
        struct.pack_into(form, plain, offset, values[rng.integers(len(values))])
    return gzip.compress(bytes(plain)) if compressed else bytes(plain)


def flip_bits_of_nifti_header(rng: np.random.Generator, content: bytes) -> bytes:
    compressed = content.startswith(b"\x1f\x8b")
    plain = bytearray(gzip.decompress(content) if compressed else content)
    plain[:352] = flip_bits(rng, bytes(plain[:352]))
    return gzip.compress(bytes(plain)) if compressed else bytes(plain)


def spoil_voxels(rng: np.random.Generator, content: bytes) -> bytes:
    """NaN, infinity and random bits among the voxels, in a stream that is valid."""
    compressed = content.startswith(b"\x1f\x8b")
    plain = bytearray(gzip.decompress(content) if compressed else content)
    for _ in range(rng.integers(1, 5)):
        place = 352 + 4 * int(rng.integers((len(plain) - 352) // 4))
        bad = (struct.pack("<f", float("nan")), struct.pack("<f", float("-inf")), rng.bytes(4), b"\1\0\0\0")
        plain[place : place + 4] = bad[rng.integers(len(bad))]
    return gzip.compress(bytes(plain)) if compressed else bytes(plain)


def edit_png_header(rng: np.random.Generator, content: bytes) -> bytes:
    """Width, height, bits, colour type and interlacing, with the right checksum."""
    width, height, *rest = struct.unpack(">IIBBBBB", content[16:29])
    choices = (
        (0, (0, 1, width - 1, width + 1, width // 2, 2 * width, height, 12000, 2**31)),
        (1, (0, 1, height - 1, height + 1, height // 2, 2 * height, 12000, 2**31)),
        (2, (1, 2, 4, 8, 16, 3)),
        (3, (0, 2, 3, 4, 6, 5)),
        (6, (0, 1)),
    )
    fields = [width, height, *rest]
    for _ in range(rng.integers(1, 3)):
        place, values = choices[rng.integers(len(choices))]
        fields[place] = int(values[rng.integers(len(values))])
    header = b"IHDR" + struct.pack(">IIBBBBB", *fields)
    return content[:12] + header + struct.pack(">I", zlib.crc32(header)) + content[33:]


def edit_png_pixels(rng: np.random.Generator, content: bytes) -> bytes:
    """Flip bits in the pixels' stream, with the right checksum of its chunk."""
    start = content.index(b"IDAT")
    (length,) = struct.unpack(">I", content[start - 4 : start])
    body = b"IDAT" + flip_bits(rng, content[start + 4 : start + 4 + length])
    return content[:start] + body + struct.pack(">I", zlib.crc32(body)) + content[start + 8 + length :]


def add_png_chunk(rng: np.random.Generator, content: bytes) -> bytes:
    """Text, EXIF orientation, a colour key, or a second header, before the pixels."""
    chunks = (
        b"tEXtComment\0" + rng.bytes(20),
        b"eXIfMM\0*\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0" + bytes([int(rng.integers(1, 9))]) + b"\0\0\0\0\0\0",
        b"tRNS\0\0",
        b"zTXtComment\0\0" + zlib.compress(bytes(100_000)),
        b"IHDR" + content[16:29],
        b"acTL\0\0\0\1\0\0\0\0",
    )
    body = chunks[rng.integers(len(chunks))]
    return content[:33] + struct.pack(">I", len(body) - 4) + body + struct.pack(">I", zlib.crc32(body)) + content[33:]


ANY: tuple[Mutation, ...] = (flip_bits, cut, cut_the_end, overwrite, insert, append, leave_out)
NIFTI: tuple[Mutation, ...] = (
    *ANY,
    *(edit_nifti_header,) * 6,
    *(flip_bits_of_nifti_header,) * 3,
    *(spoil_voxels,) * 2,
)
PNG: tuple[Mutation, ...] = (*ANY, *(edit_png_header,) * 4, *(edit_png_pixels,) * 2, *(add_png_chunk,) * 3)
