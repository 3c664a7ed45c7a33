"""Processors and memory, compared with the number of worker processes nnU-Net starts."""

from __future__ import annotations

import os

from ...limits import memory_gib, usable_cpus
from .finding import Finding, fail, note, ok, set_variable, unset_variable

# What nnU-Net takes where the variable is not set.
DEFAULT_AUGMENTATION_WORKERS = 12
DEFAULT_WORKERS = 8
# Peak resident memory of a worker that has imported nnunetv2 and torch 2.14, before it holds any image.
WORKER_GIB = 0.9


def check_machine() -> list[Finding]:
    """Processors this process may use, the two worker variables, and memory."""
    usable, present = usable_cpus(), os.cpu_count() or 1
    findings = [ok("processors", f"{usable} usable" + (f" of {present}" if present != usable else ""))]
    if present > usable:
        findings = [
            note(
                "processors",
                f"{usable} usable of {present}; on the CPU nnU-Net starts {present} threads all the same",
                set_variable("OMP_THREAD_LIMIT", usable),
            )
        ]
    workers = {
        "nnUNet_n_proc_DA": (min(DEFAULT_AUGMENTATION_WORKERS, present), 0, "augmentation"),
        "nnUNet_def_n_proc": (DEFAULT_WORKERS, 1, "preprocessing and export"),
    }
    counts = []
    for variable, (default, least, purpose) in workers.items():
        count, finding = _workers(variable, default, least, purpose, usable)
        findings.append(finding)
        counts.append(count)
    return [*findings, *_check_memory(max(counts))]


def _workers(variable: str, default: int, least: int, purpose: str, usable: int) -> tuple[int, Finding]:
    text = os.environ.get(variable)
    advice = set_variable(variable, max(1, min(default, usable)))
    if text is None:
        count = default
        message = f"not set: {count} worker processes for {purpose}"
    else:
        try:
            count = int(text)
        except ValueError:
            return default, fail(variable, f"{text!r} is not a whole number; nnU-Net cannot start with it", advice)
        if count < least:
            return default, fail(variable, f"{count} is not possible; at least {least} is needed", advice)
        message = f"{count} worker processes for {purpose}"
    if count == 0:
        # torch.set_num_threads(0), in nnunetv2's default_experiment_planner.py, static_estimate_VRAM_usage
        message = "0: augmentation in the training's own process. nnU-Net's planner fails with it"
        return count, note(variable, message, f"{unset_variable(variable)}   # for nnUNetv2_plan_and_preprocess")
    if count > usable:
        return count, note(variable, f"{message}, on {usable} usable processors", advice)
    return count, ok(variable, message)


def _check_memory(workers: int) -> list[Finding]:
    total = memory_gib()
    if total is None:
        return []
    needed = workers * WORKER_GIB
    if total < 2 * needed:
        message = f"{total:.1f} GiB; {workers} worker processes take about {needed:.1f} GiB before they hold an image"
        fewer = max(1, int(total / (2 * WORKER_GIB)))
        remedies = (set_variable(name, fewer) for name in ("nnUNet_n_proc_DA", "nnUNet_def_n_proc"))
        return [note("memory", message, *remedies)]
    return [ok("memory", f"{total:.0f} GiB")]
