"""LightMUNet compared with the network of nnU-Net's ResEnc M preset: time and memory.

    python -m benchmarks.speed.resenc
    python -m benchmarks.speed.resenc --quick --out quick

Writes resenc.json. As networks.py and transient_memory.py do with nnU-Net's default network: batch 1, 1 channel,
3 classes, float32, the same loss and optimizer, the faster memory layout or the one that takes less.
"""

from __future__ import annotations

import sys
from dataclasses import replace

import torch

from nnunetv2_lightm.measure.timing import alternate

from .harness.models import RESENC
from .harness.pairs import WORKS, make_pair
from .harness.results import Result, argument_parser, parse
from .transient_memory import memory_row

SIZES = ("3d_64", "2d_512")


def main(argv: list[str] | None = None) -> int:
    arguments, effort = parse(argument_parser(__doc__), argv)
    result = Result("resenc", effort, torch.get_num_threads())
    pairs = [make_pair(work, size, effort, result.threads, RESENC) for work in WORKS for size in SIZES]
    candidates = {}
    for pair in pairs:
        candidates |= {(pair.row.name, "ours"): pair.ours, (pair.row.name, "nnU-Net"): pair.nnunet}
    seconds = {"seconds": 6 * effort.seconds, "turn_seconds": 4 * effort.turn_seconds}
    times = alternate(candidates, replace(effort, **seconds))
    rows = [pair.row.measured(times[pair.row.name, "ours"], times[pair.row.name, "nnU-Net"]) for pair in pairs]
    rows += [memory_row(work, size, effort, result.threads, RESENC) for work in WORKS for size in SIZES]
    for row in rows:
        result.add(replace(row, name=f"resenc_{row.name}"))
    result.write(arguments.out)
    return 0


if __name__ == "__main__":
    sys.exit(main())
