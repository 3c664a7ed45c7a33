"""Progress of a pipeline: a bar with the current step on a terminal, otherwise a line every now and then."""

from __future__ import annotations

import re
import sys
import time
from collections.abc import Sequence

from tqdm import tqdm

from ..escaping import escape_terminal
from .pipeline import Step

_SECONDS_BETWEEN_LINES = 30.0
# In the trainer's name.
_BUDGET = re.compile(r" -tr \w+?_(\d+)epochs?(?:_\w+)?(?: |$)")
_TIMESTAMP = re.compile(r"^\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\.\d+: ")


class Progress:
    """Shows which step is running, for how long, and the latest line of its log."""

    def __init__(self, steps: Sequence[Step]) -> None:
        self._steps = list(steps)
        # disable=None: no bar unless standard output is a terminal.
        self._bar = tqdm(
            total=len(self._steps),
            bar_format="{bar:10} {desc}",
            file=sys.stdout,
            dynamic_ncols=True,
            leave=False,
            disable=None,
        )
        self._begin_step()

    def update(self, step: Step, text: str, seconds: float) -> None:
        """Take newly logged text into account and show where the step is."""
        for line in filter(None, map(str.strip, re.split(r"[\r\n]+", text))):
            self._latest = self._describe(step, _TIMESTAMP.sub("", line))
        line = f"{self._head(step, seconds)}  {self._latest}"
        if not self._bar.disable:
            self._bar.set_description_str(escape_terminal(line))
        elif time.monotonic() - self._printed >= _SECONDS_BETWEEN_LINES:
            self._print(line)
            self._printed = time.monotonic()

    def skip(self, step: Step) -> None:
        """Say that the step was complete already."""
        self._print(f"{self._head(step, None)}  complete already")
        self._bar.n += 1

    def end(self, step: Step, seconds: float) -> None:
        """Say that the step is complete now."""
        self._print(f"{self._head(step, seconds)}  done")
        self._bar.n += 1
        self._begin_step()

    def fail(self, message: str) -> None:
        """Say what has failed, at length."""
        self._print(message)
        self._begin_step()

    def _begin_step(self) -> None:
        self._latest = self._epoch = self._dice = ""
        self._printed = 0.0

    def _print(self, text: str) -> None:
        """Print a line that stays. The next update draws the bar again, below whatever was printed meanwhile."""
        self._bar.clear()
        print(escape_terminal(text), flush=True)

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


def format_seconds(seconds: float) -> str:
    """E.g. "1m05s", or "2h07m"."""
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes}m{rest:02d}s" if minutes < 100 else f"{minutes // 60}h{minutes % 60:02d}m"
