"""The sections of a report: conditions, costs, incomplete runs, time to accuracy, machine."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from ...escaping import escape_markdown
from ...evaluation.tables import format_markdown
from ..results import ITERATIONS, BenchmarkResults, Run
from .contenders import Contender
from .curves import Curve, reached_levels
from .markdown import MISSING, amount

_FAILURE_CHARACTERS = 500


def conditions(results: BenchmarkResults, contenders: Sequence[Contender]) -> str:
    """The settings of the comparison, and what was equal."""
    if results.equal == ITERATIONS:
        budget = escape_markdown(results.budget)
        equal = f"Equal **iterations**: every trainer had the budget {budget}, whatever time it takes."
    else:
        equal = (
            f"Equal **seconds**: every trainer had as many iterations as fit into {float(results.budget):,.0f} s at "
            "its calibrated seconds per iteration, so its learning-rate schedule is complete, and other work on the "
            "machine has no influence."
        )
    facts = {
        "data set": results.dataset,
        "configuration, plans": f"{results.configuration}, {results.plans}",
        "patch": " x ".join(map(str, results.patch_size)),
        "batch": results.batch_size,
        "spacing, mm": " x ".join(f"{spacing:g}" for spacing in results.spacing_mm),
        "scored on": f"{results.scored_on} cases",
        "folds": ", ".join(map(str, sorted({run.fold for run in results.runs}))) or MISSING,
        "seeds": ", ".join(map(str, sorted({run.seed for run in results.runs}))) or MISSING,
    }
    for contender in contenders if results.equal != ITERATIONS else ():
        counts = sorted({run.iterations_per_epoch * _num_epochs(run) for run in contender.runs if run.complete})
        if counts:
            facts[f"iterations of {contender.name}"] = " or ".join(f"{count:,}" for count in counts)
    names = "A method is a trainer, named without `nnUNetTrainer` in front; `nnUNetTrainer` itself is stock nnU-Net."
    return f"{equal} Plans, patch, batch and split were the same for all. {names}\n\n{_listed(facts)}"


def incomplete_runs(contenders: Sequence[Contender]) -> str:
    """Lists every run that does not count; empty if all do."""
    remaining = [run for contender in contenders for run in contender.runs if run not in contender.scored]
    lines = [line for run in remaining if run.epochs or run.failure for line in _state(run)]
    waiting = [
        f"{escape_markdown(run.name)}, fold {run.fold}" for run in remaining if not run.epochs and not run.failure
    ]
    if waiting:
        lines.append(f"- no finished epoch: {'; '.join(waiting)}")
    if not lines:
        return ""
    return "**Not complete**, and in no score:\n\n" + "\n".join(lines)


def cost_table(results: BenchmarkResults, contenders: Sequence[Contender]) -> str:
    """Seconds and memory of each method."""
    rows = [
        [
            "method",
            "training iteration, s",
            "validation iteration, s",
            "forward, s",
            "forward, MiB",
            "step, s",
            "step, MiB",
            "recorded training, s",
        ]
    ]
    for contender in contenders:
        calibrated = results.calibration.get(contender.trainer, {})
        costs = results.complexity.get(contender.trainer, {})
        recorded = [
            sum(record.seconds for record in run.epochs) for run in contender.runs if run.complete and run.epochs
        ]
        rows.append(
            [
                escape_markdown(contender.name),
                amount(calibrated.get("train_seconds")),
                amount(calibrated.get("validation_seconds")),
                amount(costs.get("forward_seconds")),
                amount(costs.get("forward_mib"), ",.0f"),
                amount(costs.get("step_seconds")),
                amount(costs.get("step_mib"), ",.0f"),
                amount(sum(recorded) / len(recorded) if recorded else None, ",.0f"),
            ]
        )
    return (
        format_markdown(rows)
        + "\n\nIterations: medians, calibrated on real batches before the runs; trainers measured by the same call "
        "took turns, others may have been measured at another time. Forward and step: one trainer after the other, on "
        "one patch of random numbers; memory is the peak on top of what network and optimizer hold. Recorded: all "
        "epochs as they ran, including whatever else the machine did; mean of the complete runs."
    )


def time_to_accuracy_table(curves: Mapping[str, Curve]) -> str:
    """Seconds that each method needs to reach round values of the pseudo Dice."""
    levels = reached_levels(curves)
    if not levels:
        return "No method reaches a pseudo Dice of 0.1."
    rows = [["method", *(f"{level:g}" for level in levels), "highest"]]
    for name, curve in curves.items():
        reached = [curve.seconds_to_reach(level) for level in levels]
        cells = ["not reached" if seconds is None else f"{seconds:,.0f} s" for seconds in reached]
        known = curve.pseudo_dice[~np.isnan(curve.pseudo_dice)]
        mark = "" if curve.calibrated else " (recorded seconds)"
        rows.append([escape_markdown(name) + mark, *cells, f"{known.max():.3f}" if known.size else MISSING])
    return format_markdown(rows)


def machine(results: BenchmarkResults) -> str:
    """The machine, as the results describe it."""
    return _listed(dict(_flat(results.machine))) or "The results do not name the machine."


def _state(run: Run) -> list[str]:
    """The state of a run that does not count."""
    state = f"{_num_epochs(run)} epochs trained" if run.epochs else "no finished epoch"
    if run.complete:
        state += ", complete but not evaluated"
    lines = [f"- {escape_markdown(run.name)}, fold {run.fold}: {state}"]
    if run.failure:
        lines.append(f"  - failed; its log ends: {escape_markdown(run.failure[-_FAILURE_CHARACTERS:])}")
    return lines


def _listed(facts: Mapping[str, object]) -> str:
    """A list: unlike a table it wraps on a phone."""
    return "\n".join(f"- {escape_markdown(name)}: {escape_markdown(value)}" for name, value in facts.items())


def _flat(content: Mapping[str, object], above: str = "") -> list[tuple[str, object]]:
    rows = []
    for key, value in content.items():
        name = f"{above}{key}"
        rows += _flat(value, f"{name}, ") if isinstance(value, Mapping) else [(name, value)]
    return rows


def _num_epochs(run: Run) -> int:
    return run.epochs[-1].epoch + 1 if run.epochs else 0
