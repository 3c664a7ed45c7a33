"""Least time of a training step on a GPU, for our network and nnU-Net's: predicted, kernel by kernel, not measured.

    python -m benchmarks.speed.gpu_model
    python -m benchmarks.speed.gpu_model --patch 96 160 160 --batch 2 --card RTX4090 --out elsewhere

Writes gpu_model.json. harness/step_cost.py says what is counted and how it becomes milliseconds; `gpu.py` measures on a
GPU, with these predictions next to its figures.
"""

from __future__ import annotations

import sys

import torch

from .gpu_memory import workload_of
from .harness.models import NNUNET, OURS
from .harness.results import RESULTS, Result, argument_parser, parse
from .harness.step_cost import CARDS, Card, Cost, cost_of_step, host_ms, total_ms

NAMES = {OURS: "LightMUNet", NNUNET: "PlainConvUNet"}
# Kernels listed by name; the others are summed.
LISTED = 14


def main(argv: list[str] | None = None) -> int:
    parser = argument_parser(__doc__)
    parser.add_argument("--patch", type=int, nargs="+", default=[128, 128, 128])
    parser.add_argument("--batch", type=int, default=2)
    parser.add_argument(
        "--card", choices=list(CARDS), default="H100", help="whose kernels are listed (default: %(default)s)"
    )
    arguments, effort = parse(parser, argv)
    if arguments.out.resolve() == RESULTS and (arguments.patch, arguments.batch) != ([128, 128, 128], 2):
        parser.error("the published table is of 128x128x128, batch 2: name another folder with --out")
    patch, card = tuple([64] * 3 if effort.quick else arguments.patch), CARDS[arguments.card]
    work = f"{'x'.join(map(str, patch))}, batch {arguments.batch}, float16"
    result = Result("gpu_model", effort, torch.get_num_threads())
    costs = {which: cost_of_step(workload_of(which, patch, arguments.batch)) for which in (OURS, NNUNET)}
    result.tables[f"Training step on a GPU, {work}: predicted"] = [totals(costs, card) for card in CARDS.values()]
    for which, by_kernel in costs.items():
        result.tables[f"{NAMES[which]} on a {card.name}, {work}: predicted"] = kernels(by_kernel, card)
    for title, records in result.tables.items():
        print(title, *records, sep="\n  ", flush=True)
    result.write(arguments.out)
    return 0


def totals(costs: dict[str, dict[str, Cost]], card: Card) -> dict:
    """Milliseconds of both networks on a card, and their ratio."""
    ms = {which: total_ms(kernels, card) for which, kernels in costs.items()}
    host = {which: host_ms(kernels) for which, kernels in costs.items()}
    record = {"card": card.name}
    for which, name in NAMES.items():
        record |= {f"{name}, ms": ms[which], f"{name}, host ms": host[which]}
    return record | {"ratio": max(ms[OURS], host[OURS]) / max(ms[NNUNET], host[NNUNET])}


def kernels(costs: dict[str, Cost], card: Card) -> list[dict]:
    """The slowest kernels first, the others in one row."""
    ordered = sorted(costs, key=lambda name: -costs[name].ms(card))
    rest = Cost()
    for name in ordered[LISTED:]:
        rest.add(costs[name])
    records = [_record(name, costs[name], card) for name in ordered[:LISTED]]
    rest_ms = sum(costs[name].ms(card) for name in ordered[LISTED:])
    return [*records, {**_record(f"{len(ordered[LISTED:])} others", rest, card), "ms": rest_ms, "bound by": None}]


def _record(name: str, cost: Cost, card: Card) -> dict:
    return {
        "kernel": name,
        "GB": cost.bytes / 1e9,
        "GFLOP, products": cost.product_flop / 1e9,
        "GFLOP, float32": cost.float_flop / 1e9,
        "G exponentials": cost.exponentials / 1e9,
        "launches": cost.launches,
        "ms": cost.ms(card),
        "bound by": cost.bound(card),
    }


if __name__ == "__main__":
    sys.exit(main())
