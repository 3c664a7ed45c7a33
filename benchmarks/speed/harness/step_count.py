"""Bytes of a training step on a GPU, counted without one: what autograd saves, and the peak of all that is allocated.

The step runs on PyTorch's fake tensors: shapes, dtypes and lifetimes are those of a GPU under autocast, without numbers
and without memory. Our operators run as they are, on the backend of a GPU, down to what they allocate inside; their
Triton kernels, which allocate nothing, are left out. Not counted: work space inside cuDNN and cuBLAS, the allocator's
gaps, and CUDA itself.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from math import prod
from unittest import mock

import torch
from torch import Tensor
from torch._ops import OpOverload
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from nnunetv2_lightm.ops._scan_operator import scan_backward_op, scan_op
from nnunetv2_lightm.ops.backends import cpu_native, triton_gpu
from nnunetv2_lightm.ops.backends.triton_kernels import depthwise as triton_depthwise
from nnunetv2_lightm.ops.backends.triton_kernels import pooling as triton_pooling
from nnunetv2_lightm.ops.backends.triton_kernels import rows as triton_rows
from nnunetv2_lightm.ops.backends.triton_kernels import scan_launches
from nnunetv2_lightm.ops.backends.triton_kernels import selection as triton_selection
from nnunetv2_lightm.ops.depthwise import depthwise_backward_op, depthwise_op
from nnunetv2_lightm.ops.rvm_layer import rvm_layer_backward_op, rvm_layer_op
from nnunetv2_lightm.ops.upsample import upsample_backward_op, upsample_op

from .checks import backend
from .cuda_autocast import cuda_rules
from .models import update
from .training_step import Step, Workload

# Operators that fake tensors would pass over in one step.
OURS = (
    scan_op,
    scan_backward_op,
    rvm_layer_op,
    rvm_layer_backward_op,
    depthwise_op,
    depthwise_backward_op,
    upsample_op,
    upsample_backward_op,
)


@dataclass(frozen=True)
class StepBytes:
    """The memory of a training step on top of weights and optimizer state.

    Attributes:
        saved: Bytes that autograd keeps at the end of the forward pass, without parameters.
        saved_by_voxels: The same by resolution, named by its number of voxels in the batch.
        peak: Largest number of bytes allocated at a time, gradients of the weights included.
        peak_at: The operator that allocated last then.
        weights: Bytes of the parameters.
    """

    saved: int
    saved_by_voxels: dict[int, int]
    peak: int
    peak_at: str
    weights: int


def count_step(
    workload: Workload, autocast: torch.dtype | None = torch.float16, scan: str = triton_gpu.NAME
) -> StepBytes:
    """Count a training step.

    Args:
        workload: Network, patch and batch.
        autocast: The dtype of CUDA's autocast; None: off.
        scan: The backend of a GPU; or "cpu_native", whose layers are counted from outside.
    """
    with FakeTensorMode(), cuda_rules(), as_on_a_gpu(scan):
        step = Step(workload)
        # The first step creates the momentum, later ones do not.
        step.run(autocast)
        step.optimizer.zero_grad(set_to_none=True)
        with Allocations(inside_ours=scan != cpu_native.NAME) as allocations:
            loss, saved = _forward(step, workload, autocast)
            loss.backward()
            update(step.network, step.optimizer)
        weights = sum(p.nbytes for p in step.network.parameters())
        return StepBytes(sum(saved.values()), saved, allocations.peak, allocations.peak_at, weights)


def count_saved(workload: Workload, autocast: torch.dtype | None = torch.float16, scan: str = triton_gpu.NAME) -> int:
    """``saved`` of :func:`count_step` alone, in a fraction of the time."""
    with FakeTensorMode(), cuda_rules(), as_on_a_gpu(scan):
        return sum(_forward(Step(workload), workload, autocast)[1].values())


def _forward(step: Step, workload: Workload, autocast: torch.dtype | None) -> tuple[Tensor, dict[int, int]]:
    """The loss, and the bytes that autograd keeps for it by the voxels that they belong to."""
    parameters = {id_of(p) for p in step.network.parameters()}
    saved: dict[int, Tensor] = {}

    def remember(tensor: Tensor) -> Tensor:
        if id_of(tensor) not in parameters:
            saved.setdefault(id_of(tensor), tensor)
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(remember, lambda tensor: tensor):
        loss = step.forward(autocast)
    by_voxels: dict[int, int] = {}
    for tensor in saved.values():
        voxels = workload.batch * voxels_of(tensor, workload.levels)
        by_voxels[voxels] = by_voxels.get(voxels, 0) + tensor.untyped_storage().nbytes()
    # Autograd keeps the hook, and with it what it refers to, as long as the graph.
    saved.clear()
    return loss, by_voxels


def leave_out(*arguments: object, **named: object) -> None:
    """Replaces a launch."""


@contextmanager
def as_on_a_gpu(scan: str, launch: Callable[..., None] = leave_out) -> Iterator[None]:
    """Our layers on a GPU's backend; ``launch`` is called where a Triton kernel would be."""
    with (
        backend(scan),
        mock.patch.object(triton_gpu, "not_supported_reason", lambda device_type: None),
        mock.patch.object(scan_launches, "launch", launch),
        mock.patch.object(triton_depthwise, "launch", launch),
        mock.patch.object(triton_pooling, "launch", launch),
        mock.patch.object(triton_rows, "launch", launch),
        mock.patch.object(triton_selection, "launch", launch),
    ):
        yield


