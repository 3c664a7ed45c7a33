"""Slurm's queue, which knows the jobs that are not over, also where the accounting is switched off or behind."""

from __future__ import annotations

import math
import os
import subprocess
import time

SECONDS_BETWEEN_QUESTIONS = 60.0
ANSWER_SECONDS = 60.0


class SlurmQueue:
    """The jobs of this user that are waiting, running, suspended or about to end."""

    def __init__(self) -> None:
        self._jobs: set[str] | None = None
        self._asked = -math.inf
        self._missed_since: dict[str, float] = {}

    def has_left(self, job_id: str, *, patience: float) -> bool:
        """Whether a job has been missing for so many seconds; False if the queue cannot be asked."""
        self._ask()
        if self._jobs is None:
            return False
        if job_id in self._jobs:
            self._missed_since.pop(job_id, None)
            return False
        now = time.monotonic()
        return now - self._missed_since.setdefault(job_id, now) >= patience

    def _ask(self) -> None:
        if time.monotonic() - self._asked < SECONDS_BETWEEN_QUESTIONS:
            return
        # One question for all: of a single job that is unknown by now, squeue fails as if it had not reached Slurm.
        command = ["squeue", "-h", "-o", "%i", "-u", str(os.getuid())]
        options = {"capture_output": True, "text": True, "timeout": ANSWER_SECONDS, "check": True}
        try:
            self._jobs = set(subprocess.run(command, **options).stdout.split())
        except (OSError, subprocess.SubprocessError):
            self._jobs = None
        self._asked = time.monotonic()
