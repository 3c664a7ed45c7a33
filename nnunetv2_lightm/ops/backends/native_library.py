"""The compiled library (``ops/csrc``) as Python sees it: its structures, and how it is found, checked and called.

It is built when the package is installed and loaded with ctypes when it is first needed. It contains code for several
instruction sets and takes the best one that the processor has. Its threads are those of PyTorch's own OpenMP runtime,
as many as ``torch.get_num_threads()`` says at each call.
"""

from __future__ import annotations

import ctypes
from functools import cache
from pathlib import Path

import torch

LIBRARY = Path(__file__).resolve().parent.parent / "_native.so"
# Index into instruction_sets(); the first one is the fastest.
INSTRUCTION_SET = 0
# The RVM layer and the depthwise convolutions want multiples of this (csrc/rvm.hpp).
CHANNEL_MULTIPLE = 16
# The order of `Parameter` in csrc/rvm.hpp.
RVM_PARAMETERS = (
    *("norm_in_weight", "norm_in_bias", "in_proj", "gate_proj", "conv_weight", "conv_bias", "x_proj"),
    *("dt_weight", "dt_bias", "A", "D", "norm_weight", "norm_bias", "out_proj", "scale"),
    *("norm_out_weight", "norm_out_bias", "projection_weight", "projection_bias"),
)
REINSTALL = "pip install --force-reinstall --no-deps --no-cache-dir nnunetv2-lightm"


def _fields(ctype: type, names: str) -> list[tuple[str, type]]:
    return [(name, ctype) for name in names.split()]


class Rows(ctypes.Structure):
    """``Rows`` of csrc/scan.hpp."""

    _fields_ = [("data", ctypes.c_void_p), ("batch_stride", ctypes.c_int64), ("token_stride", ctypes.c_int64)]


class ScanProblem(ctypes.Structure):
    """``ScanProblem`` of csrc/scan.hpp."""

    _fields_ = [
        *_fields(ctypes.c_int64, "batch length channels states delta_rank"),
        *_fields(ctypes.c_int32, "is_double delta_softplus resume accumulate"),
        *_fields(Rows, "u delta B C z grad_y"),
        *_fields(ctypes.c_void_p, "A D delta_bias delta_weight grad_last first_state checkpoints y last_state"),
        *_fields(ctypes.c_void_p, "grad_u grad_delta grad_A grad_B grad_C grad_D grad_z grad_delta_bias"),
        *_fields(ctypes.c_void_p, "grad_first_state"),
    ]


class RvmProblem(ctypes.Structure):
    """``RvmProblem`` of csrc/rvm.hpp."""

    _fields_ = [
        *_fields(ctypes.c_int64, "batch depth height width channels inner out_channels states rank kernel_height"),
        *_fields(ctypes.c_int64, "pool_depth pool_height pool_width is_double"),
        *_fields(ctypes.c_void_p * len(RVM_PARAMETERS), "parameter"),
        *_fields(ctypes.c_void_p, "x out checkpoints argmax grad_out grad_x"),
        *_fields(ctypes.c_void_p * len(RVM_PARAMETERS), "gradient"),
    ]


class DepthwiseProblem(ctypes.Structure):
    """``DepthwiseProblem`` of csrc/depthwise_problem.hpp."""

    _fields_ = [
        *_fields(ctypes.c_int64, "surroundings batch depth height width channels kernel_height is_double"),
        *_fields(ctypes.c_int64, "point_channels map_depth map_height map_width"),
        *_fields(ctypes.c_void_p, "conv_weight conv_bias point_weight point_bias in_ grad_out out grad_in"),
        *_fields(ctypes.c_void_p, "grad_conv_weight grad_conv_bias grad_point_weight grad_point_bias"),
    ]


# The function that takes each structure.
FUNCTIONS = {
    ScanProblem: "nnunetv2_lightm_scan",
    RvmProblem: "nnunetv2_lightm_rvm",
    DepthwiseProblem: "nnunetv2_lightm_depthwise",
}


def run(problem: ctypes.Structure, backward: bool, what: str) -> None:
    """Solve a problem on ``torch.get_num_threads()`` threads; the interpreter is free meanwhile.

    Raises: MemoryError: naming ``what``, if there is no memory for buffers.
    """
    function = getattr(library(), FUNCTIONS[type(problem)])
    if function(ctypes.byref(problem), INSTRUCTION_SET, torch.get_num_threads(), backward) != 0:
        raise MemoryError(f"{what}: no memory left for buffers")


def insert_height(sizes: tuple[int, ...] | list[int]) -> tuple[int, ...]:
    """Sizes as the library wants them: the rows of a 2D image are the planes of an image that is one row high."""
    return tuple(sizes) if len(sizes) == 3 else (sizes[0], 1, sizes[1])


def instruction_sets() -> list[str]:
    """Instruction sets that the library and this processor have, the fastest first."""
    names = []
    while (name := library().nnunetv2_lightm_instruction_set(len(names))) is not None:
        names.append(name.decode())
    return names


def library() -> ctypes.CDLL:
    """The compiled library. Raises RuntimeError with the reason where there is none."""
    found = library_or_reason()
    if isinstance(found, str):
        raise RuntimeError(f"the compiled library {found}")
    return found


@cache
def library_or_reason() -> ctypes.CDLL | str:
    """The compiled library, or why there is none."""
    if not LIBRARY.is_file():
        return f"was not compiled at installation, which needs GCC or Clang (C++17): install one, then {REINSTALL}"
    try:
        found = ctypes.CDLL(str(LIBRARY))
    except OSError as error:
        return f"does not load ({error}): {REINSTALL}"
    try:
        sizes_agree = all(
            getattr(found, f"{name}_problem_bytes")() == ctypes.sizeof(problem) for problem, name in FUNCTIONS.items()
        )
    except AttributeError:
        sizes_agree = False
    if not sizes_agree:
        return f"is of another version of this package: {REINSTALL}"
    for name in FUNCTIONS.values():
        getattr(found, name).argtypes = [ctypes.c_void_p, ctypes.c_int64, ctypes.c_int64, ctypes.c_int]
    found.nnunetv2_lightm_rvm_checkpoints.argtypes = [ctypes.c_void_p]
    found.nnunetv2_lightm_rvm_checkpoints.restype = ctypes.c_int64
    found.nnunetv2_lightm_chunk_length.restype = ctypes.c_int64
    found.nnunetv2_lightm_instruction_set.argtypes = [ctypes.c_int64]
    found.nnunetv2_lightm_instruction_set.restype = ctypes.c_char_p
    found.nnunetv2_lightm_use_openmp.argtypes = [ctypes.c_void_p]
    found.nnunetv2_lightm_use_openmp.restype = None
    found.nnunetv2_lightm_use_openmp(torch_openmp())
    return found


def torch_openmp() -> int | None:
    """Address of GOMP_parallel in the OpenMP runtime that PyTorch is linked to; None if it has none of that kind."""
    try:
        # Searches the library and those it depends on, not the whole process.
        function = ctypes.CDLL(torch._C.__file__).GOMP_parallel
    except (OSError, AttributeError):
        return None
    return ctypes.cast(function, ctypes.c_void_p).value
