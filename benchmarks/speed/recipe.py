"""What Muon costs: its step's share of LightMUNet's training step, and that training step against nnU-Net's network.

    python -m benchmarks.speed.recipe
    python -m benchmarks.speed.recipe --quick --out quick

Writes recipe.json. The other benchmarks give both networks nnU-Net's SGD, so that the networks alone differ. What an
optimizer takes does not depend on the patch: its share is largest on small ones, such as those of docs/study.
"""

from __future__ import annotations

import sys
from functools import partial

import torch

from nnunetv2_lightm.measure.timing import alternate
from nnunetv2_lightm.trainers.recipes import LIGHTM_UNET_MUON

from .harness.models import LAYOUTS, light_m_unet, nnunet_name, nnunet_unet, ours_name, sample, training_step
from .harness.results import SHARE, Result, Row, argument_parser, parse
from .harness.timing import Effort, fastest

# Patch and batch; the last two are the study's, too small for the stages that nnU-Net's network has here.
SIZES = {"3d_64": ((64, 64, 64), 1), "2d_512": ((512, 512), 1), "3d_40": ((40, 56, 40), 2), "2d_128": ((128, 128), 4)}
QUICK_SIZES = {"3d_64": ((64, 32, 32), 1), "2d_512": ((256, 128), 1), "2d_128": ((16, 24), 2)}
COMPARED = ("3d_64", "2d_512")
LEARNING_RATE = 1e-5  # as low as the other benchmarks': the weights stay those at the start of a training


def main(argv: list[str] | None = None) -> int:
    arguments, effort = parse(argument_parser(__doc__), argv)
    result = Result("recipe", effort, torch.get_num_threads())
    for size, (patch, batch) in (QUICK_SIZES if effort.quick else SIZES).items():
        add_rows(result, size, patch, batch, effort)
    result.write(arguments.out)
    return 0


def add_rows(result: Result, size: str, patch: tuple[int, ...], batch: int, effort: Effort) -> None:
    """The optimizer's step against the whole one and, if compared, the whole one against nnU-Net's; all take turns."""
    dims = len(patch)
    network = light_m_unet(dims)
    optimizer, _ = LIGHTM_UNET_MUON.optimizer_for(network, 1, LEARNING_RATE, LIGHTM_UNET_MUON.weight_decay)
    runs = {"step": partial(training_step(network, optimizer), *sample(patch, batch=batch)), "update": optimizer.step}
    runs["step"]()  # makes the gradients for the first update
    if size in COMPARED:
        rivals = {
            layout: partial(training_step(nnunet_unet(dims, layout)), *sample(patch, layout, batch))
            for layout in LAYOUTS
        }
        layout = fastest(rivals)
        runs["nnU-Net"] = rivals[layout]
    times = alternate(runs, effort)
    work = f"network training step, {'x'.join(map(str, patch))}, batch {batch}"
    row = partial(Row, ours_name=ours_name(network), threads=result.threads)
    share = row(f"recipe_{size}", f"optimizer's part of a {work}", baseline_name="the whole step", kind=SHARE)
    result.add(share.measured(times["update"], times["step"]))
    if size in COMPARED:
        own = row(f"training_own_{size}", f"{work}, each with its own recipe", baseline_name=nnunet_name(layout))
        result.add(own.measured(times["step"], times["nnU-Net"]))


if __name__ == "__main__":
    sys.exit(main())
