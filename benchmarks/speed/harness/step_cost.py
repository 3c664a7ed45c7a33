"""What a training step costs a GPU, kernel by kernel: bytes, FLOP and launches counted, milliseconds predicted.

The step runs on fake tensors as in :mod:`.step_count`; each operator counts as one kernel that reads its inputs and
writes its outputs once. A kernel takes as long as the slowest of: its bytes at the card's copy rate, its products at
the rate of the tensor cores, its other arithmetic at that of float32, its exponentials at that of the special-function
units. A prediction, not a measurement, and a lower bound: kernels reach their bound at best. Caches are left out.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from math import prod
from unittest import mock

import torch
from torch import Tensor
from torch._ops import OpOverload
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import flop_registry

from nnunetv2_lightm.ops.backends import triton_gpu

from .cuda_autocast import cuda_rules
from .step_count import Operators, as_on_a_gpu, id_of
from .training_step import Step, Workload


@dataclass(frozen=True)
class Card:
    """A GPU, by its data sheet.

    Attributes:
        name: Its name in the tables.
        copy_gbytes: Rate of a large copy, read and written, in GB/s: nine tenths of the memory's rate.
        half_tflops: Rate of large float16 convolutions and products, in TFLOP/s: half of the peak.
        float_tflops: Rate of float32 outside the tensor cores, in TFLOP/s.
        exponentials: Exponentials per second, in 1e12: 16 per multiprocessor and cycle.
    """

    name: str
    copy_gbytes: float
    half_tflops: float
    float_tflops: float
    exponentials: float


CARDS = {
    "T4": Card("T4", 288, 32, 8.1, 1.0),
    "RTX3060": Card("RTX 3060, 12 GB", 324, 25, 12.7, 0.80),
    "RTX4090": Card("RTX 4090", 907, 82, 82.6, 5.2),
    "A100": Card("A100, 40 GB", 1400, 156, 19.5, 2.4),
    "H100": Card("H100 SXM", 3015, 495, 66.9, 4.2),
    "H200": Card("H200 SXM", 4320, 495, 66.9, 4.2),
}
# Time of the host per kernel launch in eager mode, in microseconds: by PyTorch, and by Triton, from Python.
LAUNCH_US, TRITON_LAUNCH_US = 6.0, 15.0
TRITON = "triton: "
# Products that PyTorch's counter of FLOP meets only in pieces; inside our operators they are whole.
UNREGISTERED_PRODUCTS = ("linear", "matmul", "addmm_")
# Operators that move nothing, that read nothing, and that do not read what they change; nor do those with ``out=``.
FREE = ("empty", "detach", "alias", "_reshape_alias")
FILL = ("zeros_like", "ones_like", "full_like", "new_zeros", "new_ones", "new_full")
OVERWRITE = ("copy_", "zero_", "fill_", "_foreach_copy_", "_foreach_zero_")


@dataclass
class Cost:
    """The cost of all calls of a kernel."""

    bytes: float = 0
    product_flop: float = 0
    float_flop: float = 0
    exponentials: float = 0
    launches: int = 0

    def add(self, other: Cost) -> None:
        for name in self.__dataclass_fields__:
            setattr(self, name, getattr(self, name) + getattr(other, name))

    def ms(self, card: Card) -> float:
        """Predicted for a card."""
        seconds = (
            self.bytes / (card.copy_gbytes * 1e9),
            self.product_flop / (card.half_tflops * 1e12),
            self.float_flop / (card.float_tflops * 1e12),
            self.exponentials / (card.exponentials * 1e12),
        )
        return 1e3 * max(seconds)

    def bound(self, card: Card) -> str:
        """The resource that limits the prediction."""
        single = {
            "bytes": "memory",
            "product_flop": "tensor cores",
            "float_flop": "float32",
            "exponentials": "exponentials",
        }
        times = {limit: Cost(**{name: getattr(self, name)}).ms(card) for name, limit in single.items()}
        return max(times, key=times.get)


def card_named(name: str) -> Card | None:
    """The card that PyTorch calls by this name, such as "NVIDIA A100-SXM4-40GB"; None: of another kind."""
    return next((card for key, card in CARDS.items() if key in name.replace(" ", "").replace("-", "")), None)


def total_ms(costs: Mapping[str, Cost], card: Card) -> float:
    """Predicted time of the card for all kernels."""
    return sum(cost.ms(card) for cost in costs.values())


def host_ms(costs: Mapping[str, Cost]) -> float:
    """Predicted time of the host to launch them."""
    by_triton = sum(cost.launches for name, cost in costs.items() if name.startswith(TRITON))
    return 1e-3 * (TRITON_LAUNCH_US * by_triton + LAUNCH_US * (launches(costs) - by_triton))


def launches(costs: Mapping[str, Cost]) -> int:
    return sum(cost.launches for cost in costs.values())


class Costs(Operators):
    """Adds up the cost of each kernel.

    Attributes:
        by_kernel: The sums, by the kernel's name.
    """

    def __init__(self) -> None:
        super().__init__()
        self.by_kernel: dict[str, Cost] = defaultdict(Cost)

    def ran(self, func: OpOverload, args: tuple, kwargs: dict, out: object) -> None:
        name = func.overloadpacket.__name__
        given = [t for t in tree_leaves((args, kwargs)) if isinstance(t, Tensor)]
        known = {id_of(t) for t in given}
        made = [t for t in tree_leaves(out) if isinstance(t, Tensor) and id_of(t) not in known]
        changed = _changed(func, args, kwargs)
        if any(free in name for free in FREE) or not (made or changed):
            return  # a view
        unread = {id_of(t) for t in changed} if name in OVERWRITE or kwargs.get("out") is not None else set()
        read = [] if name in FILL else [t for t in given if id_of(t) not in unread]
        moved = sum(map(size_of, (*read, *made, *changed)))
        formula = flop_registry.get(func.overloadpacket)
        flop = formula(*args, **kwargs, out_val=out) if formula else 0
        if name in UNREGISTERED_PRODUCTS:
            flop = 2 * out.numel() * args[name == "addmm_"].shape[-1]
        half = any(t.dtype in (torch.float16, torch.bfloat16) for t in given)
        elements = 0 if flop else sum(t.numel() for t in (made or changed))
        self.by_kernel[f"torch: {name}"].add(
            Cost(moved, flop if half else 0, elements if half or not flop else flop, 0, 1)
        )

    def launched(self, kernel: object, grid: tuple[int, ...], *arguments: object, **named: object) -> None:
        """A Triton kernel."""
        name = kernel.fn.__name__
        given = dict(zip(kernel.arg_names, arguments)) | named
        tensors = [t for t in given.values() if isinstance(t, Tensor)]
        cost = Cost(sum(map(size_of, tensors)), launches=1)
        if name in ("convolve", "weight_gradient"):
            activated = given.get("activated_ptr")
            out = next(t for t in (given.get("grad_ptr"), given.get("out_ptr"), activated) if t is not None)
            cost.float_flop = 2 * 9 * given["TAPS_Y"] * out.numel()
            cost.exponentials = 0 if activated is None else activated.numel()
        elif name.startswith("max_pool"):
            cost.float_flop = 2 * tensors[0].numel()
        elif name == "through_selection":
            elements = given["rows"] * given["channels"]
            flop = 2 * elements * given["columns"]
            half = given["grad_selected_ptr"].dtype in (torch.float16, torch.bfloat16)
            cost.product_flop, cost.float_flop = (flop, 0) if half else (0, flop)
            cost.float_flop += 8 * elements
            cost.exponentials = elements
        elif name == "carry":
            cost.exponentials = given["local_ptr"].numel()
        elif "rows" in given and "weight_ptr" in given:  # norms
            elements = given["rows"] * given["channels"]
            cost.float_flop = 30 * elements
            cost.exponentials = elements if given.get("gate_ptr") is not None else 0
        else:
            self._scan(cost, name, grid, given)
        self.by_kernel[f"{TRITON}{name}"].add(cost)

    @staticmethod
    def _scan(cost: Cost, name: str, grid: tuple[int, ...], given: dict) -> None:
        """One exponential for each token, channel and state and each time that it passes; two for a softplus."""
        tokens = min(grid[0] * given["CHUNK"], given["delta_ptr"].shape[0] * given["length"])
        updates = tokens * given["channels"] * given["states"]
        # The states before the spans in between are computed once more.
        again = (given["KEPT"] - 1) / 2 if name == "backward_chunks" else 0
        passes, operations = {
            "scan_chunks": (1, 6),
            "gradients_through_chunks": (1, 6),
            "backward_chunks": (2 + again, 22 + 4 * again),
        }[name]
        steps = passes * tokens * given["channels"]
        cost.exponentials = passes * updates + (2 * steps if given["SOFTPLUS"] else 0)
        cost.float_flop = operations * updates + 4 * given["RANK"] * steps
        if name == "backward_chunks":
            # A launch works on its chunks of the tensors; its work space is written and read.
            share = grid[0] / prod(given["starts_ptr"].shape[:2])
            work = size_of(given["states_ptr"])
            cost.bytes = share * (cost.bytes - work) + 2 * work
        elif given.get("y_ptr") is None and name == "scan_chunks":
            cost.float_flop -= 2 * updates


def _changed(func: OpOverload, args: tuple, kwargs: dict) -> list[Tensor]:
    """The arguments that an operator writes to."""
    named = dict(zip((a.name for a in func._schema.arguments), args, strict=False)) | kwargs
    written = [named.get(a.name) for a in func._schema.arguments if a.alias_info is not None and a.alias_info.is_write]
    return [t for t in tree_leaves(written) if isinstance(t, Tensor)]


def size_of(tensor: Tensor) -> int:
    """Bytes in memory: an expanded tensor has fewer than its elements suggest."""
    return min(tensor.numel() * tensor.element_size(), tensor.untyped_storage().nbytes())


def cost_of_step(workload: Workload, autocast: torch.dtype | None = torch.float16) -> dict[str, Cost]:
    """The cost of a training step, by kernel."""
    with _counting() as costs:
        step = Step(workload)
        for group in step.optimizer.param_groups:
            group["foreach"] = True
        step.run(autocast)
        costs.by_kernel.clear()
        with costs:
            step.run(autocast)
    return dict(costs.by_kernel)


def cost_of_prediction(workload: Workload, autocast: torch.dtype | None = torch.float16) -> dict[str, Cost]:
    """The cost of a prediction, by kernel: the logits of full resolution, without gradients."""
    with _counting() as costs:
        step = Step(workload)
        with costs:
            step.predict(autocast)
    return dict(costs.by_kernel)


@contextmanager
def _counting() -> Iterator[Costs]:
    """Fake tensors on what passes for a GPU. They are a CPU's, where PyTorch clips and steps tensor by tensor; on a GPU
    it takes many at a time."""
    costs = Costs()
    many_at_a_time = mock.patch("torch.nn.utils.clip_grad._has_foreach_support", lambda *_: True)
    with FakeTensorMode(), cuda_rules(), as_on_a_gpu(triton_gpu.NAME, costs.launched), many_at_a_time:
        yield costs
