"""Where the check on a GPU runs, how it takes the time, and what becomes of a failure."""

from __future__ import annotations

import os
import signal
import statistics
import subprocess
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from .machine import ROOT

Record = dict[str, object]
SHOWN = 3000  # characters of a command's output


class SkippedStep(Exception):
    """A step cannot run here; the message says why."""


@dataclass(frozen=True)
class Plan:
    """What nnU-Net plans for a data set.

    Attributes:
        patch: Spatial size.
        batch: Number of samples.
        strides: Of each resolution of its network.
        kernels: Size of its convolutions at each resolution; None: 3 on each axis.
    """

    patch: tuple[int, ...]
    batch: int
    strides: tuple[tuple[int, ...], ...]
    kernels: tuple[tuple[int, ...], ...] | None = None

    def __str__(self) -> str:
        return f"{'x'.join(map(str, self.patch))}, batch {self.batch}"


def halving(dims: int, resolutions: int) -> tuple[tuple[int, ...], ...]:
    """Strides that halve every axis."""
    return ((1,) * dims, *((2,) * dims,) * (resolutions - 1))


# For voxels of 1 mm, for images of 512x512, and, as an anisotropic one, for 3.6 x 0.62 x 0.62 mm (a prostate in MRI).
PLANS = (
    Plan((128, 128, 128), 2, halving(3, 6)),
    Plan((512, 512), 12, halving(2, 8)),
    Plan(
        (20, 320, 256),
        2,
        ((1, 1, 1), (1, 2, 2), (1, 2, 2), (2, 2, 2), (2, 2, 2), (1, 2, 2), (1, 2, 2)),
        ((1, 3, 3), (1, 3, 3), *((3, 3, 3),) * 5),
    ),
)
SMALL_PLANS = (Plan((32, 32, 32), 1, halving(3, 4)), Plan((4, 32, 32), 1, PLANS[2].strides[:4], PLANS[2].kernels[:4]))


@dataclass(frozen=True)
class Setting:
    """Where and how large.

    Attributes:
        device: "cuda", or "cpu" to try the script.
        small: Sizes for a CPU.
        logs: Folder for what is written while a step runs.
    """

    device: str
    small: bool
    logs: Path = Path()

    @property
    def on_gpu(self) -> bool:
        return self.device == "cuda"

    @property
    def plans(self) -> tuple[Plan, ...]:
        """The most usual one first."""
        return SMALL_PLANS if self.small else PLANS

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

    def all_ms(self, run: Callable[[], object], repetitions: int | None = None) -> list[float]:
        """Milliseconds of some calls after one that does not count; on a GPU until its work is done."""
        run()
        self.synchronise()
        times = []
        for _ in range(repetitions or self.repetitions):
            begin = time.perf_counter()
            run()
            self.synchronise()
            times.append(1e3 * (time.perf_counter() - begin))
        return times

    def median_ms(self, run: Callable[[], object]) -> float:
        """Their median."""
        return statistics.median(self.all_ms(run))

    def allocated_gib(self) -> float:
        """Memory that tensors take now; 0 on a CPU."""
        return torch.cuda.memory_allocated() / 2**30 if self.on_gpu else 0.0

    def forget_peak(self) -> None:
        if self.on_gpu:
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats()

    def peak_gib(self) -> float:
        """The most that tensors took since then; 0 on a CPU."""
        return torch.cuda.max_memory_allocated() / 2**30 if self.on_gpu else 0.0


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
    command: Sequence[str],
    seconds: float,
    environment: Mapping[str, str] | None = None,
    *,
    log: Path | None = None,
    whole_step: bool = False,
) -> tuple[int | None, str]:
    """Exit code and output; None: it was still running after these seconds, and was ended.

    Args:
        command: What to run, in the repository.
        seconds: The most it may take.
        environment: Variables to add.
        log: File that gets the output as it comes; None: a temporary one.
        whole_step: Also kill its child processes, which would otherwise slow the next measurement down.
    """
    variables = os.environ | {"PYTHONUNBUFFERED": "1"} | (environment or {})
    with tempfile.TemporaryFile() if log is None else log.open("w+b") as output:
        pipes = {"stdout": output, "stderr": subprocess.STDOUT, "start_new_session": whole_step}
        process = subprocess.Popen(command, cwd=ROOT, env=variables, **pipes)
        try:
            code = process.wait(timeout=seconds)
        except BaseException as error:
            if whole_step:
                os.killpg(process.pid, signal.SIGKILL)
            process.kill()
            process.wait()
            if not isinstance(error, subprocess.TimeoutExpired):
                raise
            code = None
        output.seek(0)
        return code, output.read().decode(errors="replace")


def command_record(outcome: tuple[int | None, str], seconds: float) -> Record:
    """For the table; anything but success counts as a failure."""
    code, output = outcome
    record: Record = {"output": output[-SHOWN:]}
    if code != 0:
        record["failed"] = f"not done after {seconds:.0f} s" if code is None else f"exit code {code}"
    return record
