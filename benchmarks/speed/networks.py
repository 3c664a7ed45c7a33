"""LightMUNet compared with nnU-Net's PlainConvUNet: forward pass and training step, in 3D and 2D.

    python -m benchmarks.speed.networks
    python -m benchmarks.speed.networks --quick --out quick

Writes networks.json. Batch 1, 1 channel, 3 classes, float32; both without deep supervision, with the same loss and
optimizer. nnU-Net's network runs in the memory layout in which it is faster here, ours chooses its own.
"""

from __future__ import annotations

import sys
from dataclasses import replace

import torch

from nnunetv2_lightm.measure.timing import alternate

from .harness.models import on_threads
from .harness.pairs import make_pair
from .harness.results import SHARE, Result, argument_parser, parse

ROWS = (
    ("forward", "3d_64"),
    ("forward", "3d_128"),
    ("forward", "2d_512"),
    ("training", "3d_64"),
    ("training", "2d_512"),
)


def main(argv: list[str] | None = None) -> int:
    arguments, effort = parse(argument_parser(__doc__), argv)
    result = Result("networks", effort, torch.get_num_threads())
    rows_in_turns(result)
    for threads in sorted({1, 2} - {result.threads}):
        forward_on_threads(result, threads)
    result.write(arguments.out)
    return 0


def rows_in_turns(result: Result) -> None:
    """Interleave all rows, so that each is sampled over the whole run: on a shared machine some minutes are slower than
    others, and one network may suffer from that more than another."""
    pairs = [make_pair(work, size, result.effort, result.threads) for work, size in ROWS]
    candidates = {}
    for pair in pairs:
        candidates |= {f"{pair.row.name}, ours": pair.ours, f"{pair.row.name}, nnU-Net": pair.nnunet}
    effort = replace(result.effort, seconds=12 * result.effort.seconds, turn_seconds=4 * result.effort.turn_seconds)
    times = alternate(candidates, effort)
    for pair in pairs:
        result.add(pair.row.measured(times[f"{pair.row.name}, ours"], times[f"{pair.row.name}, nnU-Net"]))
    small, large = pairs[:2]
    patches = [pair.row.work.rpartition(" ")[2] for pair in (small, large)]
    growth = replace(
        large.row,
        name="growth_3d",
        work=f"network forward, {patches[0]} -> {patches[1]}",
        baseline_name=f"itself at {patches[0]}",
        kind=SHARE,
    )
    result.add(growth.measured(times[f"{large.row.name}, ours"], times[f"{small.row.name}, ours"]))


def forward_on_threads(result: Result, threads: int) -> None:
    """The smaller patch on another number of threads."""
    pair = make_pair("forward", "3d_64", result.effort, threads)
    ours, nnunet = (run and on_threads(run, threads) for run in (pair.ours, pair.nnunet))
    times = alternate({"ours": ours, "nnU-Net": nnunet}, result.effort)
    row = replace(pair.row, name=f"{pair.row.name}_threads_{threads}", work=f"{pair.row.work}, threads: {threads}")
    result.add(row.measured(times["ours"], times["nnU-Net"]))


if __name__ == "__main__":
    sys.exit(main())
