"""The check on a GPU: time and memory of convolutions, scans, training steps and predictions, ours and the rivals'."""

from __future__ import annotations

import time
from collections.abc import Iterator
from functools import partial
from math import prod

import torch
from torch import Tensor, nn

from nnunetv2_lightm.ops import backend_table, select_backend, selective_scan
from nnunetv2_lightm.ops.backends.native_depthwise import PLAIN
from nnunetv2_lightm.ops.depthwise import depthwise_op

from .checks import scan_inputs
from .gpu_setting import Record, Setting, attempt
from .models import CONTIGUOUS, LAYOUTS, NNUNET, OURS, make_optimizer, memory_format, update
from .training_step import Step, Workload

WARM_UP_STEPS, MOST_SKIPPED = 2, 20


def depthwise(setting: Setting) -> Iterator[Record]:
    """The depthwise convolution at full resolution, ours compared with PyTorch's in both layouts."""
    size, channels = ((16,) * 3, 64) if setting.small else ((128,) * 3, 64)
    options = {"device": setting.device, "dtype": setting.half, "requires_grad": True}
    x = torch.randn(2, *size, channels, **options)
    weight, bias = torch.randn(channels, 1, 3, 3, 3, **options), torch.randn(channels, **options)
    backend = select_backend(setting.device)

    def torchs(x: Tensor) -> Tensor:
        return nn.functional.conv3d(x, weight, bias, padding=1, groups=channels)

    def measure(given: Tensor, run) -> Record:
        y = run(given)
        grad, inputs = torch.randn_like(y), (given, weight, bias)
        backward = partial(torch.autograd.grad, y, inputs, grad, retain_graph=True)
        forward_ms, backward_ms = setting.median_ms(lambda: run(given)), setting.median_ms(backward)
        return {"forward, ms": forward_ms, "backward, ms": backward_ms, "map, GB": y.nbytes / 1e9}

    first = x.detach().movedim(-1, 1)
    ways = {
        f"ours ({backend})": (x, lambda x: depthwise_op(PLAIN, x, list(size), [weight, bias], backend)),
        "PyTorch, channels-last": (first.detach().requires_grad_(), torchs),
        "PyTorch, contiguous": (first.contiguous().requires_grad_(), torchs),
    }
    for name, (given, run) in ways.items():
        yield attempt({"who": name}, partial(measure, given, run))


def scans(setting: Setting) -> Iterator[Record]:
    """The scan at each stage of the network, on every backend that runs."""
    side = 16 if setting.small else 128
    for level in range(4):
        tokens, channels = (side >> level) ** 3, 64 << level
        inputs = scan_inputs(2, tokens, channels, 16, torch.float32, setting.device)
        wide = ("A", "D", "delta_bias")
        inputs = {n: t if n in wide else t.to(setting.half) for n, t in inputs.items()}
        inputs = {name: t.requires_grad_() for name, t in inputs.items()}

        def measure(name: str, inputs: dict[str, Tensor] = inputs) -> Record:
            def run() -> Tensor:
                return selective_scan(**inputs, delta_softplus=True, backend=name)

            def both() -> object:
                return torch.autograd.grad(run().sum(), list(inputs.values()))

            return {"forward, ms": setting.median_ms(run), "forward and backward, ms": setting.median_ms(both)}

        for status in backend_table((setting.device,)):
            if status.usable and (status.name != "torch_chunked" or setting.small):
                record: Record = {"tokens": tokens, "channels": channels, "backend": status.name}
                yield attempt(record, partial(measure, status.name))


