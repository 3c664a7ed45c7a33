"""The Triton backend without a GPU: its kernels interpreted on the CPU, and the reasons why it cannot run.

Triton decides whether it interprets when it is imported, which PyTorch may do early; hence processes of their own.
test_triton_compiled.py has the kernels compiled.
"""

from __future__ import annotations

import builtins
import importlib
import importlib.util
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
# What the interpreter is given of the tests of every backend. Of the vectors, which are long, one, in the dtype that
# networks compute in; that dtype of unwritten memory too. Of options and large steps: with the softplus, as
# networks have it. Of the operator: no finite differences of every input.
SCAN = "not number_of_states and not (vectors and not scan_0) and not ((vectors or unwritten) and float64)"
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
    assert run_interpreted("test_selective_scan.py", "-k", f"triton_gpu and ({SCAN})") >= 51


@needs_triton
@pytest.mark.slow
def test_interpreted_kernels_pass_the_tests_of_the_operator():
    assert run_interpreted("test_scan_operator.py", "-k", f"triton_gpu and ({OPERATOR})") >= 9


# What the kernels are compiled for besides constants and dtypes: what lies next to each other in memory.
SPECIALISED = {"channels", "states", "columns", "row_stride"}


@needs_triton
def test_the_extent_of_a_map_makes_no_new_kernel():
    from . import compile_triton_kernels

    for kernel, *_ in compile_triton_kernels.KERNELS:
        sizes = {p.name for p in kernel.params if not p.is_constexpr and not p.name.endswith("_ptr")}
        named = {p.name for p in kernel.params if p.do_not_specialize}
        assert sizes - named <= SPECIALISED, kernel.fn.__name__


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
    monkeypatch.setattr("triton.__version__", "3.5.1")
    assert triton_gpu.not_supported_reason("cuda") == "needs Triton 3.6, which comes with PyTorch 2.10; this is 3.5.1"


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
