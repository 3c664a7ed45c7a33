"""A training step as in nnU-Net's trainer, with deep supervision, and its measured peak in the allocator."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass

import torch
from nnunetv2.training.loss.deep_supervision import DeepSupervisionWrapper
from torch import Tensor, nn
from torch.profiler import ProfilerActivity, profile

from nnunetv2_lightm import LightMUNet
from nnunetv2_lightm.complexity.nnunet_network import plain_conv_unet

from .models import NNUNET, OURS, make_loss, make_optimizer, update

Strides = Sequence[Sequence[int]]


@dataclass(frozen=True)
class Workload:
    """What a training step works on.

    Attributes:
        patch: Spatial size.
        strides: The stride of each resolution of the network.
        batch: Number of samples.
        classes: Channels of the logits.
        which: OURS, or NNUNET, whose strides are 2 after the first resolution.
    """

    patch: tuple[int, ...]
    strides: Strides
    batch: int = 1
    classes: int = 3
    which: str = OURS

    @property
    def levels(self) -> list[tuple[int, ...]]:
        """The spatial size of each resolution."""
        sizes = [tuple(self.patch)]
        for stride in self.strides[1:]:
            sizes.append(tuple(size // step for size, step in zip(sizes[-1], stride, strict=True)))
        return sizes


class Step:
    """Network, loss, optimizer and a batch of zeros."""

    def __init__(self, workload: Workload) -> None:
        dims = len(workload.patch)
        if workload.which == NNUNET:
            self.network: nn.Module = plain_conv_unet(dims, 1, workload.classes, deep_supervision=True)
        else:
            options = {"spatial_dims": dims, "strides": workload.strides, "deep_supervision": True}
            self.network = LightMUNet(1, workload.classes, **options)
        self.network.train()
        self.image = torch.zeros(workload.batch, 1, *workload.patch)
        self.labels = [torch.zeros(workload.batch, 1, *size) for size in workload.levels[:-1]]
        # Weights of the resolutions as in nnUNetTrainer._build_loss, before they are normalised.
        self.loss: nn.Module = DeepSupervisionWrapper(make_loss(), [1 / 2**i for i in range(len(self.labels))])
        self.optimizer = make_optimizer(self.network)

    def forward(self, autocast: torch.dtype | None) -> Tensor:
        """The loss, under autocast of a dtype; None: in float32."""
        with nullcontext() if autocast is None else torch.autocast("cpu", autocast):
            return self.loss(self.network(self.image), self.labels)

    def run(self, autocast: torch.dtype | None) -> None:
        """The whole step."""
        self.optimizer.zero_grad(set_to_none=True)
        self.forward(autocast).backward()
        update(self.network, self.optimizer)


def allocated_peak(workload: Workload, autocast: torch.dtype | None) -> int:
    """Largest number of bytes that PyTorch's CPU allocator has given out during a step beyond those before it."""
    step = Step(workload)
    step.run(autocast)  # makes the optimizer's state
    step.optimizer.zero_grad(set_to_none=True)
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
        step.run(autocast)
    events = profiler.profiler.kineto_results.events()
    allocated = peak = 0
    for event in sorted((e for e in events if e.name() == "[memory]"), key=lambda e: e.start_ns()):
        allocated += event.nbytes()
        peak = max(peak, allocated)
    return peak
