"""The check on a GPU, in about eight minutes: correctness first, then speed and memory against nnU-Net's network.

    python -m benchmarks.speed.gpu OUT
    python -m benchmarks.speed.gpu OUT --only versions training
    python -m benchmarks.speed.gpu OUT --device cpu --small        # tries the script itself

Needs PyTorch with Triton, nnunetv2 and pytest, but no network. Each step is its own process with a time limit and
writes OUT/STEP.json when it ends; a step that hangs or crashes is reported, and the next one runs. At the end all
results are in OUT/gpu-CARD.json, and as tables in OUT/gpu.md. Counts and predictions without a GPU are kept apart:
gpu_memory.py, gpu_model.py.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from pathlib import Path

from nnunetv2_lightm.files import write_text

from .harness.gpu_steps import STEPS, Setting, SkippedStep
from .harness.machine import ROOT
from .harness.report_text import records_table


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path, help="folder of the results")
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument("--small", action="store_true", help="sizes for a CPU, only to check that the script works")
    parser.add_argument(
        "--only", nargs="+", choices=list(STEPS), default=list(STEPS), metavar="STEP", help="some steps"
    )
    parser.add_argument("--step", choices=list(STEPS), help=argparse.SUPPRESS)
    arguments = parser.parse_args(argv)
    arguments.out.mkdir(parents=True, exist_ok=True)
    setting = Setting(arguments.device, arguments.small)
    if arguments.step:
        run_step(arguments.step, setting, arguments.out)
        return 0
    options = ["--device", arguments.device, *(["--small"] if arguments.small else [])]
    failed = [name for name in arguments.only if not start_step(name, options, arguments.out)]
    finish(arguments.out, arguments.only)
    return 1 if failed else 0


def run_step(name: str, setting: Setting, out: Path) -> None:
    """In the step's own process."""
    begin = time.time()
    outcome: dict[str, object] = {"step": name, "device": setting.device, "small": setting.small}
    try:
        outcome["records"] = STEPS[name][0](setting)
    except SkippedStep as reason:
        outcome["skipped"] = str(reason)
    write(out, name, outcome | {"seconds": round(time.time() - begin, 1)})


def start_step(name: str, options: list[str], out: Path) -> bool:
    """Run a step in a process of its own. Returns: whether it succeeded."""
    (out / f"{name}.json").unlink(missing_ok=True)
    command = [sys.executable, "-m", f"{__package__}.gpu", str(out.absolute()), "--step", name, *options]
    begin, limit = time.time(), STEPS[name][1] * (4 if "--small" in options else 1)
    try:
        done = subprocess.run(command, cwd=ROOT, stderr=subprocess.PIPE, text=True, timeout=limit, check=False)
        failure = None if done.returncode == 0 else f"exit code {done.returncode}: {done.stderr[-2000:]}"
    except subprocess.TimeoutExpired:
        failure = f"not done after {limit} s"
    if failure:
        write(out, name, {"step": name, "failed": failure, "seconds": round(time.time() - begin, 1)})
    print(f"{name}: {failure or 'done'} ({time.time() - begin:.0f} s)", flush=True)
    return failure is None


def finish(out: Path, names: list[str]) -> None:
    """All steps in one file and as tables."""
    steps = [json.loads((out / f"{name}.json").read_text(encoding="utf-8")) for name in names]
    facts = {
        record["what"]: record["value"] for step in steps for record in step.get("records", []) if "what" in record
    }
    card = str(facts.get("card", "no GPU")).replace(" ", "-").replace("/", "-")
    write(out, f"gpu-{card}", {"date": time.strftime("%Y-%m-%d"), "steps": steps})
    parts = [f"# On {card}"]
    for step in steps:
        parts.append(f"## {step['step']}, {step['seconds']} s")
        parts.append(step.get("failed") or step.get("skipped") or records_table(step["records"]))
    write_text(out / "gpu.md", "\n\n".join(parts) + "\n")
    print(f"{out / 'gpu.md'}")


def write(out: Path, name: str, content: dict) -> None:
    write_text(out / f"{name}.json", json.dumps(content, indent=1) + "\n")


if __name__ == "__main__":
    sys.exit(main())
