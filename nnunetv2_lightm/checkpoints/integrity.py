"""Whether a checkpoint is complete and undamaged. Standard library only: the doctor asks where torch is broken."""

from __future__ import annotations

import struct
import zipfile
import zlib
from pathlib import Path

# The order in which `nnUNetv2_train --c` looks for them (nnunetv2/run/run_training.py, maybe_load_checkpoint).
CHECKPOINTS = ("checkpoint_final.pth", "checkpoint_latest.pth", "checkpoint_best.pth")
ZIP_BEGIN = b"PK\x03\x04"  # of what torch.save writes
# What zipfile raises for damage, most of them for damage in its table of contents.
DAMAGE = (zipfile.BadZipFile, zlib.error, struct.error, EOFError, RuntimeError, ValueError, OverflowError)


def is_whole_checkpoint(path: Path) -> bool:
    """Whether a file that torch.save wrote is complete and undamaged, by the checksum of each of its parts.

    torch.load notices a truncated file, but loads one that is damaged in the middle.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            return archive.testzip() is None
    except DAMAGE:
        return False


def is_torn_checkpoint(path: Path) -> bool:
    """Whether a file was cut off while torch.save wrote it, or damaged afterwards.

    A file in another format, such as that of PyTorch before 1.6 or one of another trainer's own, is not judged: whoever
    wrote it can read it.
    """
    with path.open("rb") as file:
        begin = file.read(len(ZIP_BEGIN))
    # This is true for an empty file too.
    begins_as_zip = begin == ZIP_BEGIN[: len(begin)]
    return (begins_as_zip or zipfile.is_zipfile(path)) and not is_whole_checkpoint(path)
