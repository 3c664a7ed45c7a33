"""The check on a GPU: time of convolutions and scans, ours and the rivals', and of the kernels of our training step."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import torch
from torch import Tensor, nn

from nnunetv2_lightm.ops import backend_table, select_backend, selective_scan
from nnunetv2_lightm.ops.backends.native_depthwise import PLAIN
from nnunetv2_lightm.ops.depthwise import depthwise_op

from .checks import scan_inputs
from .gpu_setting import Record, Setting, attempt
from .gpu_turns import TrainingStep, workload_of
from .models import CONTIGUOUS, OURS


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


def top_kernels(setting: Setting) -> Iterator[Record]:
    """Where our step's time goes on the device."""
    step = TrainingStep(workload_of(setting.plans[0], OURS), CONTIGUOUS, setting)
    step.run()
    activities = [torch.profiler.ProfilerActivity.CUDA if setting.on_gpu else torch.profiler.ProfilerActivity.CPU]
    with torch.profiler.profile(activities=activities) as profiler:
        step.run()
        setting.synchronise()
    key = "self_device_time_total" if setting.on_gpu else "self_cpu_time_total"
    events = sorted(profiler.key_averages(), key=lambda event: -getattr(event, key))
    yield from ({"kernel": e.key[:80], "calls": e.count, "ms": getattr(e, key) / 1e3} for e in events[:25])