class TrainingStep:
    """Network, loss, optimizer, scaler and a batch on the device, as nnU-Net's trainer has them.

    Args:
        which: OURS or NNUNET.
        layout: Memory layout.
        patch: Spatial size.
        batch: Number of samples.
        setting: Where.
        compiled: Under torch.compile, for this one size.
    """

    def __init__(
        self, which: str, layout: str, patch: tuple[int, ...], batch: int, setting: Setting, *, compiled: bool = False
    ) -> None:
        self.setting = setting
        levels = 4 if which == OURS else {2: 8, 3: 6}[len(patch)]
        strides = [(1,) * len(patch), *[(2,) * len(patch)] * (levels - 1)]
        torch.manual_seed(0)
        step = Step(Workload(patch, strides, batch, which=which))
        format_ = memory_format(len(patch), layout)
        self.network = step.network.to(setting.device).to(memory_format=format_)
        self.run_network = torch.compile(self.network, dynamic=False) if compiled else self.network
        self.image = torch.randn_like(step.image).to(setting.device).contiguous(memory_format=format_)
        self.labels = [label.to(setting.device) for label in step.labels]
        self.loss, self.optimizer = step.loss, make_optimizer(self.network)
        self.scaler = torch.amp.GradScaler(setting.device, enabled=setting.on_gpu)

    def run(self) -> None:
        self.optimizer.zero_grad(set_to_none=True)
        with self.setting.autocast():
            loss = self.loss(self.run_network(self.image), self.labels)
        self.scaler.scale(loss).backward()
        self.scaler.unscale_(self.optimizer)
        update(self.network, _Stepper(self.scaler, self.optimizer))
        self.scaler.update()

    def measured(self) -> Record:
        self.setting.forget_peak()
        begin = time.perf_counter()
        self.run()
        self.setting.synchronise()
        first = time.perf_counter() - begin
        skipped = self._warm_up()
        ms = self.setting.median_ms(self.run)
        return {"first step, s": first, "steps skipped before": skipped, "ms": ms} | self.setting.peak()

    def _warm_up(self) -> int:
        """Until the scaler has found its scale: a step that it skips costs less. Returns: how many it skipped."""
        done = skipped = 0
        while done < WARM_UP_STEPS and skipped < MOST_SKIPPED:
            scale = self.scaler.get_scale()
            self.run()
            whole = self.scaler.get_scale() >= scale
            done, skipped = done + whole, skipped + (not whole)
        return skipped


class _Stepper:
    """What ``update`` steps with: the scaler's step of an optimizer."""

    def __init__(self, scaler: torch.amp.GradScaler, optimizer: torch.optim.Optimizer) -> None:
        self._scaler, self._optimizer = scaler, optimizer

    def step(self) -> None:
        self._scaler.step(self._optimizer)


def _candidates(setting: Setting, plans: int | None = None) -> Iterator[tuple[Record, tuple]]:
    """Ours, then nnU-Net's network in each layout, for each plan: a record that names it, arguments of TrainingStep."""
    for patch, batch in setting.plans[:plans]:
        for which, layout in [(OURS, CONTIGUOUS), *((NNUNET, layout) for layout in LAYOUTS)]:
            record: Record = {"work": f"{'x'.join(map(str, patch))}, batch {batch}", "network": which, "layout": layout}
            yield record, (which, layout, patch, batch)


def training(setting: Setting) -> Iterator[Record]:
    """The training step of nnU-Net's trainer, ours and nnU-Net's network in turns."""
    for record, arguments in _candidates(setting):
        yield attempt(record, lambda arguments=arguments: TrainingStep(*arguments, setting).measured())


def compiled_training(setting: Setting) -> Iterator[Record]:
    """The same under torch.compile, as nnU-Net trains on CUDA by default; the first plan."""

    def measure(arguments: tuple) -> Record:
        torch._dynamo.reset()  # another size would be compiled for any size, and nnU-Net has one
        return TrainingStep(*arguments, setting, compiled=True).measured()

    for record, arguments in _candidates(setting, plans=1):
        yield attempt(record, partial(measure, arguments))


def inference(setting: Setting) -> Iterator[Record]:
    """One patch through each network, as nnU-Net predicts: without deep supervision."""

    def measure(which: str, layout: str, patch: tuple[int, ...], _: int) -> Record:
        step = TrainingStep(which, layout, patch, 1, setting)
        step.network.eval()
        step.network.decoder.deep_supervision = False

        def run() -> None:
            with torch.inference_mode(), setting.autocast():
                step.network(step.image)

        setting.forget_peak()
        return {"ms": setting.median_ms(run), "voxels": prod(patch)} | setting.peak()

    for record, arguments in _candidates(setting):
        yield attempt(record | {"work": "x".join(map(str, arguments[2]))}, partial(measure, *arguments))


def top_kernels(setting: Setting) -> Iterator[Record]:
    """Where our step's time goes on the device."""
    patch, batch = setting.plans[0]
    step = TrainingStep(OURS, CONTIGUOUS, patch, batch, setting)
    step.run()
    activities = [torch.profiler.ProfilerActivity.CUDA if setting.on_gpu else torch.profiler.ProfilerActivity.CPU]
    with torch.profiler.profile(activities=activities) as profiler:
        step.run()
        setting.synchronise()
    key = "self_device_time_total" if setting.on_gpu else "self_cpu_time_total"
    events = sorted(profiler.key_averages(), key=lambda event: -getattr(event, key))
    yield from ({"kernel": e.key[:80], "calls": e.count, "ms": getattr(e, key) / 1e3} for e in events[:25])
