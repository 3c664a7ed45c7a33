"""The rounds of the check on a GPU: one file for each card, and the last round as tables."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Sequence
from pathlib import Path

import torch

from nnunetv2_lightm.files import write_text

from .gpu_setting import Record, Setting
from .machine import machine
from .report_text import records_table
from .results import RESULTS

PACKAGES = ("dynamic-network-architectures", "triton", "pytest", "pytest-xdist")
# For a step: what is compared, its bound and the aim beyond it; ours divided by nnU-Net's network in its best layout.
GOALS = {
    "training": {"ms": (0.8, 0.5), "peak, GiB": (1.0, 0.6)},
    "compiled_training": {"ms": (0.8, 0.5), "peak, GiB": (1.0, 0.6)},
    "inference": {"ms": (0.6, 0.4)},
}


def card_name(setting: Setting) -> str:
    """As PyTorch calls it."""
    return torch.cuda.get_device_name(0) if setting.on_gpu and torch.cuda.is_available() else "no GPU"


def machine_of(setting: Setting, commit: str | None) -> dict[str, object]:
    """Machine, versions and card; commit: of a copy without git's folder."""
    facts: dict[str, object] = machine(*PACKAGES) | {"card": card_name(setting), "CUDA": torch.version.cuda}
    facts |= {"cuDNN": torch.backends.cudnn.version(), "driver": _driver()}
    return facts | ({"commit": commit} if commit else {})


def _driver() -> str:
    command = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=10, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return "unknown"
    return done.stdout.strip() or "unknown"


def earlier_rounds(out: Path, name: str) -> list[dict]:
    """The rounds that a file of the folder holds or, if there is none, the published one of the card."""
    for folder in (out, RESULTS):
        file = folder / name
        if file.exists():
            return json.loads(file.read_text(encoding="utf-8"))["rounds"]
    return []


def write_rounds(out: Path, card: str, earlier: Sequence[dict], this: dict) -> None:
    """All rounds in one file, and this one as tables."""
    outcomes = with_predictions(this["steps"])
    this = this | {"steps": outcomes, "goals": goals(outcomes)}
    write_text(out / file_name(card), json.dumps({"rounds": [*earlier, this]}, indent=1) + "\n")
    lines = [f"# Round {len(earlier) + 1} on {card}", f"{this['began']}, commit {this['machine']['commit']}"]
    if this["goals"]:
        lines += ["## Goals", records_table(this["goals"])]
    write_text(out / "gpu.md", "\n\n".join([*lines, *map(text, outcomes)]) + "\n")


def file_name(card: str) -> str:
    return f"gpu-{card.replace(' ', '-').replace('/', '-')}.json"


def with_predictions(outcomes: Sequence[dict]) -> list[dict]:
    """The outcomes of the steps with what was predicted next to what was measured, if that was among the steps."""
    records = [r for outcome in outcomes if outcome["step"] == "predicted" for r in outcome["records"]]
    known = {(r["work"], r["network"]): r for r in records if "failed" not in r}
    return [
        outcome | {"records": [_with_prediction(outcome["step"], record, known) for record in outcome["records"]]}
        for outcome in outcomes
    ]


def _with_prediction(step: str, record: Record, known: dict[tuple, Record]) -> Record:
    prediction = known.get((record.get("work"), record.get("network")))
    if prediction is None or "ms" not in record:
        return record
    kind = "inference" if "inference" in step else "training"
    added = {"predicted, ms": prediction.get(f"{kind}, ms")}
    if kind == "training" and "peak, GiB" in record:
        added["predicted peak, GiB"] = prediction["peak, GiB"]
    return record | added


def goals(outcomes: Sequence[dict]) -> list[Record]:
    """What was measured against the goals, ours with deep supervision and SGD as the rival."""
    found = []
    for outcome in outcomes:
        for what, (most, aim) in GOALS.get(outcome["step"], {}).items():
            measured = [r for r in outcome["records"] if what in r and "failed" not in r]
            ours = [r[what] for r in measured if r["network"] == "ours"]
            theirs = [r[what] for r in measured if r["network"] == "nnunet"]
            if ours and theirs:
                ratio = ours[0] / min(theirs)
                record = {"step": outcome["step"], "what": what, "ours": ours[0], "nnU-Net's best": min(theirs)}
                found.append(record | {"ratio": ratio, "goal": f"≤ {most:g}x (aim: {aim:g}x)", "met": ratio <= most})
    return found


def text(outcome: dict) -> str:
    """A step's outcome in Markdown."""
    parts = [f"## {outcome['step']}, {outcome['seconds']} s", outcome.get("failed"), outcome.get("skipped")]
    parts.append(f"```text\n{outcome['output']}\n```" if outcome.get("output") else None)
    for record in outcome["records"]:
        if "output" in record:
            parts.append(f"```text\n{record['output']}\n```")
    rows = [{key: value for key, value in record.items() if key != "output"} for record in outcome["records"]]
    parts.append(records_table(rows) if any(rows) else None)
    return "\n\n".join(part for part in parts if part)
