"""LightMUNet beside nnU-Net's PlainConvUNet: forward pass and training step, in 3D and 2D.

    python benchmarks/networks.py
    python benchmarks/networks.py --quick --out quick

Writes networks.json. Batch 1, 1 channel, 3 classes, float32; both without deep supervision, with the same loss and
optimizer. nnU-Net's network runs in the memory layout in which it is faster here, ours chooses its own.
"""

from __future__ import annotations

import sys
from dataclasses import replace

import torch
from harness.models import on_threads
from harness.pairs import make_pair
from harness.results import SHARE, Result, argument_parser, parse

from nnunetv2_lightm.study.timing import alternate


def main(argv: list[str] | None = None) -> int:
    arguments, effort = parse(argument_parser(__doc__), argv)
    result = Result("networks", effort, torch.get_num_threads())
    forward_3d(result)
    for work, size in (("forward", "2d_512"), ("training", "3d_64"), ("training", "2d_512")):
        pair = make_pair(work, size, effort, result.threads)
        times = alternate({"ours": pair.ours, "nnU-Net": pair.nnunet}, effort)
        result.add(pair.row.measured(times["ours"], times["nnU-Net"]))
    for threads in sorted({1, 2} - {result.threads}):
        forward_on_threads(result, threads)
    result.write(arguments.out)
    return 0


def forward_3d(result: Result) -> None:
    """Both patch sizes take turns with one another, so that the growth of the cost is measured in the same minutes."""
    small, large = (make_pair("forward", size, result.effort, result.threads) for size in ("3d_64", "3d_128"))
    candidates = {
        **{"our small": small.ours, "small": small.nnunet},
        **{"our large": large.ours, "large": large.nnunet},
    }
    times = alternate(candidates, replace(result.effort, turn_seconds=4 * result.effort.turn_seconds))
    result.add(small.row.measured(times["our small"], times["small"]))
    result.add(large.row.measured(times["our large"], times["large"]))
    patches = [pair.row.work.rpartition(" ")[2] for pair in (small, large)]
    growth = replace(
        large.row,
        name="growth_3d",
        work=f"network forward, {patches[0]} -> {patches[1]}",
        beside_name=f"itself at {patches[0]}",
        kind=SHARE,
    )
    result.add(growth.measured(times["our large"], times["our small"]))


def forward_on_threads(result: Result, threads: int) -> None:
    """The smaller patch with another number of threads."""
    pair = make_pair("forward", "3d_64", result.effort, threads)
    ours, nnunet = (run and on_threads(run, threads) for run in (pair.ours, pair.nnunet))
    times = alternate({"ours": ours, "nnU-Net": nnunet}, result.effort)
    row = replace(pair.row, name=f"{pair.row.name}_threads_{threads}", work=f"{pair.row.work}, threads: {threads}")
    result.add(row.measured(times["ours"], times["nnU-Net"]))


if __name__ == "__main__":
    sys.exit(main())
