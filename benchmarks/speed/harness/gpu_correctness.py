"""The check on a GPU: kernels compiled ahead, the tests, a long scan, CUDA's sanitizer."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from importlib.util import find_spec

import torch
from torch import Tensor

from nnunetv2_lightm import LightMUNet
from nnunetv2_lightm.layers import RVMLayer
from nnunetv2_lightm.ops import selective_scan, selective_scan_reference

from .checks import scan_inputs
from .gpu_setting import Record, Setting, SkippedStep, command_record, run_command

COMPILE_SECONDS, TEST_SECONDS, SANITIZER_SECONDS = 150, 150, 60

# It ends itself, as the sanitizer's own child cannot be ended from here.
ONE_LAYER = """
import signal, sys, torch
signal.alarm(int(sys.argv[1]))
from nnunetv2_lightm.layers import RVMLayer
device, dtype, channels, out_channels, dims = sys.argv[2], getattr(torch, sys.argv[3]), *map(int, sys.argv[4:])
layer = RVMLayer(channels, out_channels, dims).to(device)
x = torch.randn(2, *(16,) * dims, channels, device=device, requires_grad=True)
with torch.autocast(device, dtype, enabled=dtype != torch.float32):
    layer(x, (2,) * dims).float().sum().backward()
"""


def compile_kernels(setting: Setting) -> Iterator[Record]:
    """Every layer of the network once, each in a process of its own: Triton compiles one kernel after the other in a
    process, and keeps the result for all of them."""
    dtypes = ("float16",) if setting.small else ("float16", "bfloat16", "float32")
    jobs = [(dtype, *layer) for dtype in dtypes for layer in _layers(setting)]

    def compile_one(job: tuple) -> Record:
        command = [sys.executable, "-c", ONE_LAYER, str(COMPILE_SECONDS), setting.device, *map(str, job)]
        record = command_record(run_command(command, COMPILE_SECONDS), COMPILE_SECONDS)
        output = record.pop("output")
        named = dict(zip(("dtype", "channels", "out channels", "dims"), job, strict=True))
        return named | record | ({"output": output} if "failed" in record else {})

    with ThreadPoolExecutor(2 if setting.small else 14) as pool:
        yield from pool.map(compile_one, jobs)


def _layers(setting: Setting) -> list[tuple[int, int, int]]:
    """Channels in and out and axes of the network's layers, those first whose kernels take longest."""
    found = set()
    for dims in (3,) if setting.small else (2, 3):
        for module in LightMUNet(1, 3, spatial_dims=dims).modules():
            if isinstance(module, RVMLayer):
                found.add((module.projection.in_features, module.projection.out_features, dims))
    return sorted(found, reverse=not setting.small)[: 1 if setting.small else None]


def tests(setting: Setting) -> Iterator[Record]:
    """The tests marked ``gpu``: scan and layers against the CPU in float64, networks, reproducibility."""
    if find_spec("pytest") is None:
        raise SkippedStep("pytest is not installed")
    command = [sys.executable, "-m", "pytest", "-q", "-m", "gpu", "-p", "no:cacheprovider", "--tb=short"]
    yield command_record(run_command([*command, "tests/ops/test_on_gpu.py"], TEST_SECONDS), TEST_SECONDS)


def long_scan(setting: Setting) -> Iterator[Record]:
    """A scan as long as at full resolution: finite, reproducible, and equal to float64 at its start."""
    length = 5000 if setting.small else 2 * 128**3 // 2
    inputs = scan_inputs(2, length, 64, 16, torch.float32, setting.device)
    inputs = {name: t.requires_grad_() for name, t in inputs.items()}

    def run() -> list[Tensor]:
        y = selective_scan(**inputs, delta_softplus=True)
        return [y.detach(), *torch.autograd.grad(y.square().mean(), list(inputs.values()))]

    first, second = run(), run()
    begin = 300
    short = {n: (t[:, :begin] if t.ndim == 3 else t).detach().double().cpu() for n, t in inputs.items()}
    exact = selective_scan_reference(**short, delta_softplus=True)[0]
    error = float((first[0][:, :begin].double().cpu() - exact).abs().max() / exact.abs().max())
    finite, same = all(bool(t.isfinite().all()) for t in first), all(map(torch.equal, first, second))
    record: Record = {"tokens": length, "finite": finite, "twice the same": same, "error at the start": error}
    yield record if finite and same and error < 1e-4 else record | {"failed": "not as on the CPU"}


def sanitizer(setting: Setting) -> Iterator[Record]:
    """CUDA's compute-sanitizer on a small layer: accesses out of bounds, and values that were never written. (Its
    search for races looks into shared memory, where these kernels put nothing of their own.)"""
    tool = shutil.which("compute-sanitizer") or shutil.which("/usr/local/cuda/bin/compute-sanitizer")
    if tool is None or not setting.on_gpu:
        raise SkippedStep("compute-sanitizer is not installed" if tool is None else "not on a GPU")
    for kind in ("memcheck", "initcheck"):
        layer = [sys.executable, "-c", ONE_LAYER, str(SANITIZER_SECONDS), "cuda", "float16", "32", "32", "3"]
        command = [tool, f"--tool={kind}", "--error-exitcode=9", *layer]
        # PyTorch's cache puts small tensors into one block, within which nothing is out of bounds.
        outcome = run_command(command, SANITIZER_SECONDS, {"PYTORCH_NO_CUDA_MEMORY_CACHING": "1"})
        yield {"tool": kind} | command_record(outcome, SANITIZER_SECONDS)
