"""The stages of LightMUNet: how long each takes, how much it computes, and how much data it must move at least."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from math import prod

import torch
from torch import Tensor, nn


@dataclass(frozen=True)
class Stage:
    """A part of the network that runs as a whole.

    Attributes:
        name: Its name in the table.
        module: The part.
        spatial: The size at which its layers work.
    """

    name: str
    module: nn.Module
    spatial: tuple[int, ...]

    @property
    def gflop(self) -> float:
        """Operations of the linear layers and convolutions in a forward pass; a multiply-add counts as two.

        The kernels are pointwise or depthwise, at stride 1: each weight is used once for each voxel.
        """
        weights = sum(
            m.weight.numel() for m in self.module.modules() if isinstance(m, nn.Linear | nn.Conv2d | nn.Conv3d)
        )
        return 2 * weights * prod(self.spatial) / 1e9

    @property
    def scan_gupdates(self) -> float:
        """Updates of one state of one channel by one token, in the scans of a forward pass; each needs an exp."""
        states = sum(p.numel() for name, p in self.module.named_parameters() if name.endswith("A_log"))
        return states * prod(self.spatial) / 1e9


def stages_of(network: nn.Module, patch: Sequence[int]) -> list[Stage]:
    """In the order in which they run, for a network that halves every axis in each Encoder Block."""
    sizes = [tuple(size >> level for size in patch) for level in range(len(network.encoder) + 1)]
    decoder = network.decoder
    return [
        Stage("stem", network.stem, sizes[0]),
        *(Stage(f"encoder {i + 1}", block, sizes[i]) for i, block in enumerate(network.encoder)),
        Stage("bottleneck", network.bottleneck, sizes[-1]),
        *(Stage(f"decoder {len(sizes) - 1 - i}", block, sizes[-1 - i]) for i, block in enumerate(decoder.blocks)),
        Stage("head", decoder.seg_layers[0], sizes[0]),
    ]


@contextmanager
def recording(stages: Sequence[Stage]) -> Iterator[StageClock]:
    """A clock whose hooks sit on the stages while the context lasts."""
    clock = StageClock()
    handles = []
    for stage in stages:
        handles.append(stage.module.register_forward_pre_hook(clock.starts(stage.name), with_kwargs=True))
        handles.append(stage.module.register_forward_hook(clock.ends(stage.name)))
    try:
        yield clock
    finally:
        for handle in handles:
            handle.remove()


class StageClock:
    """Notes when each stage begins and ends in the forward pass, and when the gradient of its output is complete.

    The backward pass of a chain of stages runs them one after the other, in reverse: the gradient of a stage's output
    is complete when the stage after it is done, also where a skip connection leaves the chain in between.

    Attributes:
        forward: Seconds by stage.
        gradient_at: Time by stage at which the gradient of its output was complete.
        bytes_moved: By stage, the bytes of its inputs and outputs.
    """

    def __init__(self) -> None:
        self.forward: dict[str, float] = {}
        self.gradient_at: dict[str, float] = {}
        self.bytes_moved: dict[str, int] = {}
        self._begin = 0.0

    def starts(self, name: str) -> Callable[..., None]:
        def hook(module: nn.Module, args: tuple, kwargs: dict) -> None:
            self.bytes_moved[name] = sum(t.nbytes for t in (*args, *kwargs.values()) if isinstance(t, Tensor))
            self._begin = time.perf_counter()

        return hook

    def ends(self, name: str) -> Callable[..., None]:
        def hook(module: nn.Module, args: tuple, output: Tensor) -> None:
            self.forward[name] = time.perf_counter() - self._begin
            self.bytes_moved[name] += output.nbytes
            if output.requires_grad:
                output.register_hook(lambda gradient: self._note_gradient(name))

        return hook

    def _note_gradient(self, name: str) -> None:
        self.gradient_at[name] = time.perf_counter()

    def backward(self, stages: Sequence[Stage], end: float) -> dict[str, float]:
        """Seconds by stage; ``end``: when the backward pass was over."""
        times = [self.gradient_at[stage.name] for stage in reversed(stages)] + [end]
        return {stage.name: b - a for stage, a, b in zip(reversed(stages), times, times[1:])}


def torch_operators(run: Callable[[], object], most: int = 12) -> list[dict]:
    """The operators that PyTorch's profiler sees in one run, by their own time."""
    # Otherwise it reports on standard error that there is no GPU.
    os.environ.setdefault("KINETO_LOG_LEVEL", "99")
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as profile:
        run()
    events = sorted(profile.key_averages(), key=lambda e: e.self_cpu_time_total, reverse=True)
    total = sum(e.self_cpu_time_total for e in events)
    return [
        {
            "operator": operator_name(e.key),
            "ms": e.self_cpu_time_total / 1e3,
            "share": e.self_cpu_time_total / total,
            "calls": e.count,
        }
        for e in events[:most]
    ]


def operator_name(key: str) -> str:
    """The profiler's name, except for GeneratedBackwardFor_<library>_<name>_default, its name for the forward pass of a
    custom operator that a backward pass will follow."""
    custom = re.fullmatch(r"GeneratedBackwardFor_(.+)_default", key)
    return f"{custom[1]} (forward, with what the backward pass needs)" if custom else key
