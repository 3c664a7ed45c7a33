"""Bytes of a training step: what autograd saves, counted without computing, and the allocator's peak, measured.

nnU-Net trains on a GPU under autocast. There is no need of one to count what autograd would save there: PyTorch's fake
tensors have the device, shape and dtype that a GPU would give them, and no memory.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from nnunetv2.training.loss.deep_supervision import DeepSupervisionWrapper
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.profiler import ProfilerActivity, profile

from nnunetv2_lightm import LightMUNet

from .models import make_loss, make_optimizer, update

Strides = Sequence[Sequence[int]]


@dataclass(frozen=True)
class Case:
    """A training step's patch.

    Attributes:
        patch: Spatial size.
        strides: One for each resolution.
        batch: Samples.
        classes: Channels of the logits.
    """

    patch: tuple[int, ...]
    strides: Strides
    batch: int = 1
    classes: int = 3


@dataclass(frozen=True)
class Path:
    """Where a step runs: "cuda" is made up of fake tensors.

    Attributes:
        device: "cpu" or "cuda".
        autocast: None: float32; otherwise the dtype of nnU-Net's autocast.
    """

    device: str
    autocast: torch.dtype | None


def saved_bytes(path: Path, case: Case) -> int:
    """Bytes of the storages that autograd keeps at the end of the forward pass, parameters left out."""
    with FakeTensorMode():
        step = _Step(path, case)
        storages = {}

        def remember(tensor: Tensor) -> Tensor:
            storage = tensor.untyped_storage()
            storages[storage._cdata] = storage  # kept, so that no other one gets its number
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(remember, lambda tensor: tensor):
            loss = step.forward()
        parameters = {parameter.untyped_storage()._cdata for parameter in step.network.parameters()}
        del loss
        return sum(storage.nbytes() for key, storage in storages.items() if key not in parameters)


def allocated_peak(path: Path, case: Case) -> int:
    """Largest number of bytes that PyTorch's CPU allocator has given out during a step beyond those before it."""
    step = _Step(path, case)
    step.run()  # makes the optimizer's state
    step.optimizer.zero_grad(set_to_none=True)
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
        step.run()
    events = profiler.profiler.kineto_results.events()
    allocated = peak = 0
    for event in sorted((e for e in events if e.name() == "[memory]"), key=lambda e: e.start_ns()):
        allocated += event.nbytes()
        peak = max(peak, allocated)
    return peak


class _Step:
    """A training step of nnU-Net's trainer, with deep supervision."""

    def __init__(self, path: Path, case: Case) -> None:
        self.path = path
        dims = len(case.patch)
        with torch.device(path.device):
            self.network = LightMUNet(
                1, case.classes, spatial_dims=dims, strides=case.strides, deep_supervision=True
            ).train()
            self.image = torch.zeros(case.batch, 1, *case.patch)
            sizes = [case.patch]
            for stride in case.strides[1:-1]:
                sizes.append([size // step for size, step in zip(sizes[-1], stride, strict=True)])
            self.labels = [torch.zeros(case.batch, 1, *size) for size in sizes]
        # Weights of the resolutions as in nnUNetTrainer._build_loss, before they are normalised.
        self.loss: nn.Module = DeepSupervisionWrapper(make_loss(), [1 / 2**i for i in range(len(sizes))])
        self.optimizer = make_optimizer(self.network)

    def forward(self) -> Tensor:
        with _autocast(self.path):
            return self.loss(self.network(self.image), self.labels)

    def run(self) -> None:
        self.optimizer.zero_grad(set_to_none=True)
        self.forward().backward()
        update(self.network, self.optimizer)


@contextmanager
def _autocast(path: Path) -> Iterator[None]:
    """``torch.autocast``, which switches itself off where there is no GPU; fake tensors need none."""
    if path.autocast is None:
        yield
        return
    torch.set_autocast_enabled(path.device, True)
    torch.set_autocast_dtype(path.device, path.autocast)
    try:
        yield
    finally:
        torch.clear_autocast_cache()
        torch.set_autocast_enabled(path.device, False)
