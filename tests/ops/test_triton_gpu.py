"""The Triton backend without a GPU: its kernels interpreted on the CPU, and compiled for GPUs that are not there.

Triton decides whether it interprets when it is imported, which PyTorch may do early; hence processes of their own.
"""

from __future__ import annotations

import builtins
import importlib
import importlib.util
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from nnunetv2_lightm.ops.backends import triton_gpu
from nnunetv2_lightm.ops.backends.triton_kernels import support

FOLDER = Path(__file__).parent
needs_triton = pytest.mark.skipif(importlib.util.find_spec("triton") is None, reason="Triton is not installed")
# What the interpreter is given of the tests of every backend. Of the vectors, which are long, and unwritten memory: the
# dtype that networks compute in, without the vector of 1000 tokens. Of options and large steps: with the softplus, as
# networks have it. Of the operator: no finite differences of every input.
SCAN = "not number_of_states and not scan_5 and not ((vectors or unwritten) and float64)"
SCAN += " and not ((every_choice or large_steps) and plain)"
OPERATOR = "several_chunks or (opcheck and float32 and delta_bias) or compiled or announced or not_kept"


def run_interpreted(*arguments: str) -> int:
    """Run pytest with Triton's interpreter; all has to pass. Returns the number of tests that ran."""
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *arguments]
    environment = os.environ | {"TRITON_INTERPRET": "1"}
    environment.pop("NNUNETV2_LIGHTM_BACKEND", None)
    done = subprocess.run(command, env=environment, cwd=FOLDER, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return int(re.search(r"(\d+) passed", done.stdout)[1])


@needs_triton
@pytest.mark.slow
def test_interpreted_kernels_agree_with_the_reference():
    assert run_interpreted("interpreted_triton_gpu.py") >= 33


@needs_triton
@pytest.mark.slow
def test_interpreted_layers_agree_with_the_compiled_ones():
    assert run_interpreted("interpreted_triton_layers.py") >= 16


@needs_triton
@pytest.mark.slow
def test_interpreted_kernels_pass_the_tests_of_every_backend():
    assert run_interpreted("test_selective_scan.py", "-k", f"triton_gpu and ({SCAN})") >= 55


@needs_triton
@pytest.mark.slow
def test_interpreted_kernels_pass_the_tests_of_the_operator():
    assert run_interpreted("test_scan_operator.py", "-k", f"triton_gpu and ({OPERATOR})") >= 9


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


def test_other_devices_are_left_to_others(monkeypatch):
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)
    assert triton_gpu.not_supported_reason("cpu") == triton_gpu.not_supported_reason("mps") == "CUDA only"


@needs_triton
def test_interpreter_asked_for_too_late(monkeypatch):
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)
    importlib.import_module("triton")
    monkeypatch.setenv("TRITON_INTERPRET", "1")
    assert "set after Triton had been imported" in triton_gpu.not_supported_reason("cpu")


def test_missing_triton_says_what_to_install(monkeypatch):
    def without_triton(name, *arguments):
        if name == "triton":
            raise ModuleNotFoundError("No module named 'triton'")
        return original(name, *arguments)

    original = builtins.__import__
    monkeypatch.setattr(builtins, "__import__", without_triton)
    reason = triton_gpu.not_supported_reason("cuda")
    assert "No module named 'triton'" in reason and "pip install triton" in reason


@needs_triton
def test_an_old_triton_says_what_is_needed(monkeypatch):
    monkeypatch.setattr("triton.__version__", "3.2.0")
    assert triton_gpu.not_supported_reason("cuda") == "needs Triton 3.3, which comes with PyTorch 2.7; this is 3.2.0"


class Driver:
    """Stands in for Triton's driver on a GPU of a compute capability, or where the driver fails."""

    def __init__(self, arch=None, error=None):
        self.active, self.backend, self.arch, self._error = self, "cuda", arch, error

    def get_current_target(self):
        if self._error is not None:
            raise self._error
        return self


@needs_triton
@pytest.mark.parametrize(
    ("driver", "reason"),
    [
        (Driver(arch=70), None),
        (Driver(arch=61), "Triton needs a GPU of compute capability 7.0, this one has 6.1"),
        (
            Driver(error=RuntimeError("Failed to find C compiler.")),
            "Triton cannot launch kernels here: Failed to find C",
        ),
        (
            Driver(error=subprocess.CalledProcessError(1, ["gcc"])),
            "Triton cannot launch kernels here: Command '['gcc']' returned",
        ),
    ],
    ids=["fit", "old", "no compiler", "no headers"],
)
def test_a_gpu_that_triton_cannot_use(monkeypatch, driver, reason):
    monkeypatch.setattr("triton.runtime.driver", driver)
    told = support._no_launch.__wrapped__()
    assert told is None if reason is None else told.startswith(reason)
