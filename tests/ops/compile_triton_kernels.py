"""Compiles the Triton kernels for an NVIDIA GPU that need not be there: dtype, optional inputs (0 or 1), sizes.

A process of its own for test_triton_gpu.py: where Triton interprets, it does not compile. Prints the kernels' names.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from nnunetv2_lightm.ops.backends import _triton_backward_kernels, _triton_kernels

OPTIONAL = ("D_ptr", "z_ptr", "bias_ptr", "grad_D_ptr", "grad_z_ptr", "grad_bias_ptr")
CONSTANTS = {"SOFTPLUS": True, "CHUNK": 64, "BLOCK_N": 16, "BLOCK_D": 32, "REVERSE": True, "GROUP": 64, "BLOCK": 128}
ARCHITECTURE = 80


def compile_kernel(kernel, dtype, optional, sizes):
    constants = {name: CONSTANTS[name] for name in kernel.arg_names if name in CONSTANTS}
    if not optional:
        constants |= dict.fromkeys(name for name in kernel.arg_names if name in OPTIONAL)
    constants |= {name: 1 for name, size in sizes.items() if size == 1 and name in kernel.arg_names}

    def kind(name):
        return "constexpr" if name in constants else f"*{dtype}" if name.endswith("_ptr") else "i32"

    source = ASTSource(kernel, {name: kind(name) for name in kernel.arg_names}, constants)
    target = GPUTarget("cuda", ARCHITECTURE, 32)
    return triton.compile(source, target=target, options={"num_warps": 1}).asm["ptx"]


def spilled(ptx):
    """What the assembler says of registers that do not fit."""
    assembler = Path(triton.__file__).parent / "backends" / "nvidia" / "bin" / "ptxas"
    command = [assembler, "--verbose", f"--gpu-name=sm_{ARCHITECTURE}", "--output-file=/dev/null", "-"]
    done = subprocess.run(command, input=ptx, capture_output=True, text=True, check=True)
    lines = [line for line in done.stderr.splitlines() if "spill" in line]
    assert lines
    return [line for line in lines if "0 bytes spill stores, 0 bytes spill loads" not in line]


if __name__ == "__main__":
    dtype, optional, *sizes = sys.argv[1:]
    sizes = dict(zip(("length", "chunks", "states", "channels"), map(int, sizes), strict=True))
    sizes |= {"tokens": sizes["length"], "groups": sizes["chunks"]}
    kernels = (_triton_kernels.scan_chunks, _triton_kernels.carry)
    kernels += (_triton_backward_kernels.gradients_through_chunks, _triton_backward_kernels.backward_chunks)
    for kernel in kernels:
        lost = spilled(compile_kernel(kernel, dtype, optional == "1", sizes))
        assert dtype != "fp32" or not lost, lost
        print(kernel.fn.__name__)
