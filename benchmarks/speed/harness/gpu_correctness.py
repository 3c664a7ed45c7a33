"""The check on a GPU: the tests, a long scan, CUDA's sanitizer."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Iterator
from functools import partial
from importlib.util import find_spec

import torch
from torch import Tensor

from nnunetv2_lightm.ops import selective_scan
from nnunetv2_lightm.ops.backends import torch_chunked

from .checks import scan_inputs
from .gpu_setting import Record, Setting, SkippedStep, command_record, run_command

TEST_SECONDS, TEST_PROCESSES = 110, 6
MEMCHECK_SECONDS, INITCHECK_SECONDS = 100, 100
TESTS = ("-v", "--durations=0", "--tb=short", "-m", "gpu", "-p", "no:cacheprovider", "tests/ops/test_on_gpu.py")

# Tokens at both ends that are compared, and those beyond, after which the rest has decayed.
COMPARED, RUN_IN = 300, 16384
SCAN_TOLERANCE = 1e-4

# Sizes that fill no tile, in one slab with more chunks than one group holds, then in slabs of four planes. It ends
# itself, as the sanitizer's own child cannot be ended from here.
ODD_LAYER = """
import signal, sys, torch
signal.alarm(int(sys.argv[1]))
from nnunetv2_lightm.layers import RVMLayer
from nnunetv2_lightm.ops.backends.recomputing import slabs
device, dtype = sys.argv[2], getattr(torch, sys.argv[3])
shape = tuple(map(int, sys.argv[4:]))
layer = RVMLayer(shape[-1], 24, 3, d_state=5).to(device)
x = torch.randn(shape, device=device, requires_grad=True)
for elements in (slabs.SLAB_ELEMENTS, 4 * shape[2] * shape[3] * shape[4]):
    slabs.SLAB_ELEMENTS = elements
    with torch.autocast(device, dtype, enabled=dtype != torch.float32):
        layer(x, (2, 2, 2)).float().sum().backward()
print("gradients finite:", all(bool(p.grad.isfinite().all()) for p in layer.parameters()))
"""
ODD_SIZES, SMALL_SIZES = (2, 9, 31, 37, 20), (1, 5, 3, 7, 20)
# What compute-sanitizer says where it cannot work, as in gVisor.
REFUSED = "Device not supported"


def tests(setting: Setting) -> Iterator[Record]:
    """The tests marked ``gpu``, on several processes if pytest-xdist is there; their output is in OUT/tests.log."""
    if find_spec("pytest") is None:
        raise SkippedStep("pytest is not installed")
    processes = min(TEST_PROCESSES, os.cpu_count() or 1)
    workers = ["-n", str(processes)] if find_spec("xdist") and not setting.small else []
    command = [sys.executable, "-m", "pytest", *TESTS, *workers]
    yield command_record(run_command(command, TEST_SECONDS, log=setting.logs / "tests.log"), TEST_SECONDS)


def long_scan(setting: Setting) -> Iterator[Record]:
    """A scan as long as at full resolution: finite, twice the same, and at both ends equal to float64 on the CPU, where
    a window of the tokens decides, since the state decays."""
    length = 5000 if setting.small else 128**3
    inputs = scan_inputs(2, length, 64, 16, torch.float32, setting.device)
    first, second = (_value_and_gradients(inputs, length) for _ in range(2))
    finite, same = all(bool(t.isfinite().all()) for t in first), all(map(torch.equal, first, second))
    record: Record = {"tokens": length, "finite": finite, "twice the same": same}
    begin, end = slice(0, COMPARED + RUN_IN), slice(max(0, length - COMPARED - RUN_IN), length)
    for place, window, compared in (("start", begin, slice(0, COMPARED)), ("end", end, slice(-COMPARED, None))):
        inside = {n: t[:, window] if t.ndim == 3 else t for n, t in inputs.items()}
        exact = _value_and_gradients({n: t.double().cpu() for n, t in inside.items()}, length, torch_chunked.NAME)
        for name, found, expected in zip(("y", "gradient of u"), first, exact, strict=False):
            error = _error(found[:, window][:, compared].double().cpu(), expected[:, compared])
            record[f"error of {name} at the {place}"] = error
    right = all(error <= SCAN_TOLERANCE for name, error in record.items() if name.startswith("error"))
    yield record if finite and same and right else record | {"failed": "not as on the CPU"}


def _value_and_gradients(inputs: dict[str, Tensor], length: int, backend: str | None = None) -> list[Tensor]:
    """y and the gradients of the inputs, u first; of the mean square as if there were ``length`` tokens."""
    given = {name: t.detach().requires_grad_() for name, t in inputs.items()}
    y = selective_scan(**given, delta_softplus=True, backend=backend)
    loss = y.square().sum() / (y.numel() / y.shape[1] * length)
    return [y.detach(), *torch.autograd.grad(loss, list(given.values()))]


def _error(found: Tensor, expected: Tensor) -> float:
    return float((found - expected).abs().max() / expected.abs().max())


def sanitizer(setting: Setting, kind: str, seconds: int) -> Iterator[Record]:
    """One of compute-sanitizer's tools on a small layer of odd sizes."""
    tool = shutil.which("compute-sanitizer") or shutil.which("/usr/local/cuda/bin/compute-sanitizer")
    if tool is None or not setting.on_gpu:
        raise SkippedStep("compute-sanitizer is not installed" if tool is None else "not on a GPU")
    layer = [sys.executable, "-c", ODD_LAYER, str(seconds), "cuda", "float16", *map(str, ODD_SIZES)]
    # PyTorch's cache puts small tensors into one block, within which nothing is out of bounds.
    alone = {"PYTORCH_NO_CUDA_MEMORY_CACHING": "1"}
    outcome = run_command([tool, f"--tool={kind}", "--error-exitcode=9", *layer], seconds, alone)
    if REFUSED in outcome[1]:
        line = next(line for line in outcome[1].splitlines() if REFUSED in line)
        raise SkippedStep(f"compute-sanitizer does not work here: {line.strip()}")
    yield {"tool": kind} | command_record(outcome, seconds)


# Accesses out of bounds; values that were never written. (The search for races looks into shared memory alone, which
# these kernels leave to Triton.)
memcheck = partial(sanitizer, kind="memcheck", seconds=MEMCHECK_SECONDS)
initcheck = partial(sanitizer, kind="initcheck", seconds=INITCHECK_SECONDS)
