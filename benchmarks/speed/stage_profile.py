"""Where LightMUNet's time goes: stage by stage and operator by operator, next to this machine's peak rates.

    python -m benchmarks.speed.stage_profile
    python -m benchmarks.speed.stage_profile --quick --out quick

Writes profile.json. GFLOP counts the linear layers and convolutions, not the scan; the scan's state updates (one for
each token, channel and state, with an exp each) have a column of their own. GB counts the inputs and outputs of a stage
once: the least that must be moved.
"""

from __future__ import annotations

import sys
import time
from dataclasses import replace
from functools import partial

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from nnunetv2_lightm.measure.timing import Spread, alternate

from .harness.models import (
    CONTIGUOUS,
    forward_pass,
    light_m_unet,
    make_loss,
    make_optimizer,
    nnunet_unet,
    ours_name,
    sample,
    training_step,
    update,
)
from .harness.pairs import check, make_pair, patch_of
from .harness.peaks import measure_peaks
from .harness.results import Result, argument_parser, parse
from .harness.stages import Stage, StageClock, recording, stages_of, torch_operators
from .harness.timing import Effort

SIZES = ("3d_64", "2d_512")
RUNS, QUICK_RUNS = 9, 2


def main(argv: list[str] | None = None) -> int:
    arguments, effort = parse(argument_parser(__doc__), argv)
    result = Result("profile", effort, torch.get_num_threads())
    peaks = measure_peaks(effort)
    result.facts["peaks"] = {name: vars(spread) for name, spread in peaks.items()}
    print("  peaks:", ", ".join(f"{name} {spread.median:.3g}" for name, spread in peaks.items()), flush=True)
    for size in SIZES:
        patch = patch_of(size, effort)
        failure = check(len(patch))
        if failure:
            print(f"  not measured: {failure}", flush=True)
            continue
        result.facts["ours"] = ours_name(light_m_unet(len(patch)))
        at = "x".join(map(str, patch))
        tables = {
            f"Forward, {at}: whole networks": whole_networks(size, effort, result.threads),
            f"Forward, {at}: stages of LightMUNet": forward_stages(patch, effort),
            f"Forward, {at}: operators of LightMUNet": operators(forward_pass(light_m_unet(len(patch))), patch),
            f"Training step, {at}: stages of LightMUNet": training_stages(patch, effort),
            f"Training step, {at}: operators of LightMUNet": operators(training_step(light_m_unet(len(patch))), patch),
        }
        result.tables |= tables
        print(f"  {at}: {len(tables)} tables", flush=True)
    result.write(arguments.out)
    return 0


def whole_networks(size: str, effort: Effort, threads: int) -> list[dict]:
    pair = make_pair("forward", size, effort, threads)
    patch = patch_of(size, effort)
    few = effort if effort.quick else replace(effort, seconds=10, least_rounds=3)
    times = alternate({"ours": pair.ours, "nnU-Net": pair.nnunet}, few)
    ours = sum(stage.gflop for stage in stages_of(light_m_unet(len(patch)), patch))
    return [
        whole_network(pair.row.ours_name, times["ours"], ours),
        whole_network(
            pair.row.baseline_name, times["nnU-Net"], gflop_by_torch(nnunet_unet(len(patch), CONTIGUOUS), patch)
        ),
    ]


def whole_network(name: str, seconds: Spread, gflop: float) -> dict:
    return {"network": name, "ms": seconds.median * 1e3, "GFLOP": gflop, "GFLOP/s": gflop / seconds.median}


def gflop_by_torch(network: nn.Module, patch: tuple[int, ...]) -> float:
    """PyTorch's own count: convolutions and matrix products."""
    with FlopCounterMode(display=False) as counter:
        forward_pass(network)(*sample(patch))
    return counter.get_total_flops() / 1e9


def forward_stages(patch: tuple[int, ...], effort: Effort) -> list[dict]:
    network = light_m_unet(len(patch))
    stages, run = stages_of(network, patch), partial(forward_pass(network), *sample(patch))
    clocks, totals = [], []
    for _ in range(1 + runs(effort)):
        with recording(stages) as clock:
            begin = time.perf_counter()
            run()
            totals.append(time.perf_counter() - begin)
        clocks.append(clock)
    clocks, totals = clocks[1:], totals[1:]
    total = Spread.of(totals).median
    rows = [forward_stage(stage, clocks, total) for stage in stages]
    rest = Spread.of([t - sum(c.forward.values()) for c, t in zip(clocks, totals)])
    return [*rows, {"stage": "between the stages", "ms": rest.median * 1e3, "share": rest.median / total}]


def forward_stage(stage: Stage, clocks: list[StageClock], total: float) -> dict:
    seconds = Spread.of([clock.forward[stage.name] for clock in clocks])
    gbytes = clocks[0].bytes_moved[stage.name] / 1e9
    return {
        "stage": stage.name,
        "ms": seconds.median * 1e3,
        "ms, quartiles": f"{seconds.q1 * 1e3:.3g} - {seconds.q3 * 1e3:.3g}",
        "share": seconds.median / total,
        "GFLOP": stage.gflop,
        "GFLOP/s": stage.gflop / seconds.median,
        "G state updates": stage.scan_gupdates,
        "G updates/s": stage.scan_gupdates / seconds.median,
        "GB": gbytes,
        "GB/s": gbytes / seconds.median,
    }


def training_stages(patch: tuple[int, ...], effort: Effort) -> list[dict]:
    """Forward and backward of each stage, and what is around them.

    In the backward pass the upsampling between two stages counts with the first of them.
    """
    network = light_m_unet(len(patch)).train()
    stages, (image, labels) = stages_of(network, patch), sample(patch)
    loss, optimizer = make_loss(), make_optimizer(network)
    steps = [profiled_step(network, stages, loss, optimizer, image, labels) for _ in range(1 + runs(effort))][1:]
    total = Spread.of([sum(sum(parts.values()) for parts in step.values()) for step in steps]).median
    table = []
    for name in steps[0]:
        medians = {part: Spread.of([step[name][part] for step in steps]).median for part in steps[0][name]}
        milliseconds = {f"{part}, ms": seconds * 1e3 for part, seconds in medians.items()}
        table.append({"stage": name, **milliseconds, "share": sum(medians.values()) / total})
    return table


def profiled_step(network, stages, loss, optimizer, image, labels) -> dict[str, dict[str, float]]:
    """Seconds by stage, then by "forward" and "backward"."""
    optimizer.zero_grad(set_to_none=True)
    with recording(stages) as clock:
        begin = time.perf_counter()
        logits = network(image)
        after_forward = time.perf_counter()
        value = loss(logits, labels)
        after_loss = time.perf_counter()
        value.backward()
        after_backward = time.perf_counter()
    update(network, optimizer)
    end = time.perf_counter()
    backward = clock.backward(stages, after_backward)
    between = after_forward - begin - sum(clock.forward.values())
    return {
        **{s.name: {"forward": clock.forward[s.name], "backward": backward[s.name]} for s in stages},
        "between the stages": {"forward": between, "backward": 0.0},
        "loss": {
            "forward": after_loss - after_forward,
            "backward": clock.gradient_at[stages[-1].name] - after_loss,
        },
        "clipping and optimizer": {"forward": 0.0, "backward": end - after_backward},
    }


def operators(run, patch: tuple[int, ...]) -> list[dict]:
    inputs = sample(patch)
    run(*inputs)
    return torch_operators(partial(run, *inputs))


def runs(effort: Effort) -> int:
    return QUICK_RUNS if effort.quick else RUNS


if __name__ == "__main__":
    sys.exit(main())
