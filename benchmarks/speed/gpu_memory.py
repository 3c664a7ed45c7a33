"""Memory of a training step on a GPU, for our network and nnU-Net's: counted on fake tensors, nothing is measured.

    python -m benchmarks.speed.gpu_memory
    python -m benchmarks.speed.gpu_memory --quick --out quick

Writes gpu_memory.json. Both networks train with deep supervision under autocast's float16 (harness/step_count.py says
what is counted and what is not); `gpu.py` measures the same on a GPU.
"""

from __future__ import annotations

import sys

import torch

from nnunetv2_lightm.complexity.nnunet_network import FEATURES

from .harness.models import NNUNET, OURS
from .harness.results import Result, argument_parser, parse
from .harness.step_count import StepBytes, count_step
from .harness.training_step import Workload

# Patch and batch: nnU-Net's usual ones.
PLANS = (((128, 128, 128), 2), ((64, 192, 160), 2), ((512, 512), 12))
QUICK_PLANS = (((64, 64, 64), 2), ((256, 256), 2))
# Ours divided by nnU-Net's: the bound, and the aim beyond it.
GOALS = {"saved": (0.6, 0.4), "peak": (1.0, 0.6)}
GIB = 2**30


def main(argv: list[str] | None = None) -> int:
    arguments, effort = parse(argument_parser(__doc__), argv)
    result = Result("gpu_memory", effort, torch.get_num_threads())
    for patch, batch in QUICK_PLANS if effort.quick else PLANS:
        ours, theirs = (count_step(workload_of(which, patch, batch)) for which in (OURS, NNUNET))
        work = f"{'x'.join(map(str, patch))}, batch {batch}"
        result.tables[f"Training step on a GPU, {work}: counted"] = summary(ours, theirs)
        result.tables[f"Saved by autograd on a GPU, {work}: counted"] = by_resolution(ours, theirs, patch, batch)
        for record in result.tables[f"Training step on a GPU, {work}: counted"]:
            print(f"  {work}: {record}", flush=True)
    result.write(arguments.out)
    return 0


def workload_of(which: str, patch: tuple[int, ...], batch: int) -> Workload:
    """A training step of one of the two networks; both halve every axis between resolutions."""
    resolutions = len(FEATURES[len(patch)]) if which == NNUNET else 4
    return Workload(patch, [(1,) * len(patch), *[(2,) * len(patch)] * (resolutions - 1)], batch, which=which)


def summary(ours: StepBytes, theirs: StepBytes) -> list[dict]:
    """GiB of both, and the ratio next to its goal."""
    records = []
    for name, what in {"saved": "saved by autograd", "peak": "peak without weights and momentum"}.items():
        a, b = getattr(ours, name), getattr(theirs, name)
        most, aim = GOALS[name]
        goal = f"≤ {most:g}x (aim: {aim:g}x)"
        records.append(
            {"GiB": what, "LightMUNet": a / GIB, "PlainConvUNet": b / GIB, "ratio": a / b, "goal": goal}
            | {"met": "yes" if a <= most * b else "no"}
        )
    weights = {"LightMUNet": 2 * ours.weights / GIB, "PlainConvUNet": 2 * theirs.weights / GIB}
    return [*records, {"GiB": "weights and momentum", **weights}]


def by_resolution(ours: StepBytes, theirs: StepBytes, patch: tuple[int, ...], batch: int) -> list[dict]:
    """Bytes per voxel of each resolution, and MiB."""
    full = batch * torch.Size(patch).numel()
    records = []
    for voxels in sorted(ours.saved_by_voxels.keys() | theirs.saved_by_voxels.keys(), reverse=True):
        record = {"resolution": f"1/{round((full / voxels) ** (1 / len(patch)))}"}
        for name, step in {"LightMUNet": ours, "PlainConvUNet": theirs}.items():
            saved = step.saved_by_voxels.get(voxels, 0)
            record |= {f"{name}, bytes per voxel": saved / voxels, f"{name}, MiB": saved / 2**20}
        records.append(record)
    return records


if __name__ == "__main__":
    sys.exit(main())
