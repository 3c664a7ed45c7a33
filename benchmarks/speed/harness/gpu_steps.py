"""The steps of the check on a GPU; each returns records for a table, or raises."""

from __future__ import annotations

import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from importlib.util import find_spec
from math import prod

import torch
from torch import Tensor, nn

from nnunetv2_lightm.ops import backend_table, select_backend, selective_scan, selective_scan_reference
from nnunetv2_lightm.ops.backends.native_depthwise import PLAIN
from nnunetv2_lightm.ops.depthwise import depthwise_op

from .checks import scan_inputs
from .machine import ROOT
from .models import CONTIGUOUS, LAYOUTS, NNUNET, OURS, make_optimizer, memory_format, update
from .training_step import Step, Workload


class SkippedStep(Exception):
    """A step cannot run here; the message says why."""


@dataclass(frozen=True)
class Setting:
    """Where and how large.

    Attributes:
        device: "cuda", or "cpu" to try the script.
        small: Sizes for a CPU.
    """

    device: str
    small: bool

    @property
    def plans(self) -> list[tuple[tuple[int, ...], int]]:
        """Patch and batch."""
        if self.small:
            return [((64, 64, 64), 1)]
        return [((128, 128, 128), 2), ((64, 192, 160), 2), ((512, 512), 12)]

    @property
    def repetitions(self) -> int:
        return 2 if self.small else 10

    def synchronise(self) -> None:
        if self.device == "cuda":
            torch.cuda.synchronize()


def versions(setting: Setting) -> list[dict]:
    """Versions, the device, and how fast a large copy is."""
    facts = {"torch": torch.__version__, "CUDA": torch.version.cuda, "cuDNN": torch.backends.cudnn.version()}
    if setting.device == "cuda":
        card = torch.cuda.get_device_properties(0)
        facts |= {"card": card.name, "compute capability": f"{card.major}.{card.minor}"}
        facts |= {"memory, GiB": card.total_memory / 2**30, "multiprocessors": card.multi_processor_count}
    source = torch.empty((1 << 22) if setting.small else (1 << 29), dtype=torch.float16, device=setting.device)
    target = torch.empty_like(source)
    ms = median_ms(lambda: target.copy_(source), setting)
    facts["copy, GB/s"] = 2 * source.nbytes / ms / 1e6
    rows = [{"what": name, "value": value} for name, value in facts.items()]
    return rows + [
        {"what": f"backend {status.name}", "value": f"{'taken' if status.selected else status.usable}: {status.reason}"}
        for status in backend_table((setting.device,))
    ]