def id_of(tensor: Tensor) -> int:
    """Identifies the memory behind a tensor."""
    return tensor.untyped_storage()._cdata


def voxels_of(tensor: Tensor, levels: Sequence[Sequence[int]]) -> int:
    """Voxels of the resolution that a saved tensor belongs to: by its spatial axes, the scan's states by the tokens."""
    shape = tuple(tensor.shape)
    for level in levels:
        spatial = tuple(level)
        if any(shape[i : i + len(spatial)] == spatial for i in (1, 2)):
            return prod(spatial)
    tokens = shape[1] * scan_launches.CHUNK_LENGTH if len(shape) > 1 else 0
    return min((prod(level) for level in levels), key=lambda voxels: abs(voxels - tokens))


class Operators(TorchDispatchMode):
    """Sees every operator that runs, with its result; optionally ours as the operators they consist of.

    Args:
        inside_ours: Look inside our own operators.
    """

    def __init__(self, inside_ours: bool = True) -> None:
        super().__init__()
        ours = OURS if inside_ours else ()
        self._ours = {getattr(torch.ops.nnunetv2_lightm, op._name).default: op._init_fn for op in ours}

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        implementation = self._ours.get(func)
        if implementation is not None:
            with self:
                return implementation(*args, **(kwargs or {}))
        out = func(*args, **(kwargs or {}))
        self.ran(func, args, kwargs or {}, out)
        return out

    def ran(self, func: OpOverload, args: tuple, kwargs: dict, out: object) -> None:
        """An operator has run."""
        raise NotImplementedError


class Allocations(Operators):
    """Follows the storages that operators make, from their first tensor to their last.

    Attributes:
        peak: The most bytes at a time.
        peak_at: The operator that allocated last at the peak.
    """

    def __init__(self, inside_ours: bool) -> None:
        super().__init__(inside_ours)
        self.peak, self.peak_at, self._now = 0, "", 0
        self._known: set[int] = set()

    def ran(self, func: OpOverload, args: tuple, kwargs: dict, out: object) -> None:
        given = {id_of(t) for t in tree_leaves((args, kwargs)) if isinstance(t, Tensor)}
        for tensor in tree_leaves(out):
            if isinstance(tensor, Tensor) and id_of(tensor) not in given and id_of(tensor) not in self._known:
                self._add(tensor, str(func))

    def _add(self, tensor: Tensor, name: str) -> None:
        storage, nbytes = tensor.untyped_storage(), tensor.untyped_storage().nbytes()
        number = storage._cdata
        self._known.add(number)
        self._now += nbytes
        if self._now > self.peak:
            self.peak, self.peak_at = self._now, name
        weakref.finalize(storage, self._forget, number, nbytes)

    def _forget(self, number: int, nbytes: int) -> None:
        self._known.discard(number)
        self._now -= nbytes
