"""The check on a GPU, in nine minutes at most: speed and memory against nnU-Net's network, and correctness.

    python -m benchmarks.speed.gpu OUT
    python -m benchmarks.speed.gpu OUT --only versions training
    python -m benchmarks.speed.gpu OUT --device cpu --small        # tries the script itself

Needs PyTorch with Triton, nnunetv2 and pytest, but no network. Each step is its own process with a time limit, whose
records are kept as they come; a step that hangs or crashes is reported, and the next one runs. After each step all
results are in OUT/gpu-CARD.json, and as tables in OUT/gpu.md. Counts and predictions without a GPU are kept apart:
gpu_memory.py, gpu_model.py.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from pathlib import Path

import torch

from nnunetv2_lightm.files import write_text

from .harness.gpu_setting import SHOWN, Record, Setting, SkippedStep, run_command
from .harness.gpu_steps import STEPS
from .harness.report_text import records_table

SECONDS = 540
LEAST_SECONDS = 10  # a step is not begun with fewer left


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path, help="folder of the results")
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument("--small", action="store_true", help="sizes for a CPU, only to check that the script works")
    parser.add_argument(
        "--only", nargs="+", choices=list(STEPS), default=list(STEPS), metavar="STEP", help="some steps"
    )
    parser.add_argument("--seconds", type=float, default=SECONDS, help="for all steps; default: %(default)s")
    parser.add_argument("--step", choices=list(STEPS), help=argparse.SUPPRESS)
    arguments = parser.parse_args(argv)
    arguments.out.mkdir(parents=True, exist_ok=True)
    setting = Setting(arguments.device, arguments.small)
    if arguments.step:
        run_step(arguments.step, setting, arguments.out)
        return 0
    options = ["--device", arguments.device, *(["--small"] if arguments.small else [])]
    end = time.time() + arguments.seconds
    outcomes = []
    with tempfile.TemporaryDirectory() as folder:
        for name in arguments.only:
            outcomes.append(start_step(name, options, Path(folder), end - time.time()))
            finish(arguments.out, outcomes)
    print(arguments.out / "gpu.md")
    return 1 if any(map(failures, outcomes)) else 0


def run_step(name: str, setting: Setting, out: Path) -> None:
    """In the step's own process; what it has measured is in the file from then on."""
    torch.backends.cudnn.benchmark = setting.on_gpu  # as in nnU-Net's commands
    records: list[Record] = []
    outcome: dict = {"step": name, "device": setting.device, "small": setting.small, "records": records}
    try:
        for record in STEPS[name][0](setting):
            records.append(record)
            write(out, name, outcome)
    except SkippedStep as reason:
        write(out, name, outcome | {"skipped": str(reason)})


def start_step(name: str, options: list[str], folder: Path, seconds: float) -> dict:
    """Run a step in a process of its own, within its limit and the seconds that are left. Returns its outcome."""
    begin, limit = time.time(), min(STEPS[name][1] * (4 if "--small" in options else 1), seconds)
    outcome: dict = {"step": name, "records": []}
    if limit < LEAST_SECONDS:
        outcome["failed"] = "no time was left for it"
    else:
        command = [sys.executable, "-m", f"{__package__}.gpu", str(folder.absolute()), "--step", name, *options]
        code, output = run_command(command, limit, whole_step=True)
        file = folder / f"{name}.json"
        if file.exists():
            outcome = json.loads(file.read_text(encoding="utf-8"))
        if code != 0:
            outcome["failed"] = f"not done after {limit:.0f} s" if code is None else f"exit code {code}"
            outcome["output"] = output[-SHOWN:]
    outcome["seconds"] = round(time.time() - begin, 1)
    print(f"\n{text(outcome)}", flush=True)
    return outcome


def failures(outcome: dict) -> list[str]:
    """Why a step, or some of its records, failed."""
    return [part["failed"] for part in (outcome, *outcome["records"]) if "failed" in part]


def finish(out: Path, outcomes: list[dict]) -> None:
    """All steps so far in one file and as tables."""
    facts = {record["what"]: record["value"] for step in outcomes for record in step["records"] if "what" in record}
    card = str(facts.get("card", "no GPU")).replace(" ", "-").replace("/", "-")
    write(out, f"gpu-{card}", {"date": time.strftime("%Y-%m-%d"), "steps": outcomes})
    write_text(out / "gpu.md", "\n\n".join([f"# On {card}", *map(text, outcomes)]) + "\n")


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


def write(out: Path, name: str, content: dict) -> None:
    write_text(out / f"{name}.json", json.dumps(content, indent=1) + "\n")


if __name__ == "__main__":
    sys.exit(main())
