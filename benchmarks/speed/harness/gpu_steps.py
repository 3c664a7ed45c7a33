"""The steps of the check on a GPU; each yields records for a table, or raises."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch

from nnunetv2_lightm.ops import backend_table

from .gpu_setting import Record, Setting


@dataclass(frozen=True)
class Step:
    """A step, and the most seconds that it may take.

    Attributes:
        module: Where its function is, which has its name. Imported in the step's process: what is missing there, such
            as nnunetv2, costs that step alone.
        seconds: Its limit.
        concurrent: Runs at the same time as its concurrent neighbours; no times are measured then.
        later: Begins only if all of its seconds are left, unless it is asked for.
    """

    module: str
    seconds: int
    concurrent: bool = False
    later: bool = False

    def function(self, name: str) -> Callable[[Setting], Iterator[Record]]:
        return getattr(importlib.import_module(f".{self.module}", __package__), name)


STEPS = {
    "versions": Step("gpu_steps", 20),
    "compile_ahead": Step("gpu_compile", 120, concurrent=True),
    "tests": Step("gpu_correctness", 120, concurrent=True),
    "memcheck": Step("gpu_correctness", 110, concurrent=True),
    "predicted": Step("gpu_predictions", 110, concurrent=True),
    "training": Step("gpu_turns", 70),
    "compiled_training": Step("gpu_turns", 75),
    "inference": Step("gpu_turns", 25),
    "long_scan": Step("gpu_correctness", 20),
    "top_kernels": Step("gpu_timings", 25, later=True),
    "depthwise": Step("gpu_timings", 25, later=True),
    "scans": Step("gpu_timings", 30, later=True),
    "other_training": Step("gpu_turns", 60, later=True),
    "other_inference": Step("gpu_turns", 30, later=True),
    "resenc": Step("gpu_turns", 50, later=True),
    "compiled_inference": Step("gpu_turns", 60, later=True),
    "initcheck": Step("gpu_correctness", 110, later=True),
}


def versions(setting: Setting) -> Iterator[Record]:
    """The device, how fast a large copy is, and which backends can run."""
    facts: dict[str, object] = {}
    if setting.on_gpu:
        card = torch.cuda.get_device_properties(0)
        facts |= {"card": card.name, "compute capability": f"{card.major}.{card.minor}"}
        facts |= {"memory, GiB": card.total_memory / 2**30, "multiprocessors": card.multi_processor_count}
    source = torch.empty((1 << 22) if setting.small else (1 << 29), dtype=torch.float16, device=setting.device)
    target = torch.empty_like(source)
    facts["copy, GB/s"] = 2 * source.nbytes / setting.median_ms(lambda: target.copy_(source)) / 1e6
    yield from ({"what": name, "value": value} for name, value in facts.items())
    for status in backend_table((setting.device,)):
        chosen = "taken" if status.selected else status.usable
        yield {"what": f"backend {status.name}", "value": f"{chosen}: {status.reason}"}
