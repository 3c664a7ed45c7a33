"""The C interface of the compiled library as Python declares it, and a fingerprint that shows whether both agree.

setup.py reads this file, without the rest of the package, for two things: the compiler checks every field below against
the C++ structures (:func:`layout_assertions`), so that a library with another layout cannot be built; and the library
keeps the :func:`fingerprint` that it was built with, so that one built from an older version of this file is refused.
"""

from __future__ import annotations

import ctypes
import hashlib

# The library's file, in the folder above; elsewhere it has the first name.
FILE_NAMES = {"linux": "_native.so", "darwin": "_native.dylib", "win32": "_native.dll"}
# The RVM layer and the depthwise convolutions need multiples of this many channels (csrc/rvm.hpp).
CHANNEL_MULTIPLE = 16
# `Parameter` in csrc/rvm.hpp, in its order.
RVM_PARAMETERS = (
    "norm_in_weight",
    "norm_in_bias",
    "in_proj",
    "gate_proj",
    "conv_weight",
    "conv_bias",
    "x_proj",
    "dt_weight",
    "dt_bias",
    "A",
    "D",
    "norm_weight",
    "norm_bias",
    "out_proj",
    "scale",
    "norm_out_weight",
    "norm_out_bias",
    "projection_weight",
    "projection_bias",
)
# `Surroundings` in csrc/depthwise_problem.hpp, in its order.
SURROUNDINGS = ("PLAIN", "STEM", "HEAD")
# Parameters whose enumerator is not their name in capitals.
_ENUMERATORS = {"A": "A_MATRIX", "D": "SKIP"}


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


# The function that takes each structure: (structure, instruction set, threads, backward) -> 0, or 1 if memory runs out.
FUNCTIONS = {
    ScanProblem: "nnunetv2_lightm_scan",
    RvmProblem: "nnunetv2_lightm_rvm",
    DepthwiseProblem: "nnunetv2_lightm_depthwise",
}
STRUCTURES = (Rows, *FUNCTIONS)


def fingerprint() -> str:
    """A line that changes with the interface: ``name:hash`` of each structure and of the enumerations."""
    described = {structure.__name__: _description(structure) for structure in STRUCTURES}
    described["enumerations"] = repr((RVM_PARAMETERS, SURROUNDINGS, CHANNEL_MULTIPLE, sorted(FUNCTIONS.values())))
    return " ".join(f"{name}:{hashlib.sha256(text.encode()).hexdigest()[:12]}" for name, text in described.items())


def differences(built_with: str) -> list[str]:
    """What in the interface differs from that of a library with the fingerprint ``built_with``."""
    theirs = set(built_with.split())
    return [part.split(":")[0] for part in fingerprint().split() if part not in theirs]


def layout_assertions() -> str:
    """C++ that compiles only if the headers declare this very interface; defines ``INTERFACE_FINGERPRINT``."""
    lines = ["// Generated from backends/native_interface.py by native_build.py.", "#pragma once"]
    lines += ["#include <cstddef>", "#include <type_traits>", '#include "scan.hpp"']
    lines.append(f'#define INTERFACE_FINGERPRINT "{fingerprint()}"')
    # Pointers as wide as in Python: elsewhere (wasm32) another caller declares the layout.
    lines.append(f"#if UINTPTR_MAX == {2 ** (8 * ctypes.sizeof(ctypes.c_void_p)) - 1}u")
    for structure in STRUCTURES:
        name = structure.__name__
        fix = f"{name} differs between csrc and backends/native_interface.py"
        lines.append(f'static_assert(sizeof({name}) == {ctypes.sizeof(structure)}, "{fix}");')
        for field, ctype in structure._fields_:
            member, offset = field.rstrip("_"), getattr(structure, field).offset
            lines.append(f'static_assert(offsetof({name}, {member}) == {offset}, "{fix}: {field}");')
            lines.append(f'static_assert(sizeof({name}::{member}) == {ctypes.sizeof(ctype)}, "{fix}: {field}");')
            if issubclass(ctype, ctypes._SimpleCData):
                kind = "pointer" if _is_pointer(ctype) else "integral"
                lines.append(f'static_assert(std::is_{kind}_v<decltype({name}::{member})>, "{fix}: {field}");')
    lines.append("#endif")
    for index, parameter in enumerate(RVM_PARAMETERS):
        enumerator = _ENUMERATORS.get(parameter, parameter.upper())
        lines.append(f'static_assert({enumerator} == {index}, "Parameter differs from RVM_PARAMETERS");')
    lines.append(f'static_assert(PARAMETERS == {len(RVM_PARAMETERS)}, "Parameter differs from RVM_PARAMETERS");')
    for index, surroundings in enumerate(SURROUNDINGS):
        lines.append(f'static_assert({surroundings} == {index}, "Surroundings differs from SURROUNDINGS");')
    lines.append(f'static_assert(CHANNEL_MULTIPLE == {CHANNEL_MULTIPLE}, "CHANNEL_MULTIPLE differs");')
    return "\n".join(lines) + "\n"


def _description(structure: type[ctypes.Structure]) -> str:
    """Each field with its kind, offset and size; the same on every platform, so without the names of C's types."""
    fields = ((name, _is_pointer(ctype), getattr(structure, name)) for name, ctype in structure._fields_)
    return ", ".join(f"{name} {'*' * pointer}{field.offset}+{field.size}" for name, pointer, field in fields)


def _is_pointer(ctype: type) -> bool:
    return getattr(ctype, "_type_", ctype) is ctypes.c_void_p or ctype is ctypes.c_void_p
