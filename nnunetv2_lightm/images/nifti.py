"""A NIfTI file's header, checked against itself and the file's size; its voxels as bytes, chunk by chunk."""

from __future__ import annotations

import gzip
import math
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import nibabel
import numpy as np
from nibabel.spatialimages import HeaderDataError

from .bounds import MAX_HEADER_BYTES, require_memory, require_plausible_size
from .faults import ImageFault
from .kinds import first_bytes_of, kind_of

ENDINGS = (".nii", ".nii.gz")
_CHUNK_BYTES = 4 << 20


@dataclass(frozen=True)
class Nifti:
    """A header that fits itself and its file.

    Attributes:
        path: The file.
        header: As nibabel parsed it, NIfTI 1 or 2.
        shape: Voxels, (x, y, z), without axes of length 1 after the third; a series has four.
        dtype: Dtype of the stored values, in the file's byte order.
        offset: Where the voxels begin, in bytes of the uncompressed file.
        scaling: Slope and intercept; None if the stored values are the values.
    """

    path: Path
    header: nibabel.Nifti1Header
    shape: tuple[int, ...]
    dtype: np.dtype
    offset: int
    scaling: tuple[float, float] | None

    @property
    def is_compressed(self) -> bool:
        return self.path.name.lower().endswith(".gz")

    @property
    def is_nifti_2(self) -> bool:
        """Which SimpleITK does not read."""
        return isinstance(self.header, nibabel.Nifti2Header)

    @property
    def num_voxels(self) -> int:
        return math.prod(self.shape)

    @property
    def num_bytes(self) -> int:
        """Size of the uncompressed file, as the header describes it."""
        return self.offset + self.num_voxels * self.dtype.itemsize

    def describe(self) -> str:
        return f"{'x'.join(map(str, self.shape))} voxels of {self.dtype.name}"


def read_header(path: Path) -> Nifti:
    """Read and check a header, and nothing beyond it.

    Raises:
        ImageFault: if the file is unreadable, empty, or not what its name says; if the header contradicts itself or
            NIfTI's rules; or if the file is too small for it.
    """
    _check_kind(path)
    try:
        with open_stream(path) as stream:
            header = _parse(path, stream)
            nifti = Nifti(path, header, _shape(path, header), _dtype(path, header), *_layout(path, header))
            if nifti.offset > MAX_HEADER_BYTES:
                limit = f"{MAX_HEADER_BYTES >> 20} MiB"
                raise ImageFault(path, f"has a damaged header: voxels begin at byte {nifti.offset}, beyond {limit}")
            _check_extensions(nifti, stream)
    except EOFError as error:
        raise ImageFault(path, "is truncated: its compressed stream ends early") from error
    except (OSError, zlib.error) as error:
        raise ImageFault(path, f"cannot be read: {reason_of(error)}") from error
    require_plausible_size(path, nifti.num_bytes, compressed=nifti.is_compressed, what=nifti.describe())
    # As stored, and as float32 for the network.
    require_memory(path, nifti.num_voxels * (nifti.dtype.itemsize + 4), what=nifti.describe())
    return nifti


def open_stream(path: Path) -> IO[bytes]:
    """The file's bytes, uncompressed."""
    return gzip.open(path, "rb") if path.name.lower().endswith(".gz") else path.open("rb")


