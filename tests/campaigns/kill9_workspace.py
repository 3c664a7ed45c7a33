"""What the campaigns of kill9.py share: nnU-Net's folders, commands that are killed, and counts of what was seen."""

from __future__ import annotations

import contextlib
import hashlib
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from nnunetv2_lightm.files import RECORD_FILE

FEW = {"nnUNet_n_proc_DA": "1", "nnUNet_def_n_proc": "1", "OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "PASSIVE"}
LONGEST_SECONDS = 1800  # of a command that runs to its end: longer is a hang


class Workspace:
    """nnU-Net's folders, and the counts of what was seen.

    Attributes:
        moments: At which something was killed, or had finished before.
        killed: Commands that were killed at work.
        put_aside: Files and folders that a command renamed rather than removed.
        seen: What else is worth counting, in the order in which it was first seen.
        wrong: One sentence for each thing that must not be.
    """

    def __init__(self, folder: str) -> None:
        self.folder = folder = Path(folder)
        self.raw, self.preprocessed, self.results = (folder / name for name in ("raw", "preprocessed", "results"))
        self.environment = {**os.environ, **FEW} | {
            f"nnUNet_{name}": str(folder / name) for name in ("raw", "preprocessed", "results")
        }
        self.moments = self.killed = self.put_aside = 0
        self.seen: Counter[str] = Counter()
        self.wrong: list[str] = []
        self._last: subprocess.Popen | None = None

    def __enter__(self) -> Workspace:
        return self

    def __exit__(self, *_: object) -> None:
        self._end_workers()

    def _end_workers(self) -> None:
        """End the augmentation workers of the training that was killed last: they live on."""
        if self._last is not None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._last.pid, signal.SIGKILL)
        self._last = None

    def run(self, *command: str) -> subprocess.CompletedProcess[str]:
        """To its end; in a session of its own, as all commands here."""
        with subprocess.Popen(
            command,
            env=self.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        ) as process:
            try:
                output, errors = process.communicate(timeout=LONGEST_SECONDS)
            except subprocess.TimeoutExpired:
                end_group(process)
                process.communicate()
                self.expect(False, f"{' '.join(command)}: not finished after {LONGEST_SECONDS} s")
                return subprocess.CompletedProcess(command, -signal.SIGKILL, "", "hung")
            except BaseException:  # this campaign is ended itself
                end_group(process)
                raise
        return subprocess.CompletedProcess(command, process.returncode, output, errors)

    def must_run(self, *command: str) -> float:
        """Run what the campaign needs. Returns: its seconds."""
        begin = time.monotonic()
        process = self.run(*command)
        if process.returncode:
            raise SystemExit(f"{' '.join(command)}: exit code {process.returncode}\n{process.stdout}{process.stderr}")
        return time.monotonic() - begin

    def kill(self, seconds: float, *command: str) -> bool:
        """Start a command and kill only its own process after that time. Returns: whether it was still running.

        Processes that it leaves behind run on during the next command, as on a user's machine, and end after it.
        """
        process = subprocess.Popen(
            command,
            env=self.environment,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        self.moments += 1
        try:
            process.wait(seconds)
            killed = False
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGKILL)
            process.wait()
            killed = True
        self.killed += killed
        self._end_workers()
        self._last = process
        return killed

    def expect(self, holds: bool, what: str) -> None:
        if not holds:
            self.wrong.append(what)
            print(f"  WRONG: {what}", flush=True)

    def figures(self) -> str:
        """All counts, in one line."""
        return ", ".join(
            [
                f"{self.moments} moments: {self.killed} killed",
                f"{self.moments - self.killed} finished before",
                f"{self.put_aside} put aside",
                f"{len(self.wrong)} wrong",
                *(f"{what}: {number}" for what, number in self.seen.items()),
            ]
        )

    def random_moments(self, number: int, minutes: float | None) -> Iterator[int]:
        """Numbers from 0; prints the figures after each tenth, and ends early when the time is over."""
        end = time.monotonic() + 60 * (minutes or float("inf"))
        for moment in range(number):
            if time.monotonic() > end:
                print(f"{minutes:g} minutes are over", flush=True)
                return
            yield moment
            if number <= 10 or moment % 10 == 9:
                print(self.figures(), flush=True)


def program(name: str) -> str:
    """A console script of this environment."""
    return str(Path(sys.executable).with_name(name))


def digest(folder: Path) -> str | None:
    """Of all names and contents, but for the record, which holds times; None if there is no such folder."""
    if not folder.exists():
        return None
    sums = hashlib.sha256()
    for path in sorted(folder.rglob("*")):
        if path.name != RECORD_FILE:
            sums.update(f"{path.relative_to(folder)}\0".encode())
            sums.update(path.read_bytes() if path.is_file() else b"")
    return sums.hexdigest()


def working(folder: Path) -> list[str]:
    """Commands that are at work for this folder."""
    listed = subprocess.run(["ps", "-eo", "stat=,args="], capture_output=True, text=True, check=True).stdout
    return [line for line in listed.splitlines() if str(folder) in line and line[0] != "Z" and "kill9" not in line]


def end_group(process: subprocess.Popen) -> None:
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
