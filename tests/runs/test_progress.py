"""What a pipeline shows on a terminal: a bar for the running step, and a line that stays for each step that is done."""

from __future__ import annotations

import io

from nnunetv2_lightm.runs.pipeline import Step
from nnunetv2_lightm.runs.progress import Progress

STEPS = [Step(name, ("true",), outputs=()) for name in ("convert", "train")]


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True

    def lines(self) -> list[str]:
        """What is left on the screen of each line, and the live one last."""
        return [line.rpartition("\r")[2].rstrip() for line in self.getvalue().split("\n")]


def use_terminal(monkeypatch) -> Terminal:
    """Called by the test itself: pytest sets its own standard output between a fixture and the test."""
    terminal = Terminal()
    monkeypatch.setattr("sys.stdout", terminal)
    monkeypatch.setenv("COLUMNS", "60")
    return terminal


def test_the_bar_is_replaced_by_a_line_when_a_step_ends(monkeypatch):
    terminal = use_terminal(monkeypatch)
    progress = Progress(STEPS)
    progress.skip(STEPS[0])
    progress.update(STEPS[1], "Epoch 3\n", 3)
    assert terminal.lines()[-1].endswith("[2/2] train     0m03s  epoch 4")
    progress.end(STEPS[1], 125)
    print("after")
    assert terminal.lines() == [
        "[1/2] convert          complete already",
        "[2/2] train     2m05s  done",
        "after",
        "",
    ]


def test_a_command_cannot_move_the_cursor(monkeypatch):
    terminal = use_terminal(monkeypatch)
    progress = Progress(STEPS)
    progress.update(STEPS[0], "\x1b[2Jgone", 1)
    progress.fail("\x1b[31mred")
    assert "\x1b[2J" not in terminal.getvalue() and "\x1b[31m" not in terminal.getvalue()
    assert terminal.lines()[-2] == r"\x1b[31mred"
