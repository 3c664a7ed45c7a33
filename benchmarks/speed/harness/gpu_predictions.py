"""The check on a GPU: what the cost model predicts for what is measured there."""

from __future__ import annotations

from collections.abc import Iterator

import torch

from .gpu_setting import Record, Setting, SkippedStep, attempt
from .gpu_turns import AS_TRAINED, workload_of
from .models import NNUNET, OURS, RESENC
from .step_cost import CARDS, Card, card_named, cost_of_prediction, cost_of_step, host_ms, total_ms
from .step_count import count_step

GIB = 2**30


def predicted(setting: Setting) -> Iterator[Record]:
    """For each plan and network: time of an uncompiled step and of a prediction on this card, and the step's peak."""
    card = card_named(torch.cuda.get_device_name(0)) if setting.on_gpu else CARDS["H200"]
    if card is None:
        raise SkippedStep(f"the cost model has no {torch.cuda.get_device_name(0)}, only {', '.join(CARDS)}")
    for plan in setting.plans:
        for name in (OURS, NNUNET, AS_TRAINED, *([RESENC] if plan == setting.plans[0] else [])):
            yield attempt({"work": str(plan), "network": name}, lambda plan=plan, name=name: _of(plan, name, card))


def _of(plan: object, name: str, card: Card) -> Record:
    workload = workload_of(plan, name)
    found: Record = {"training, ms": _ms(cost_of_step(workload), card)}
    if name != AS_TRAINED:
        found["inference, ms"] = _ms(cost_of_prediction(workload_of(plan, name, batch=1)), card)
    counted = count_step(workload)
    # Weights and the optimizer's momentum; Muon's recipe has a second moment for the rest, which is little.
    return found | {"peak, GiB": (counted.peak + 2 * counted.weights) / GIB}


def _ms(costs: dict, card: Card) -> float:
    """Whichever of card and host takes longer."""
    return max(total_ms(costs, card), host_ms(costs))
