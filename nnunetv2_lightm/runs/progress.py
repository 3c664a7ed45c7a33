"""Progress of a pipeline: a live line on a terminal, elsewhere a line now and then."""

from __future__ import annotations

import re
import shutil
import sys
import time
from collections.abc import Sequence

from ..escaping import escape_terminal
from .pipeline import Step

_SECONDS_BETWEEN_LINES = 30.0
# In the trainer's name.
_BUDGET = re.compile(r" -tr \w+?_(\d+)epochs?(?:_\w+)?(?: |$)")
_TIMESTAMP = re.compile(r"^\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\.\d+: ")


class Progress:
    """Shows which step is at work, for how long, and the latest of its log."""

    def __init__(self, steps: Sequence[Step]) -> None:
        self._steps = list(steps)
        self._live = sys.stdout.isatty()
        self._latest = ""
        self._epoch = self._dice = ""
        self._printed = 0.0

    def update(self, step: Step, text: str, seconds: float) -> None:
        """Take newly logged text into account and show where the step is."""
        for line in filter(None, map(str.strip, re.split(r"[\r\n]+", text))):
            self._latest = self._describe(step, _TIMESTAMP.sub("", line))
        if self._live:
            self._show(f"{self._head(step, seconds)}  {self._latest}", end="")
        elif time.monotonic() - self._printed >= _SECONDS_BETWEEN_LINES:
            self._show(f"{self._head(step, seconds)}  {self._latest}")

    def skip(self, step: Step) -> None:
        """Say that the step was complete before."""
        self._show(f"{self._head(step, None)}  complete already")

    def end(self, step: Step, seconds: float) -> None:
        """Say that the step is complete now."""
        self._show(f"{self._head(step, seconds)}  done")
        self._forget()

    def fail(self, message: str) -> None:
        """Say what has failed, at length."""
        if self._live:
            print()
        print(escape_terminal(message), flush=True)
        self._forget()

    def _forget(self) -> None:
        self._latest = self._epoch = self._dice = ""
        self._printed = 0.0

    def _describe(self, step: Step, line: str) -> str:
        if match := re.fullmatch(r"Epoch (\d+)", line):
            budget = _BUDGET.search(" ".join(step.command))
            self._epoch = f"epoch {int(match[1]) + 1}" + (f" of {budget[1]}" if budget else "")
        elif match := re.fullmatch(r"Pseudo dice (.*)", line):
            self._dice = ", pseudo Dice " + " ".join(re.findall(r"(?<![\w.])(?:nan|\d[\d.]*)", match[1]))
        elif line.startswith("Training done"):
            self._epoch = ""
        return self._epoch + self._dice if self._epoch else line

    def _head(self, step: Step, seconds: float | None) -> str:
        number = self._steps.index(step) + 1
        width = max(len(other.name) for other in self._steps)
        duration = "" if seconds is None else format_seconds(seconds)
        return f"[{number}/{len(self._steps)}] {step.name:<{width}} {duration:>7}"

    def _show(self, line: str, end: str = "\n") -> None:
        self._printed = time.monotonic()
        if self._live:
            columns = shutil.get_terminal_size((100, 24)).columns - 1
            line = "\r" + escape_terminal(line)[:columns].ljust(columns)
        else:
            line = escape_terminal(line)
        print(line, end=end, flush=True)


def format_seconds(seconds: float) -> str:
    """E.g. "1m05s", or "2h07m"."""
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes}m{rest:02d}s" if minutes < 100 else f"{minutes // 60}h{minutes % 60:02d}m"
