"""The check on a GPU: correctness, and speed and memory against nnU-Net's network.

    python -m benchmarks.speed.gpu OUT
    python -m benchmarks.speed.gpu OUT --only versions compile_ahead training inference --seconds 200
    python -m benchmarks.speed.gpu OUT --device cpu --small        # tries the script itself

Needs PyTorch with Triton, pytest, and for the timings nnunetv2, but no network. Each step is a process of its own with
a time limit; a step that hangs or crashes is reported, and the next one runs. Its records are kept as they come, and
after each step all that was measured is in OUT/gpu-CARD.json, after the earlier rounds of that file or of the published
one, and as tables in OUT/gpu.md. Steps that matter less run if time is left. Counts and predictions without a GPU are
kept apart: gpu_memory.py, gpu_model.py.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path

import torch

from nnunetv2_lightm.files import write_text

from .harness.gpu_rounds import card_name, earlier_rounds, file_name, machine_of, text, write_rounds
from .harness.gpu_setting import SHOWN, Record, Setting, SkippedStep, run_command
from .harness.gpu_steps import STEPS

SECONDS = 330
LEAST_SECONDS = 10  # a step is not begun with fewer left


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path, help="folder of the results")
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument("--small", action="store_true", help="sizes for a CPU, only to check that the script works")
    parser.add_argument("--only", nargs="+", choices=list(STEPS), default=[], metavar="STEP", help="some steps")
    parser.add_argument("--seconds", type=float, default=SECONDS, help="for all steps; default: %(default)s")
    parser.add_argument("--commit", help="what is measured, where git cannot tell")
    parser.add_argument("--step", choices=list(STEPS), help=argparse.SUPPRESS)
    parser.add_argument("--logs", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args(argv)
    arguments.out.mkdir(parents=True, exist_ok=True)
    setting = Setting(arguments.device, arguments.small, (arguments.logs or arguments.out).absolute())
    if arguments.step:
        run_step(arguments.step, setting, arguments.out)
        return 0
    outcomes = check(setting, arguments.out, arguments.only, arguments.seconds, arguments.commit)
    print(arguments.out / "gpu.md")
    return 1 if any(map(failures, outcomes)) else 0


def check(setting: Setting, out: Path, only: Sequence[str], seconds: float, commit: str | None) -> list[dict]:
    """A round: some steps, or all. Returns their outcomes."""
    end = time.time() + seconds
    this = {"began": time.strftime("%Y-%m-%d %H:%M:%S"), "seconds": seconds, "device": setting.device}
    this |= {"small": setting.small, "machine": machine_of(setting, commit)}
    card, outcomes = card_name(setting), {}
    earlier = earlier_rounds(out, file_name(card))
    with tempfile.TemporaryDirectory() as folder:
        for names in groups(only or list(STEPS)):
            with ThreadPoolExecutor(len(names)) as pool:
                left = end - time.time()
                begun = [pool.submit(start_step, name, setting, Path(folder), left, name in only) for name in names]
                for one in as_completed(begun):
                    outcomes[one.result()["step"]] = one.result()
                    this["steps"] = [outcomes[name] for name in STEPS if name in outcomes]
                    write_rounds(out, card, earlier, this)
    return this["steps"]


def groups(names: Sequence[str]) -> Iterator[list[str]]:
    """The steps in order; those that run at the same time grouped."""
    together: list[str] = []
    for name in (name for name in STEPS if name in names):
        if together and not (STEPS[name].concurrent and STEPS[together[-1]].concurrent):
            yield together
            together = []
        together.append(name)
    yield together


def run_step(name: str, setting: Setting, out: Path) -> None:
    """In the step's own process; what it has measured is in the file from then on. A record that a step yields again,
    with more in it, is still one."""
    torch.backends.cudnn.benchmark = setting.on_gpu  # as in nnU-Net's commands
    records: list[Record] = []
    outcome: dict = {"step": name, "device": setting.device, "small": setting.small, "records": records}
    try:
        for record in STEPS[name].function(name)(setting):
            if not any(known is record for known in records):
                records.append(record)
            write(out, name, outcome)
    except SkippedStep as reason:
        write(out, name, outcome | {"skipped": str(reason)})


def start_step(name: str, setting: Setting, folder: Path, seconds: float, asked_for: bool) -> dict:
    """Run a step in a process of its own, within its limit and the seconds that are left. Returns its outcome."""
    begin, limit = time.time(), STEPS[name].seconds * (4 if setting.small else 1)
    outcome: dict = {"step": name, "records": []}
    if STEPS[name].later and not asked_for and seconds < limit:
        outcome["skipped"] = "no time was left for it"
    elif seconds < LEAST_SECONDS:
        outcome["failed"] = "no time was left for it"
    else:
        outcome = _outcome(name, setting, folder, min(limit, seconds))
    outcome["seconds"] = round(time.time() - begin, 1)
    print(f"\n{text(outcome)}", flush=True)
    return outcome


def _outcome(name: str, setting: Setting, folder: Path, limit: float) -> dict:
    outcome: dict = {"step": name, "records": []}
    command = [sys.executable, "-m", f"{__package__}.gpu", str(folder.absolute()), "--step", name]
    command += ["--device", setting.device, "--logs", str(setting.logs), *(["--small"] if setting.small else [])]
    code, output = run_command(command, limit, whole_step=True)
    file = folder / f"{name}.json"
    if file.exists():
        outcome = json.loads(file.read_text(encoding="utf-8"))
    if code != 0:
        outcome["failed"] = f"not done after {limit:.0f} s" if code is None else f"exit code {code}"
        outcome["output"] = output[-SHOWN:]
    return outcome


def failures(outcome: dict) -> list[str]:
    """Why a step, or some of its records, failed."""
    return [part["failed"] for part in (outcome, *outcome["records"]) if "failed" in part]


def write(out: Path, name: str, content: dict) -> None:
    write_text(out / f"{name}.json", json.dumps(content, indent=1) + "\n")


if __name__ == "__main__":
    sys.exit(main())