def tests(setting: Setting) -> list[dict]:
    """The tests marked ``gpu``: scan and layers against the CPU in float64, networks, reproducibility."""
    if find_spec("pytest") is None:
        raise SkippedStep("pytest is not installed")
    command = [sys.executable, "-m", "pytest", "-q", "-m", "gpu", "-p", "no:cacheprovider", "tests/ops/test_on_gpu.py"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    return [{"exit code": done.returncode, "output": done.stdout[-3000:]}]


def long_scan(setting: Setting) -> list[dict]:
    """A scan as long as at full resolution: finite, reproducible, and equal to float64 at its start."""
    length = 5000 if setting.small else 2 * 128**3 // 2
    inputs = scan_inputs(2, length, 64, 16, torch.float32)
    inputs = {name: t.to(setting.device).requires_grad_() for name, t in inputs.items()}

    def run() -> list[Tensor]:
        y = selective_scan(**inputs, delta_softplus=True)
        return [y.detach(), *torch.autograd.grad(y.square().mean(), list(inputs.values()))]

    first, second = run(), run()
    begin = 300
    short = {n: (t[:, :begin] if t.ndim == 3 else t).detach().double().cpu() for n, t in inputs.items()}
    exact = selective_scan_reference(**short, delta_softplus=True)[0]
    error = (first[0][:, :begin].double().cpu() - exact).abs().max() / exact.abs().max()
    return [
        {
            "tokens": length,
            "finite": all(bool(t.isfinite().all()) for t in first),
            "twice the same": all(map(torch.equal, first, second)),
            "error at the start": float(error),
        }
    ]


SANITIZED = """
import torch
from nnunetv2_lightm.layers import RVMLayer
layer = RVMLayer(32, 32, 3).cuda()
x = torch.randn(1, 5, 9, 11, 32, device="cuda", requires_grad=True)
with torch.autocast("cuda", torch.float16):
    layer(x, (2, 2, 2)).float().sum().backward()
torch.cuda.synchronize()
"""


def sanitizer(setting: Setting) -> list[dict]:
    """CUDA's compute-sanitizer on a small layer: memory errors, races."""
    tool = shutil.which("compute-sanitizer") or shutil.which("/usr/local/cuda/bin/compute-sanitizer")
    if tool is None or setting.device != "cuda":
        raise SkippedStep("compute-sanitizer is not installed" if tool is None else "not on a GPU")
    records = []
    for kind in ("memcheck", "racecheck"):
        command = [tool, f"--tool={kind}", "--error-exitcode=9", sys.executable, "-c", SANITIZED]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        records.append({"tool": kind, "exit code": done.returncode, "output": done.stdout[-1500:]})
    return records


def depthwise(setting: Setting) -> list[dict]:
    """The depthwise convolution at full resolution, ours compared with PyTorch's in both layouts."""
    size, channels = ((16,) * 3, 64) if setting.small else ((128,) * 3, 64)
    half = torch.float32 if setting.device == "cpu" else torch.float16
    x = torch.randn(2, *size, channels, device=setting.device, dtype=half, requires_grad=True)
    weight = torch.randn(channels, 1, 3, 3, 3, device=setting.device, dtype=half, requires_grad=True)
    bias = torch.randn(channels, device=setting.device, dtype=half, requires_grad=True)
    backend = select_backend(setting.device)

    def torchs(x: Tensor) -> Tensor:
        return nn.functional.conv3d(x, weight, bias, padding=1, groups=channels)

    first = x.detach().movedim(-1, 1)
    ways = {
        f"ours ({backend})": (x, lambda x: depthwise_op(PLAIN, x, list(size), [weight, bias], backend)),
        "PyTorch, channels-last": (first.detach().requires_grad_(), torchs),
        "PyTorch, contiguous": (first.contiguous().requires_grad_(), torchs),
    }
    records = []
    for name, (given, run) in ways.items():
        y = run(given)
        grad = torch.randn_like(y)
        inputs = (given, weight, bias)
        forward = median_ms(lambda run=run, given=given: run(given), setting)
        backward = median_ms(
            lambda y=y, grad=grad, inputs=inputs: torch.autograd.grad(y, inputs, grad, retain_graph=True), setting
        )
        records.append({"who": name, "forward, ms": forward, "backward, ms": backward, "map, GB": y.nbytes / 1e9})
    return records


def scans(setting: Setting) -> list[dict]:
    """The scan at each stage of the network, on every backend that runs."""
    side = 16 if setting.small else 128
    half = torch.float32 if setting.device == "cpu" else torch.float16
    records = []
    for level in range(4):
        tokens, channels = (side >> level) ** 3, 64 << level
        inputs = scan_inputs(2, tokens, channels, 16, torch.float32)
        wide = ("A", "D", "delta_bias")
        inputs = {n: t.to(setting.device, torch.float32 if n in wide else half) for n, t in inputs.items()}
        inputs = {name: t.requires_grad_() for name, t in inputs.items()}
        for status in backend_table((setting.device,)):
            if not status.usable or (status.name == "torch_chunked" and not setting.small):
                continue

            def run(name: str = status.name, inputs: dict[str, Tensor] = inputs) -> Tensor:
                return selective_scan(**inputs, delta_softplus=True, backend=name)

            forward = median_ms(run, setting)
            both = median_ms(
                lambda run=run, inputs=inputs: torch.autograd.grad(run().sum(), list(inputs.values())), setting
            )
            records.append(
                {"tokens": tokens, "channels": channels, "backend": status.name, "forward, ms": forward}
                | {"forward and backward, ms": both}
            )
    return records


def training(setting: Setting, compiled: bool = False) -> list[dict]:
    """The training step of nnU-Net's trainer, ours and nnU-Net's network in turns."""
    records = []
    for patch, batch in setting.plans:
        candidates = [(OURS, CONTIGUOUS), *((NNUNET, layout) for layout in LAYOUTS)]
        for which, layout in candidates:
            step = TrainingStep(which, layout, patch, batch, setting, compiled)
            records.append(step.measured(f"{'x'.join(map(str, patch))}, batch {batch}"))
            del step
    return records


class TrainingStep:
    """Network, loss, optimizer, scaler and a batch on the device."""

    def __init__(self, which: str, layout: str, patch: tuple[int, ...], batch: int, setting: Setting, compiled: bool):
        self.which, self.layout, self.setting, self.compiled = which, layout, setting, compiled
        levels = 4 if which == OURS else {2: 8, 3: 6}[len(patch)]
        strides = [(1,) * len(patch), *[(2,) * len(patch)] * (levels - 1)]
        torch.manual_seed(0)
        step = Step(Workload(patch, strides, batch, which=which))
        format_ = memory_format(len(patch), layout)
        self.network = step.network.to(setting.device).to(memory_format=format_)
        self.run_network = torch.compile(self.network) if compiled else self.network
        self.image = torch.randn_like(step.image).to(setting.device).contiguous(memory_format=format_)
        self.labels = [label.to(setting.device) for label in step.labels]
        self.loss, self.optimizer = step.loss, make_optimizer(self.network)
        self.scaler = torch.amp.GradScaler(setting.device, enabled=setting.device == "cuda")
        self.dtype = torch.float16 if setting.device == "cuda" else torch.bfloat16

    def run(self) -> None:
        self.optimizer.zero_grad(set_to_none=True)
        with torch.autocast(self.setting.device, self.dtype, enabled=self.setting.device == "cuda"):
            loss = self.loss(self.run_network(self.image), self.labels)
        self.scaler.scale(loss).backward()
        self.scaler.unscale_(self.optimizer)
        update(self.network, _Stepper(self.scaler, self.optimizer))
        self.scaler.update()

    def measured(self, work: str) -> dict:
        record = {"work": work, "network": self.which, "layout": self.layout}
        if self.setting.device == "cuda":
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats()
        begin = time.perf_counter()
        try:
            self.run()
            self.setting.synchronise()
            record["first step, s"] = time.perf_counter() - begin
            record["ms"] = median_ms(self.run, self.setting)
        except torch.cuda.OutOfMemoryError as error:
            return record | {"failed": str(error)[:200]}
        if self.setting.device == "cuda":
            record["peak, GiB"] = torch.cuda.max_memory_allocated() / 2**30
        return record


class _Stepper:
    """What ``update`` steps with: the scaler's step of an optimizer."""

    def __init__(self, scaler: torch.amp.GradScaler, optimizer: torch.optim.Optimizer) -> None:
        self._scaler, self._optimizer = scaler, optimizer

    def step(self) -> None:
        self._scaler.step(self._optimizer)


def compiled_training(setting: Setting) -> list[dict]:
    """The same under torch.compile, as nnU-Net trains on CUDA by default."""
    return training(setting, compiled=True)


def inference(setting: Setting) -> list[dict]:
    """One patch through each network."""
    records = []
    for patch, _ in setting.plans:
        for which, layout in [(OURS, CONTIGUOUS), *((NNUNET, layout) for layout in LAYOUTS)]:
            step = TrainingStep(which, layout, patch, 1, setting, compiled=False)
            step.network.eval()

            def run(step: TrainingStep = step) -> None:
                with (
                    torch.inference_mode(),
                    torch.autocast(setting.device, step.dtype, enabled=setting.device == "cuda"),
                ):
                    step.network(step.image)

            record = {"work": "x".join(map(str, patch)), "network": which, "layout": layout}
            if setting.device == "cuda":
                torch.cuda.empty_cache()
                torch.cuda.reset_peak_memory_stats()
            record["ms"] = median_ms(run, setting)
            if setting.device == "cuda":
                record["peak, GiB"] = torch.cuda.max_memory_allocated() / 2**30
            records.append(record | {"voxels": prod(patch)})
    return records


def top_kernels(setting: Setting) -> list[dict]:
    """Where our step's time goes on the device."""
    patch, batch = setting.plans[0]
    step = TrainingStep(OURS, CONTIGUOUS, patch, batch, setting, compiled=False)
    step.run()
    on_gpu = setting.device == "cuda"
    activities = [torch.profiler.ProfilerActivity.CUDA if on_gpu else torch.profiler.ProfilerActivity.CPU]
    with torch.profiler.profile(activities=activities) as profiler:
        step.run()
        setting.synchronise()
    key = "self_device_time_total" if on_gpu else "self_cpu_time_total"
    events = sorted(profiler.key_averages(), key=lambda event: -getattr(event, key))
    return [{"kernel": e.key[:80], "calls": e.count, "ms": getattr(e, key) / 1e3} for e in events[:25]]


def median_ms(run: Callable[[], object], setting: Setting) -> float:
    """Median milliseconds of some calls after a warm-up; on a GPU until its work is done."""
    run()
    setting.synchronise()
    times = []
    for _ in range(setting.repetitions):
        begin = time.perf_counter()
        run()
        setting.synchronise()
        times.append(1e3 * (time.perf_counter() - begin))
    return statistics.median(times)


STEPS: dict[str, tuple[Callable[[Setting], list[dict]], int]] = {
    "versions": (versions, 40),
    "tests": (tests, 120),
    "long_scan": (long_scan, 60),
    "sanitizer": (sanitizer, 90),
    "depthwise": (depthwise, 60),
    "scans": (scans, 60),
    "training": (training, 120),
    "top_kernels": (top_kernels, 40),
    "inference": (inference, 60),
    "compiled_training": (compiled_training, 200),
}