def chunks(nifti: Nifti) -> Iterator[np.ndarray]:
    """All voxels as stored, in pieces; to the end of the file, which also checks a gzip's checksum.

    Raises:
        ImageFault: if the file is truncated or damaged, or continues after its voxels: then its header is not its own.
    """
    path, expected, found, behind = nifti.path, nifti.num_voxels * nifti.dtype.itemsize, 0, 0
    size = _CHUNK_BYTES // nifti.dtype.itemsize * nifti.dtype.itemsize
    tolerated = _tolerated_bytes(nifti)
    try:
        with open_stream(path) as stream:
            _skip(stream, nifti.offset)
            while found < expected:
                piece = stream.read(min(size, expected - found))
                if not piece:
                    break
                # A stream may give less than was asked for only at its end.
                found += len(piece)
                yield np.frombuffer(piece, nifti.dtype, count=len(piece) // nifti.dtype.itemsize)
            while found == expected and behind <= tolerated and (piece := stream.read(_CHUNK_BYTES)):
                behind += len(piece)
    except EOFError as error:
        raise ImageFault(path, "is truncated: its compressed stream ends early") from error
    except (OSError, zlib.error) as error:
        raise ImageFault(path, f"cannot be read: {reason_of(error)}") from error
    if found < expected:
        whole = found // nifti.dtype.itemsize
        raise ImageFault(path, f"is truncated: {whole} voxels of {nifti.num_voxels}")
    if behind > tolerated:
        raise ImageFault(
            path, f"holds more than the {nifti.describe()} of its header: one of the two is damaged. Export it again"
        )


def looks_whole(nifti: Nifti) -> bool:
    """Whether the file is as long as its header says, without decompressing it: a gzip ends with its length.

    Also False if that is unknown, as for a gzip of several members.
    """
    with nifti.path.open("rb") as stream:
        size = stream.seek(0, 2)
        if not nifti.is_compressed:
            length = size
        else:
            stream.seek(max(0, size - 4))
            length = int.from_bytes(stream.read(4), "little")
    needed = nifti.num_bytes % 2**32 if nifti.is_compressed else nifti.num_bytes
    return needed <= length <= needed + _tolerated_bytes(nifti)


def reason_of(error: Exception) -> str:
    """What the system or a library says, without the path, which comes first anyway."""
    return error.strerror if isinstance(error, OSError) and error.strerror else str(error)


def _check_kind(path: Path) -> None:
    try:
        first = first_bytes_of(path)
    except OSError as error:
        raise ImageFault(path, f"cannot be read: {reason_of(error)}") from error
    if not first:
        raise ImageFault(path, "is empty")
    kind, compressed = kind_of(first), path.name.lower().endswith(".gz")
    if compressed == first.startswith(b"\x1f\x8b") and (compressed or kind is None or "NIfTI" in kind):
        return
    if kind is None:
        raise ImageFault(path, "cannot be read: it is not compressed by gzip, as its name says, and no NIfTI file")
    stem = path.name.removesuffix(".gz").removesuffix(".GZ")
    fix = {
        "compressed by gzip": f": rename it to {path.name}.gz",
        "a NIfTI file, not compressed": f": rename it to {stem}",
    }
    raise ImageFault(path, f"cannot be read: it is {kind}{fix.get(kind, ', no NIfTI file')}")


def _parse(path: Path, stream: IO[bytes]) -> nibabel.Nifti1Header:
    size = stream.read(4)
    kinds = {348: nibabel.Nifti1Header, 540: nibabel.Nifti2Header}
    little, big = int.from_bytes(size, "little"), int.from_bytes(size, "big")
    kind = kinds.get(little) or kinds.get(big)
    if kind is None:
        raise ImageFault(path, "cannot be read: it has no NIfTI header")
    wanted = little if little in kinds else big
    block = size + stream.read(wanted - 4)
    if len(block) < wanted:
        raise ImageFault(path, "is truncated within its header")
    header = kind(block, endianness="<" if little in kinds else ">", check=False)
    magic = bytes(header["magic"])
    if magic.startswith((b"ni1", b"ni2")):
        raise ImageFault(path, "is the header of a pair (.hdr and .img); join the two in one .nii file")
    if not magic.startswith((b"n+1", b"n+2")):
        raise ImageFault(path, f"cannot be read: its header ends in {magic!r}, not in NIfTI's n+1")
    return header


def _shape(path: Path, header: nibabel.Nifti1Header) -> tuple[int, ...]:
    dim = [int(length) for length in header["dim"]]
    if not 1 <= dim[0] <= 7:
        raise ImageFault(path, f"has a damaged header: {dim[0]} dimensions")
    shape = dim[1 : dim[0] + 1]
    if min(shape) < 1:
        raise ImageFault(path, f"has no voxels: shape {tuple(shape)}")
    while len(shape) > 3 and shape[-1] == 1:
        shape.pop()
    return tuple(shape)


def _dtype(path: Path, header: nibabel.Nifti1Header) -> np.dtype:
    try:
        dtype = header.get_data_dtype()
    except (HeaderDataError, KeyError) as error:
        raise ImageFault(
            path, f"has a damaged header: datatype {int(header['datatype'])} is not one of NIfTI's"
        ) from error
    if dtype.itemsize * 8 != int(header["bitpix"]):
        raise ImageFault(
            path, f"has a contradicting header: {dtype.name} with {int(header['bitpix'])} bits a voxel. Export it again"
        )
    if dtype.kind not in "iuf" or dtype.itemsize > 8:
        raise ImageFault(path, f"is not a volume of one channel, but of {_name_of(dtype)}")
    return dtype


def _name_of(dtype: np.dtype) -> str:
    return f"colours ({', '.join(dtype.names)})" if dtype.names else dtype.name


def _layout(path: Path, header: nibabel.Nifti1Header) -> tuple[int, tuple[float, float] | None]:
    """Where the voxels begin, and how they are scaled."""
    offset = float(header["vox_offset"])
    least = int(header["sizeof_hdr"]) + 4
    if not (offset >= least and offset.is_integer()):
        raise ImageFault(
            path, f"has a damaged header: voxels begin at byte {offset:g}, within the header ({least} bytes)"
        )
    slope, intercept = float(header["scl_slope"]), float(header["scl_inter"])
    if not (math.isfinite(slope) and math.isfinite(intercept)) or (slope == 0 and intercept != 0):
        raise ImageFault(
            path,
            f"has values that are not defined: they are scaled by {slope:g} and shifted by {intercept:g} (scl_slope, "
            "scl_inter). If the stored values are right, set these to 1 and 0",
        )
    return int(offset), None if (slope, intercept) in ((0, 0), (1, 0)) else (slope, intercept)


def _check_extensions(nifti: Nifti, stream: IO[bytes]) -> None:
    """Check the extensions between header and voxels: each begins with its size, which readers follow."""
    order = "little" if nifti.header.endianness == "<" else "big"
    position = int(nifti.header["sizeof_hdr"]) + 4
    if stream.read(4)[:1] in (b"", b"\0"):
        return
    while position < nifti.offset:
        size = int.from_bytes(stream.read(8)[:4], order, signed=True)
        if size < 8 or position + size > nifti.offset:
            raise ImageFault(
                nifti.path,
                f"has a damaged header: extension of {size} bytes at byte {position}, voxels begin at {nifti.offset}",
            )
        _skip(stream, size - 8)
        position += size


def _skip(stream: IO[bytes], count: int) -> None:
    while count and (piece := stream.read(min(count, 1 << 16))):
        count -= len(piece)


def _tolerated_bytes(nifti: Nifti) -> int:
    """How many bytes may follow the voxels: fewer than a slice, which a header with too short an axis would hide."""
    slices = [nifti.num_voxels // length for length in nifti.shape if length > 1]
    return min(slices, default=1) * nifti.dtype.itemsize - 1
