"""A training step as in nnU-Net's trainer."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

import torch
from nnunetv2.training.loss.deep_supervision import DeepSupervisionWrapper
from torch import Tensor, nn

from nnunetv2_lightm import LightMUNet
from nnunetv2_lightm.networks.initialisation import initialise_near_identity

from .models import OURS, make_loss, make_optimizer, make_own_optimizer, planned_network, update

Strides = Sequence[Sequence[int]]
OUR_RESOLUTIONS = 4


@dataclass(frozen=True)
class Workload:
    """What a training step works on.

    Attributes:
        patch: Spatial size.
        strides: The stride of each resolution of the network.
        batch: Number of samples.
        classes: Channels of the logits.
        which: OURS, or one of nnU-Net's networks, a key of ``models.RIVALS``.
        kernels: Size of the rival's convolutions at each resolution; None: 3 on each axis.
        as_trained: As our trainer has it, with one output and Muon; otherwise with deep supervision and nnU-Net's SGD,
            as the rivals.
    """

    patch: tuple[int, ...]
    strides: Strides
    batch: int = 1
    classes: int = 3
    which: str = OURS
    kernels: Strides | None = None
    as_trained: bool = False

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
        self.workload = workload
        self.network = network_of(workload)
        self.network.train()
        self.image = torch.zeros(workload.batch, 1, *workload.patch)
        self.labels = [torch.zeros(workload.batch, 1, *size) for size in workload.levels[:-1]]
        loss = make_loss()
        if workload.as_trained:
            self.labels, self.loss, self.make_optimizer = self.labels[0], loss, make_own_optimizer
        else:
            # Weights of the resolutions as in nnUNetTrainer._build_loss, before they are normalised.
            self.loss = DeepSupervisionWrapper(loss, [1 / 2**i for i in range(len(self.labels))])
            self.make_optimizer = make_optimizer
        self.optimizer = self.make_optimizer(self.network)

    def forward(self, autocast: torch.dtype | None) -> Tensor:
        """The loss, under autocast of a dtype; None: in float32."""
        with _autocast(autocast):
            return self.loss(self.network(self.image), self.labels)

    def run(self, autocast: torch.dtype | None) -> None:
        """The whole step."""
        self.optimizer.zero_grad(set_to_none=True)
        self.forward(autocast).backward()
        update(self.network, self.optimizer)

    def predict(self, autocast: torch.dtype | None) -> Tensor:
        """The logits as nnU-Net predicts them; from then on the network has one output."""
        self.network.eval().decoder.deep_supervision = False
        with torch.no_grad(), _autocast(autocast):
            return self.network(self.image)


def network_of(workload: Workload) -> nn.Module:
    """The network of a workload, with its initial weights."""
    if workload.which != OURS:
        return planned_network(workload.which, workload.strides, workload.classes, workload.kernels)
    options = {"spatial_dims": len(workload.patch), "strides": workload.strides}
    network = LightMUNet(1, workload.classes, deep_supervision=not workload.as_trained, **options)
    if workload.as_trained:
        initialise_near_identity(network)
    return network


def _autocast(dtype: torch.dtype | None) -> AbstractContextManager:
    return nullcontext() if dtype is None else torch.autocast("cpu", dtype)
