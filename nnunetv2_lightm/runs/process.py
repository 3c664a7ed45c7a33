"""Runs a command in its own process group, with its output in a log file, and leaves no process behind."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import sysconfig
import time
from collections.abc import Callable, Mapping, Sequence
from importlib.metadata import entry_points
from pathlib import Path

from ..signals import no_interruption
from .watchdog import PATIENCE_SECONDS, Watchdog

POLL_SECONDS = 0.5
_running: list[subprocess.Popen] = []
_watchdog = Watchdog()


class CommandFailed(RuntimeError):
    """A command ended with an exit code other than 0; the message shows the end of its log."""


def resolve_command(command: Sequence[str]) -> list[str]:
    """Find the program of a command in the environment of this interpreter, whatever PATH says.

    Args:
        command: As a user would type it: "python ..." or a console script of an installed package.
    Returns: The command with the interpreter, or the path of the script, in front.
    Raises: FileNotFoundError: if no installed package has such a console script.
    """
    program, *arguments = command
    if program == "python":
        return [sys.executable, *arguments]
    for folder in (Path(sys.executable).parent, Path(sysconfig.get_path("scripts"))):
        for script in (folder / program, folder / f"{program}.exe"):
            if script.is_file():
                return [str(script), *arguments]
    for entry_point in entry_points(group="console_scripts", name=program):
        code = f"import sys; from {entry_point.module} import {entry_point.attr} as run; sys.exit(run())"
        return [sys.executable, "-c", code, *arguments]
    raise FileNotFoundError(f"no command {program} in the environment of {sys.executable}; is the package installed?")


def run_logged(
    command: Sequence[str],
    log_file: Path,
    *,
    environment: Mapping[str, str],
    on_tick: Callable[[str], None],
    on_start: Callable[[int], None] = lambda pid: None,
    inherited_fds: Sequence[int] = (),
) -> None:
    """Run a command to its end. On an interruption, the command and all its children are ended first.

    Args:
        command: Program and arguments.
        log_file: Standard output and error are appended to it.
        environment: All variables of the process.
        on_tick: Called about twice a second with the text that was logged since the last call.
        on_start: Called with the process id.
        inherited_fds: File descriptors that stay open in the process.
    Raises: CommandFailed: if the exit code is not 0.
    """
    group = {"start_new_session": True, "pass_fds": tuple(inherited_fds)} if os.name == "posix" else {}
    with log_file.open("ab") as output, log_file.open("rb") as reader:
        reader.seek(0, os.SEEK_END)
        process = None
        try:
            _watchdog.start()
            with no_interruption():  # no gap between starting the process and recording it
                process = subprocess.Popen(
                    command,
                    stdin=subprocess.DEVNULL,
                    stdout=output,
                    stderr=subprocess.STDOUT,
                    # Logs are read as UTF-8, which is not Python's default for files on Windows.
                    env={**environment, "PYTHONUNBUFFERED": "1", "PYTHONIOENCODING": "utf-8"},
                    **group,
                )
                _running.append(process)
            _watchdog.watch(process.pid)
            on_start(process.pid)
            while process.poll() is None:
                time.sleep(POLL_SECONDS)
                on_tick(reader.read().decode("utf-8", "replace"))
            on_tick(reader.read().decode("utf-8", "replace"))
        finally:
            if process is not None:
                end_group(process)
                _running.remove(process)
                _watchdog.forget(process.pid)
    if process.returncode != 0:
        raise CommandFailed(
            f"exit code {process.returncode}. The end of {log_file}:\n\n{tail(log_file)}\n\nAll of it: {log_file}"
        )


def end_group(process: subprocess.Popen) -> None:
    """End a process and everything it started: on POSIX first politely, then by force, even if interrupted again."""
    if os.name != "posix":
        end_tree(process)
        return
    try:
        if _send(process, signal.SIGTERM):
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(PATIENCE_SECONDS)
                # The leader is gone; its children get a moment before the group is killed.
                time.sleep(0.2)
    finally:
        _send(process, signal.SIGKILL)
        process.wait()


def end_tree(process: subprocess.Popen) -> None:
    """End a process and its children on Windows, which has a command for this instead of process groups to signal."""
    if process.poll() is None:
        subprocess.run(["taskkill", "/T", "/F", "/PID", str(process.pid)], capture_output=True, check=False)
    process.kill()  # in case that was refused; no effect on a process that has ended
    process.wait()


def end_all_by_force() -> None:
    """On a second signal: kill all running commands at once instead of waiting for them."""
    for process in list(_running):
        if os.name == "posix":
            _send(process, signal.SIGKILL)
        else:
            end_tree(process)


def _send(process: subprocess.Popen, number: int) -> bool:
    """Send a signal to a whole group. Returns: whether any process is left in it."""
    try:
        os.killpg(process.pid, number)
    except (ProcessLookupError, PermissionError):  # macOS reports EPERM if only a zombie is left
        return False
    return True


def tail(log_file: Path, lines: int = 25) -> str:
    """The last lines of a log; for a progress bar only its last state."""
    text = log_file.read_text(encoding="utf-8", errors="replace")
    kept = [line.rsplit("\r", 1)[-1] for line in text.rstrip().split("\n")]
    return "\n".join(kept[-lines:])
