"""Transient memory of LightMUNet and nnU-Net's PlainConvUNet: peak RSS minus RSS before.

    python -m benchmarks.speed.transient_memory
    python -m benchmarks.speed.transient_memory --quick --out quick

Writes transient_memory.json. Each measurement is a process of its own: it builds the network, warms up on a small
image (which loads libraries and, in training, creates the optimizer's state), returns freed memory, resets the kernel's
record of the peak and then does the work once. nnU-Net's network is measured in both memory layouts; the lower one
counts. Needs Linux (/proc/self/clear_refs).
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from dataclasses import replace
from functools import partial

import torch

from nnunetv2_lightm.measure.peak_rss import not_measurable_reason, transient_mib
from nnunetv2_lightm.measure.timing import Spread

from .harness.machine import ROOT
from .harness.models import CONTIGUOUS, LAYOUTS, NNUNET, OURS, build, light_m_unet, nnunet_name, ours_name, sample
from .harness.pairs import WORKS, check, describe, patch_of
from .harness.results import SHARE, Result, Row, argument_parser, parse
from .harness.timing import Effort

CASES = (
    ("forward", "3d_64"),
    ("forward", "3d_128"),
    ("forward", "2d_512"),
    ("training", "3d_64"),
    ("training", "2d_512"),
)
REPETITIONS = 3
WARM_UP_PATCHES = {2: (256, 128), 3: (64, 32, 32)}


def main(argv: list[str] | None = None) -> int:
    parser = argument_parser(__doc__)
    parser.add_argument("--measure", help=argparse.SUPPRESS)
    arguments, effort = parse(parser, argv)
    if arguments.measure:
        print(measure_here(**json.loads(arguments.measure)))
        return 0
    result = Result("transient_memory", effort, torch.get_num_threads())
    for work, size in CASES:
        result.add(memory_row(work, size, effort, result.threads))
    result.write(arguments.out)
    return 0


def memory_row(work: str, size: str, effort: Effort, threads: int, rival: str = NNUNET) -> Row:
    """The row of a work of both networks, measured if it can be; arguments: as for ``make_pair``."""
    patch = patch_of(size, effort)
    failure = check(len(patch)) or not_measurable_reason()
    row = Row(
        f"memory_{work}_{size}",
        f"transient memory, {describe(work)}, {'x'.join(map(str, patch))}",
        ours_name(light_m_unet(len(patch))),
        nnunet_name("the lower of both layouts", rival),
        unit="MiB",
        kind=SHARE,
        threads=threads,
        not_measured=failure,
    )
    return row if failure else compare(row, work, patch, 1 if effort.quick else REPETITIONS, rival)


def compare(row: Row, work: str, patch: tuple[int, ...], repetitions: int, rival: str) -> Row:
    """Ours and nnU-Net's network in turns, a process for each run."""
    first = {layout: measure_in_new_process(rival, work, patch, layout) for layout in LAYOUTS}
    layout = min(first, key=first.__getitem__)
    ours, baseline = [measure_in_new_process(OURS, work, patch, CONTIGUOUS)], [first[layout]]
    for _ in range(repetitions - 1):
        baseline.append(measure_in_new_process(rival, work, patch, layout))
        ours.append(measure_in_new_process(OURS, work, patch, CONTIGUOUS))
    return replace(row, baseline_name=nnunet_name(layout, rival)).measured(Spread.of(ours), Spread.of(baseline))


def measure_in_new_process(which: str, work: str, patch: tuple[int, ...], layout: str) -> float:
    """MiB, measured in a new process."""
    request = json.dumps({"which": which, "work": work, "patch": patch, "layout": layout})
    command = [sys.executable, "-m", f"{__package__}.transient_memory", "--measure", request]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{request} ended with exit code {done.returncode}:\n{done.stderr}")
    return float(done.stdout.split()[-1])


def measure_here(which: str, work: str, patch: list[int], layout: str) -> float:
    """MiB of one run in this process."""
    run = WORKS[work](build(which, len(patch), layout))
    run(*sample(WARM_UP_PATCHES[len(patch)], layout))
    return transient_mib(partial(run, *sample(patch, layout)))


if __name__ == "__main__":
    sys.exit(main())
