"""Signals that ask a process to end: the first interrupts it, like Ctrl-C; a second one ends its children at once.

Standard library only, for every part of the package.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

# A terminal that is closed, or a connection that breaks, sends SIGHUP; Windows has none.
NAMES = ("SIGINT", "SIGTERM", "SIGHUP")


class Interrupted(KeyboardInterrupt):
    """The process was asked to end.

    Attributes:
        exit_code: 128 and the number of the signal, as shells have it: 130 after Ctrl-C, 143 after SIGTERM.
    """

    def __init__(self, number: int) -> None:
        super().__init__(signal.Signals(number).name)
        self.exit_code = 128 + number


class _Held:
    """While this is held, an interruption waits."""

    depth = 0
    pending: int | None = None


def exit_code(error: KeyboardInterrupt) -> int:
    """Exit code of an interrupted command."""
    return error.exit_code if isinstance(error, Interrupted) else 128 + signal.SIGINT


@contextmanager
def interruptions(end_children: Callable[[], None]) -> Iterator[None]:
    """Within the context, the first signal raises :class:`Interrupted`; further ones only call ``end_children``.

    So the clean-up after the first one is never cut short, and an impatient user need not wait. A signal that is
    already ignored, like SIGHUP under `nohup`, stays ignored. Outside of the main thread, where signals cannot be
    handled, nothing changes.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    received = 0

    def handle(number: int, frame: FrameType | None) -> None:
        nonlocal received
        received += 1
        if received > 1:
            end_children()
        elif _Held.depth:
            _Held.pending = number
        else:
            raise Interrupted(number)

    numbers = [getattr(signal, name) for name in NAMES if hasattr(signal, name)]
    before = {number: signal.getsignal(number) for number in numbers}
    handled = [number for number, handler in before.items() if handler not in (signal.SIG_IGN, None)]
    try:
        for number in handled:
            signal.signal(number, handle)
        yield
    finally:
        for number in handled:
            signal.signal(number, before[number])


@contextmanager
def no_interruption() -> Iterator[None]:
    """Delays an interruption to the end of the block: for steps that must not be torn apart.

    Raises: Interrupted: at the end, if one came.
    """
    _Held.depth += 1
    try:
        yield
    finally:
        _Held.depth -= 1
        if not _Held.depth and _Held.pending is not None:
            number, _Held.pending = _Held.pending, None
            raise Interrupted(number)
