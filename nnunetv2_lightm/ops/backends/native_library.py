"""The compiled library (``ops/csrc``): how it is loaded, checked and called.

It is built when the package is installed, or comes with the wheel, and is loaded with ctypes when it is first needed.
It contains code for several instruction sets and uses the best one that the processor has. It runs on the threads of
PyTorch's own OpenMP runtime, as many as ``torch.get_num_threads()`` says at each call.
"""

from __future__ import annotations

import ctypes
import os
import sys
from functools import cache
from pathlib import Path

import torch

from ...installation import reinstall_command
from .native_interface import FILE_NAMES, FUNCTIONS, differences

# Names another file to load, for a library built elsewhere.
VARIABLE = "NNUNETV2_LIGHTM_LIBRARY"
LIBRARY = Path(__file__).resolve().parent.parent / FILE_NAMES.get(sys.platform, FILE_NAMES["linux"])
# Index into instruction_sets(); the first one is the fastest.
INSTRUCTION_SET = 0


def run(problem: ctypes.Structure, backward: bool, what: str) -> None:
    """Solve a problem on ``torch.get_num_threads()`` threads; the interpreter is free meanwhile.

    Raises: MemoryError: naming ``what``, if there is no memory for buffers.
    """
    function = getattr(library(), FUNCTIONS[type(problem)])
    if function(ctypes.byref(problem), INSTRUCTION_SET, torch.get_num_threads(), backward) != 0:
        raise MemoryError(f"{what}: no memory left for buffers")


def insert_height(sizes: tuple[int, ...] | list[int]) -> tuple[int, ...]:
    """Sizes as the library expects them: the rows of a 2D image are the planes of an image that is one row high."""
    return tuple(sizes) if len(sizes) == 3 else (sizes[0], 1, sizes[1])


def instruction_sets() -> list[str]:
    """Instruction sets that the library and this processor have, the fastest first."""
    names = []
    while (name := library().nnunetv2_lightm_instruction_set(len(names))) is not None:
        names.append(name.decode())
    return names


def library() -> ctypes.CDLL:
    """The compiled library. Raises RuntimeError with the reason where there is none."""
    loaded = library_or_reason()
    if isinstance(loaded, str):
        raise RuntimeError(f"the compiled library {loaded}")
    return loaded


def path() -> Path:
    """The library's file, which need not exist."""
    given = os.environ.get(VARIABLE)
    return Path(given).expanduser().absolute() if given else LIBRARY


@cache
def library_or_reason() -> ctypes.CDLL | str:
    """The compiled library, or why there is none."""
    file = path()
    if not file.is_file():
        if file != LIBRARY:
            return f"is not where {VARIABLE} says: there is no file {file}. Correct the variable or unset it"
        return (
            "was not compiled at installation, which needs GCC or Clang (C++17): install one, or take a wheel for this "
            f"platform, then {reinstall_command()}"
        )
    try:
        loaded = ctypes.CDLL(str(file))
    except OSError as error:
        return f"does not load ({error}): {_remedy(file)}"
    changed = differences(_text(loaded, "nnunetv2_lightm_interface"))
    if changed:
        return f"{file} was built from another version of this package ({', '.join(changed)}): {_remedy(file)}"
    for name in FUNCTIONS.values():
        getattr(loaded, name).argtypes = [ctypes.c_void_p, ctypes.c_int64, ctypes.c_int64, ctypes.c_int]
    loaded.nnunetv2_lightm_rvm_checkpoints.argtypes = [ctypes.c_void_p]
    loaded.nnunetv2_lightm_rvm_checkpoints.restype = ctypes.c_int64
    loaded.nnunetv2_lightm_chunk_length.restype = ctypes.c_int64
    loaded.nnunetv2_lightm_instruction_set.argtypes = [ctypes.c_int64]
    loaded.nnunetv2_lightm_instruction_set.restype = ctypes.c_char_p
    loaded.nnunetv2_lightm_use_openmp.argtypes = [ctypes.c_void_p]
    loaded.nnunetv2_lightm_use_openmp.restype = None
    loaded.nnunetv2_lightm_use_openmp(torch_openmp())
    return loaded


def description() -> dict[str, object]:
    """Path, compiler and instruction sets of the library; where there is none, the reason."""
    loaded = library_or_reason()
    if isinstance(loaded, str):
        return {"reason": loaded}
    compiler = _text(loaded, "nnunetv2_lightm_compiler")
    return {"path": str(path()), "compiler": compiler, "instruction sets": instruction_sets()}


def _text(loaded: ctypes.CDLL, function: str) -> str:
    """The text that a function of the library without arguments returns; "" if there is no such function."""
    try:
        call = getattr(loaded, function)
    except AttributeError:
        return ""
    call.restype = ctypes.c_char_p
    return call().decode()


def _remedy(file: Path) -> str:
    return reinstall_command() if file == LIBRARY else f"build it again, or unset {VARIABLE}"


def torch_openmp() -> int | None:
    """Address of GOMP_parallel in the OpenMP runtime that PyTorch is linked to; None if that runtime has none."""
    try:
        # Searches the library and those it depends on, not the whole process.
        function = ctypes.CDLL(torch._C.__file__).GOMP_parallel
    except (OSError, AttributeError):
        return None
    return ctypes.cast(function, ctypes.c_void_p).value
