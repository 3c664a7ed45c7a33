"""The Triton backend's kernels compiled for GPUs that are not there."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

FOLDER = Path(__file__).parent
needs_triton = pytest.mark.skipif(importlib.util.find_spec("triton") is None, reason="Triton is not installed")
# Kernels, in each way that they are called.
KERNELS = 16
# 8.6 and 8.9 run the code for 8.0.
ARCHITECTURES = [75, 80, 90, 120]
# As the network has them under autocast.
IN_THE_NETWORK = {architecture: f"{architecture},fp16,layer,4096,32,16,64,2" for architecture in ARCHITECTURES}
# An argument that is 1 becomes a constant of the kernel.
OTHER_INPUTS = {
    "all inputs": "80,fp32,all,70,3,16,64,0",
    "sizes of 1": "80,fp32,none,1,1,1,1,1",
    "float64": "80,fp64,all,64,1,16,64,0",
    "bfloat16, odd sizes": "80,bf16,all,70,3,5,33,3",
    "deepest layers": "90,fp32,layer,4096,32,16,512,16",
}
# Bytes of shared memory that a block may have: the least of all of these, compute capability 7.5.
SHARED_MEMORY = 64 * 1024
# At most so many instructions of the kernels that the time goes to, for a span of 4 tokens (backward), a token (scan)
# or a plane (convolution), and what is around their loops: those counted for compute capability 8.0, and some slack.
AT_MOST = {
    "scan_chunks": {"exponentials": 20, "shuffles": 4, "multiply-adds": 45},
    "gradients_through_chunks": {"exponentials": 20, "shuffles": 4, "multiply-adds": 35},
    "backward_chunks": {"exponentials": 90, "shuffles": 180, "multiply-adds": 700},
    "convolve": {"multiply-adds": 54, "loads": 80, "exponentials": 2, "shuffles": 0},
    "weight_gradient": {"multiply-adds": 54, "loads": 40, "exponentials": 0},
}


@pytest.fixture(scope="module")
def compiled(tmp_path_factory) -> dict[str, list[dict]]:
    """What compile_triton_kernels.py tells of each kernel, by what it was compiled for."""
    targets = [*IN_THE_NETWORK.values(), *OTHER_INPUTS.values()]
    done = subprocess.run(
        [sys.executable, FOLDER / "compile_triton_kernels.py", *targets],
        env=os.environ | {"TRITON_INTERPRET": "0", "TRITON_CACHE_DIR": str(tmp_path_factory.mktemp("cache"))},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    found = [json.loads(line) for line in done.stdout.splitlines()]
    return {target: [kernel for kernel in found if kernel["target"] == target] for target in targets}


@needs_triton
@pytest.mark.slow
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_kernels_compile_for_nvidia_gpus_that_are_not_here(architecture, compiled):
    """Down to machine code: nothing is spilled, shared memory suffices."""
    kernels = compiled[IN_THE_NETWORK[architecture]]
    assert len(kernels) == KERNELS
    for found in kernels:
        assert found["spilled"] == 0, found
        assert found["shared"] <= SHARED_MEMORY and found["registers"] <= 255, found
        name = found["kernel"]
        over = {key: found[key] for key, most in AT_MOST.get(name, {}).items() if found[key] > most}
        assert not over, f"{name}: {over}"


@needs_triton
@pytest.mark.slow
@pytest.mark.parametrize("inputs", OTHER_INPUTS)
def test_kernels_compile_with_other_inputs(inputs, compiled):
    kernels = compiled[OTHER_INPUTS[inputs]]
    assert len(kernels) == KERNELS
    if "layer" in OTHER_INPUTS[inputs]:
        assert not any(found["spilled"] for found in kernels), kernels
