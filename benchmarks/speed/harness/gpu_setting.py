"""Where the check on a GPU runs, how it takes the time, and what becomes of a failure."""

from __future__ import annotations

import os
import signal
import statistics
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch

from .machine import ROOT

Record = dict[str, object]
SHOWN = 3000  # characters of a command's output


class SkippedStep(Exception):
    """A step cannot run here; the message says why."""


@dataclass(frozen=True)
class Setting:
    """Where and how large.

    Attributes:
        device: "cuda", or "cpu" to try the script.
        small: Sizes for a CPU.
    """

    device: str
    small: bool

    @property
    def on_gpu(self) -> bool:
        return self.device == "cuda"

    @property
    def plans(self) -> list[tuple[tuple[int, ...], int]]:
        """Patch and batch."""
        if self.small:
            return [((64, 64, 64), 1)]
        return [((128, 128, 128), 2), ((512, 512), 12), ((64, 192, 160), 2)]

    @property
    def half(self) -> torch.dtype:
        """What maps are stored in."""
        return torch.float16 if self.on_gpu else torch.float32

    @property
    def repetitions(self) -> int:
        return 2 if self.small else 10

    def autocast(self) -> torch.autocast:
        """As in nnU-Net: on a GPU alone."""
        return torch.autocast(self.device, torch.float16 if self.on_gpu else torch.bfloat16, enabled=self.on_gpu)

    def synchronise(self) -> None:
        if self.on_gpu:
            torch.cuda.synchronize()

    def median_ms(self, run: Callable[[], object]) -> float:
        """Median milliseconds of some calls after a warm-up; on a GPU until its work is done."""
        run()
        self.synchronise()
        times = []
        for _ in range(self.repetitions):
            begin = time.perf_counter()
            run()
            self.synchronise()
            times.append(1e3 * (time.perf_counter() - begin))
        return statistics.median(times)

    def forget_peak(self) -> None:
        if self.on_gpu:
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats()

    def peak(self) -> Record:
        return {"peak, GiB": torch.cuda.max_memory_allocated() / 2**30} if self.on_gpu else {}


def attempt(record: Record, measure: Callable[[], Record]) -> Record:
    """The record with what was measured, or with why it was not: one candidate must not cost the others.

    Raises: RuntimeError: if the GPU itself has failed, after which nothing in this process can be measured.
    """
    try:
        return record | measure()
    except Exception as error:
        if "CUDA error" in str(error):
            raise
        return record | {"failed": f"{type(error).__name__}: {str(error)[:300]}"}


def run_command(
    command: Sequence[str], seconds: float, environment: Mapping[str, str] | None = None, *, whole_step: bool = False
) -> tuple[int | None, str]:
    """Exit code and output; None: it was still running after these seconds, and was ended.

    Args:
        command: What to run, in the repository.
        seconds: The most it may take.
        environment: Variables to add.
        whole_step: Also kill its child processes, which would otherwise slow the next measurement down.
    """
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True, "errors": "replace"}
    variables = os.environ | (environment or {})
    process = subprocess.Popen(command, cwd=ROOT, env=variables, start_new_session=whole_step, **pipes)
    try:
        output, _ = process.communicate(timeout=seconds)
        return process.returncode, output
    except BaseException as error:
        if whole_step:
            os.killpg(process.pid, signal.SIGKILL)
        process.kill()
        if not isinstance(error, subprocess.TimeoutExpired):
            raise
        return None, process.communicate()[0]


def command_record(outcome: tuple[int | None, str], seconds: float) -> Record:
    """For the table; anything but success counts as a failure."""
    code, output = outcome
    record: Record = {"output": output[-SHOWN:]}
    if code != 0:
        record["failed"] = f"not done after {seconds:.0f} s" if code is None else f"exit code {code}"
    return record
