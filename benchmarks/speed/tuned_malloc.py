"""LightMUNet compared with nnU-Net's network as in networks.py, both under a malloc that keeps memory in huge pages.

    python -m benchmarks.speed.tuned_malloc
    python -m benchmarks.speed.tuned_malloc --quick --out quick

Writes tuned_malloc.json. By default glibc returns a large tensor's memory as soon as it is freed and then asks the
kernel for it again, page by page: how much time does that cost, and does it favour one network? docs/guides/settings.md
names the variables for training on a CPU. Linux with glibc only. The script restarts itself with the variables set.
"""

from __future__ import annotations

import os
import platform
import sys
from dataclasses import replace

import torch

from nnunetv2_lightm.measure.timing import alternate

from .harness.pairs import make_pair
from .harness.results import Result, argument_parser, parse

# Never mmap a single block, never return memory, grow in steps of 64 MiB, ask for huge pages.
VARIABLES = {
    "MALLOC_MMAP_MAX_": "0",
    "MALLOC_TRIM_THRESHOLD_": str(1 << 40),
    "MALLOC_TOP_PAD_": str(64 << 20),
    "GLIBC_TUNABLES": "glibc.malloc.hugetlb=1",
}


def main(argv: list[str] | None = None) -> int:
    arguments, effort = parse(argument_parser(__doc__), argv)
    if platform.libc_ver()[0] != "glibc":
        print("tuned malloc: not measured, this system's C library is not glibc")
        return 0
    if any(os.environ.get(name) != value for name, value in VARIABLES.items()):
        sys.stdout.flush()
        os.execve(sys.executable, sys.orig_argv, {**os.environ, **VARIABLES})
    result = Result("tuned_malloc", effort, torch.get_num_threads())
    for work, size in (("forward", "3d_64"), ("forward", "2d_512"), ("training", "3d_64"), ("training", "2d_512")):
        pair = make_pair(work, size, effort, result.threads)
        times = alternate({"ours": pair.ours, "nnU-Net": pair.nnunet}, effort)
        row = replace(pair.row, name=f"{pair.row.name}_tuned", work=f"{pair.row.work}, tuned malloc")
        result.add(row.measured(times["ours"], times["nnU-Net"]))
    result.write(arguments.out)
    return 0


if __name__ == "__main__":
    sys.exit(main())
