"""A small process that ends commands once the process that started them is gone, even after `kill -9`.

Without it a training could continue unnoticed while the same command is started again.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time

PATIENCE_SECONDS = 10.0


class Watchdog:
    """Keeps track of the running process groups. On Windows it does nothing."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it in advance, so that no command has to wait for it."""
        if os.name == "posix" and (self._process is None or self._process.poll() is not None):
            # It needs only the standard library; in its own session no signal from a terminal reaches it.
            self._process = subprocess.Popen(
                [sys.executable, "-I", "-S", __file__],
                stdin=subprocess.PIPE,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                start_new_session=True,
            )

    def watch(self, group: int) -> None:
        """End this group once the current process is gone."""
        self._tell(f"+{group}")

    def forget(self, group: int) -> None:
        """The group has ended."""
        self._tell(f"-{group}")

    def _tell(self, line: str) -> None:
        if self._process is None:
            return
        with contextlib.suppress(BrokenPipeError):  # it was killed
            self._process.stdin.write(f"{line}\n".encode())
            self._process.stdin.flush()


def main() -> None:
    """Read which groups are running until the pipe breaks, then end those that are left."""
    groups: set[int] = set()
    for line in sys.stdin:
        group = int(line[1:])
        groups.add(group) if line[0] == "+" else groups.discard(group)
    for request in (signal.SIGTERM, signal.SIGKILL):
        for group in list(groups):
            try:
                os.killpg(group, request)
            except OSError:
                groups.discard(group)
        deadline = time.monotonic() + PATIENCE_SECONDS
        while any(map(_lives, groups)) and time.monotonic() < deadline:
            time.sleep(0.1)


def _lives(group: int) -> bool:
    try:
        os.killpg(group, 0)
    except OSError:
        return False
    return True


if __name__ == "__main__":
    main()
