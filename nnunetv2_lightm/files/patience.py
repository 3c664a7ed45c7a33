"""Windows refuses to move or remove a file that any program has open, as virus scanners and indexers have new ones.

They let go after a moment: what was refused is retried until then.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import ParamSpec, TypeVar

# Access denied, sharing violation, lock violation, and a folder that still holds what was just removed from it.
MAY_PASS = {5, 32, 33, 145}
PATIENCE_SECONDS = 3.0
LONGEST_PAUSE_SECONDS = 0.2

Arguments = ParamSpec("Arguments")
Result = TypeVar("Result")


def patiently(action: Callable[Arguments, Result], *arguments: Arguments.args, **named: Arguments.kwargs) -> Result:
    """Call a function that moves or removes files; on Windows, retry while it is refused.

    Raises: OSError: the last refusal, after three seconds; any other error, or any error on another system, at once.
    """
    end, pause = time.monotonic() + PATIENCE_SECONDS, 0.01
    while True:
        try:
            return action(*arguments, **named)
        except OSError as error:
            # Other systems have no such number.
            if getattr(error, "winerror", None) not in MAY_PASS or time.monotonic() > end:
                raise
        time.sleep(pause)
        pause = min(2 * pause, LONGEST_PAUSE_SECONDS)
