"""Compiles the Triton kernels for NVIDIA GPUs that need not be there, down to machine code.

    python compile_triton_kernels.py 80,fp16|bf16|fp32|fp64,all|none|layer,LENGTH,CHUNKS,STATES,CHANNELS,RANK ...

80 for compute capability 8.0; then the dtype of the tokens, the optional inputs that there are, in the network's layers
all but the gate, and sizes; rank 0: delta is not projected. Prints one JSON object a kernel: which of the arguments it
is of, registers, spilled bytes, shared memory, and the PTX's instructions by kind. A process of its own: where Triton
interprets, it does not compile.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import triton
import triton.language as tl
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from nnunetv2_lightm.ops.backends.triton_kernels import (
    depthwise,
    depthwise_kernels,
    pooling,
    pooling_kernels,
    row_kernels,
    rows,
    scan,
    scan_backward,
    scan_launches,
    selection,
    selection_kernels,
)
from nnunetv2_lightm.ops.backends.triton_kernels.launch import power_of_2

# Pointers in float32 (float64 for float64) whatever the tokens are; those of y and its gradient too: a norm follows.
WIDE = {"A_ptr", "D_ptr", "bias_ptr", "starts_ptr", "ends_ptr", "dt_sums_ptr", "grad_ends_ptr", "states_ptr", "y_ptr"}
WIDE |= {"grad_y_ptr", "sums_ptr", "parts_ptr", "local_ptr", "firsts_ptr", "group_dt_ptr", "scale_ptr"}
ABSENT = {
    "all": (),
    "none": ("D_ptr", "z_ptr", "bias_ptr", "grad_z_ptr"),
    "layer": ("z_ptr", "grad_z_ptr"),
}
# Kernel, warps, and the inputs that it does not have, for each way that the layers call it.
KERNELS = (
    (scan.scan_chunks, scan_launches.WARPS, ()),
    (scan.carry, 4, ()),
    (scan_backward.gradients_through_chunks, scan_launches.WARPS, ()),
    (scan_backward.backward_chunks, scan_launches.WARPS, ()),
    (depthwise_kernels.convolve, depthwise.WARPS, ()),
    (depthwise_kernels.convolve, depthwise.WARPS, ("out_ptr",)),
    (depthwise_kernels.weight_gradient, depthwise.WARPS, ()),
    (pooling_kernels.max_pool, pooling.WARPS, ()),
    (pooling_kernels.max_pool_backward, pooling.WARPS, ()),
    (row_kernels.norm, rows.WARPS, ("add_ptr", "scale_ptr", "gate_ptr")),
    (row_kernels.norm, rows.WARPS, ("add_ptr", "scale_ptr")),
    (row_kernels.norm, rows.WARPS, ("gate_ptr",)),
    (row_kernels.norm_backward, rows.WARPS, ("add_ptr", "scale_ptr", "grad_add_ptr")),
    (row_kernels.norm_backward, rows.WARPS, ()),
    (row_kernels.gated_norm_backward, rows.WARPS, ()),
    (selection_kernels.through_selection, selection.WARPS, ()),
)
INSTRUCTIONS = {
    "exponentials": r"ex2\.approx",
    "shuffles": r"shfl\.sync",
    "multiply-adds": r"fma\.rn",
    "loads": r"ld\.global",
    "stores": r"st\.global",
    "barriers": r"bar\.sync",
}


def compile_kernel(kernel, warps, absent, architecture: int, dtype: str, optional: str, sizes: dict[str, int]):
    wide, rank = "fp64" if dtype == "fp64" else "fp32", sizes["rank"]
    block_n, block_c = power_of_2(sizes["states"]), min(64, power_of_2(sizes["channels"]))
    backward = kernel is scan_backward.backward_chunks
    tile = scan_launches.backward_tile(rank) if backward else scan_launches.TILE_ELEMENTS
    constants = {
        **{
            "SOFTPLUS": True,
            "CHUNK": scan_launches.CHUNK_LENGTH,
            "SPAN": scan_launches.SPAN,
            "KEPT": scan_launches.KEPT,
            "BLOCK_N": block_n,
            "RANK": rank,
        },
        **{"BLOCK_D": max(1, min(power_of_2(sizes["channels"]), tile // block_n))},
        **{"REVERSE": True, "GROUP": scan_launches.GROUP_CHUNKS, "BLOCK": scan_launches.CARRY_ELEMENTS},
        **{
            "TAPS_Y": 3,
            "FLIP": False,
            "RUN": depthwise.RUN,
            "ROWS": depthwise.SUMMED_ROWS,
            "TYPE": {"fp32": tl.float32, "fp64": tl.float64}[wide],
        },
        **{"BLOCK_C": block_c, "BLOCK_X": depthwise.TILE_ELEMENTS // block_c},
    }
    if kernel.fn.__module__ == row_kernels.__name__:
        block_c = power_of_2(sizes["channels"])
        constants |= {"BLOCK_C": block_c, "BLOCK_R": max(1, rows.TILE_ELEMENTS // block_c)}
        constants |= {"STEPS": rows.STEPS, "EPSILON": rows.EPSILON}
    if kernel.fn.__module__ == selection_kernels.__name__:
        constants |= {"BLOCK_R": selection.BLOCK_ROWS, "BLOCK_K": selection.BLOCK_COLUMNS}
        constants |= {"BLOCK_C": max(selection.MIN_BLOCK, block_c)}
    if kernel.fn.__module__ == pooling_kernels.__name__:
        constants |= {"WZ": 2, "WY": 2, "WX": 2, "BLOCK_R": pooling.TILE_ELEMENTS // block_c}
    constants = {name: value for name, value in constants.items() if name in kernel.arg_names}
    # A norm always has its bias.
    missing = absent if kernel.fn.__module__ == row_kernels.__name__ else (*ABSENT[optional], *absent)
    if kernel.fn.__module__ in (scan.__name__, scan_backward.__name__):
        missing = (*missing, "grad_delta_ptr" if rank else "weight_ptr")
    constants |= dict.fromkeys(name for name in kernel.arg_names if name in missing)
    # An argument that is 1 becomes a constant of the kernel; sizes that 16 divides are known to be such.
    sizes = {param.name: sizes[param.name] for param in kernel.params if _is_specialised(param, sizes)}
    constants |= {name: 1 for name, size in sizes.items() if size == 1}

    def kind(name: str) -> str:
        if name in constants:
            return "constexpr"
        if name == "place_ptr":
            return "*u8"
        return f"*{wide if name in WIDE else dtype}" if name.endswith("_ptr") else "i32"

    arguments = enumerate(kernel.arg_names)
    divisible = {
        (i,): [["tt.divisibility", 16]] for i, name in arguments if name.endswith("_ptr") or not sizes.get(name, 1) % 16
    }
    signature = {name: kind(name) for name in kernel.arg_names}
    divisible = {
        place: value for place, value in divisible.items() if signature[kernel.arg_names[place[0]]] != "constexpr"
    }
    source = ASTSource(kernel, signature, constants, divisible)
    options = {"num_warps": warps}
    return triton.compile(source, target=GPUTarget("cuda", architecture, 32), options=options)


def _is_specialised(param, sizes: dict[str, int]) -> bool:
    return param.name in sizes and not param.do_not_specialize


def assembled(ptx: str, architecture: int) -> tuple[int, int]:
    """Registers of a thread, and bytes that did not fit into them, as the assembler says."""
    assembler = Path(triton.__file__).parent / "backends/nvidia/bin"
    assembler /= "ptxas-blackwell" if architecture >= 100 and (assembler / "ptxas-blackwell").is_file() else "ptxas"
    name = f"sm_{architecture}{'a' if architecture >= 90 else ''}"
    command = [assembler, "--verbose", f"--gpu-name={name}", "--output-file=/dev/null", "-"]
    done = subprocess.run(command, input=ptx, capture_output=True, text=True, check=True)
    spilled = re.findall(r"(\d+) bytes spill (?:stores|loads)", done.stderr)
    assert spilled, done.stderr
    return int(re.search(r"Used (\d+) registers", done.stderr)[1]), sum(map(int, spilled))


def report(target: str) -> None:
    architecture, dtype, optional, *sizes = target.split(",")
    sizes = dict(zip(("length", "chunks", "states", "channels", "rank"), map(int, sizes), strict=True))
    columns = -(-(2 * sizes["states"] + sizes["rank"]) // selection.ALIGNMENT) * selection.ALIGNMENT
    sizes |= {"tokens": sizes["length"], "groups": sizes["chunks"]}
    sizes |= {"row_stride": columns if sizes["rank"] else sizes["states"]}
    for kernel, warps, absent in KERNELS:
        compiled = compile_kernel(kernel, warps, absent, int(architecture), dtype, optional, sizes)
        registers, spilled = assembled(compiled.asm["ptx"], int(architecture))
        found = {"target": target, "kernel": kernel.fn.__name__, "registers": registers, "spilled": spilled}
        found["shared"] = compiled.metadata.shared
        found |= {name: len(re.findall(pattern, compiled.asm["ptx"])) for name, pattern in INSTRUCTIONS.items()}
        print(json.dumps(found), flush=True)


if __name__ == "__main__":
    for target in sys.argv[1:]:
        report(target)
