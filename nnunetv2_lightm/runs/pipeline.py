"""Steps that run one after the other in a folder, each a command; an interrupted run resumes where it stopped."""

from __future__ import annotations

import hashlib
import json
import os
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path

from ..files import INCIDENTAL, FileLock, LockHeldError, Record, partial_path, write_text
from .process import CommandFailed, resolve_command, run_logged

STATE_FILE = "state.json"
LOCK_FILE = ".lock"
SIGNATURE = "nnunetv2_lightm pipeline"
_SAVE_SECONDS = 5.0


class PipelineError(RuntimeError):
    """The folder cannot be used; the message says why and what to do."""


@dataclass(frozen=True)
class Step:
    """A command and what it leaves behind.

    Attributes:
        name: Its name, and its log's.
        command: As a user would type it.
        outputs: Files and folders that exist when the step is complete.
        leftovers: Out of the way before the step starts over: see `Pipeline`.
        continuation: Arguments with which the command resumes after an interruption, or None if it cannot.
        inputs: Files that the step reads, and folders of such; when one has changed since, the step runs again.
        found: Whether the step's result exists, whoever made it. Such a step is not repeated for another command or
            version, and resumes what was started elsewhere. None: only the state file decides.
    """

    name: str
    command: tuple[str, ...]
    outputs: tuple[Path, ...]
    leftovers: tuple[Path, ...] = ()
    continuation: Callable[[], list[str] | None] = field(default=lambda: None)
    inputs: tuple[Path, ...] = ()
    found: Callable[[], bool] | None = None


class Pipeline:
    """Runs steps and remembers in `state.json` which are complete.

    What is in the way of a step that starts over is renamed to `kept_...`, whoever made it: while a command ran,
    somebody may have corrected its files or put others next to them. Only a folder with a record is emptied instead, as
    far as the command that made it recorded its files and they are unchanged.

    A step runs again when its command, its inputs or the command of an earlier step have changed, when an earlier step
    has run since, or its outputs are gone. An interrupted step resumes if it can, otherwise it starts over.
    """

    def __init__(
        self,
        folder: Path,
        steps: Sequence[Step],
        *,
        environment: Mapping[str, str],
        version: str,
        log_file: Path | None = None,
    ) -> None:
        """
        Args:
            folder: Holds the state, the logs and, during a run, a lock.
            steps: The steps, in order.
            environment: Variables for the commands, in addition to those of this process.
            version: Version of the software; a new one makes every step run again.
            log_file: A single log for all steps, appended to; None: one per step, in the folder.
        Raises: PipelineError: if the folder is not a pipeline's, or its state file is damaged.
        """
        self.folder = folder
        self.steps = list(steps)
        self.environment = {**os.environ, **environment}
        self.version = version
        self._log_file = log_file
        self._state: dict[str, dict] = {}
        self._made = Record(folder)
        self._load_state()

    def run(
        self,
        on_tick: Callable[[Step, str, float], None],
        *,
        on_skip: Callable[[Step], None],
        on_end: Callable[[Step, float], None],
    ) -> None:
        """Run what is not complete.

        Args:
            on_tick: Called about twice a second with the step, the newly logged text and the seconds so far.
            on_skip: Called with a step that is complete already.
            on_end: Called with a step that is complete now, and its seconds.
        Raises:
            PipelineError: if another run is working in the folder.
            CommandFailed: if a step fails, or leaves no outputs.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        if not (self.folder / STATE_FILE).exists():
            self._save_state()  # from now on the folder is ours
        with folder_lock(self.folder) as lock:
            self._load_state()
            fingerprint = self.version
            for number, step in enumerate(self.steps, start=1):
                fingerprint = _fingerprint(fingerprint, step)
                if self._is_complete(step, fingerprint):
                    on_skip(step)
                else:
                    self._forget(self.steps[number:])
                    self._run_step(step, fingerprint, on_tick, lock)
                    on_end(step, self.seconds(step))

    def is_complete(self) -> bool:
        """Whether a run would find nothing to do."""
        self._load_state()
        fingerprint = self.version
        for step in self.steps:
            fingerprint = _fingerprint(fingerprint, step)
            if not self._is_complete(step, fingerprint):
                return False
        return True

    def seconds(self, step: Step) -> float:
        """Wall-clock time of a step over all runs that it took, in seconds."""
        return self._state.get(step.name, {}).get("seconds", 0.0)

    def log_file(self, step: Step) -> Path:
        """The log of a step's output."""
        return self._log_file or self.folder / "logs" / f"{step.name}.log"

    @contextmanager
    def writing(self, *files: Path) -> Iterator[None]:
        """Write further files into the folder; existing ones that are not ours are renamed first."""
        for file in files:
            _clear(file, self._made)
        yield
        for file in files:
            self._made.add(file)
        self._save_state()

    def _is_complete(self, step: Step, fingerprint: str) -> bool:
        if step.found is not None:
            return step.found()
        entry = self._state.get(step.name, {})
        done = entry.get("complete", False) and entry["fingerprint"] == _with_inputs(fingerprint, step)
        return done and all(path.exists() for path in step.outputs)

    def _forget(self, steps: Sequence[Step]) -> None:
        """Let later steps run again: they read what the step before them makes anew.

        The state file says so before that step begins: if this process is killed, the next run must not take the
        results of the old files for those of the new ones.
        """
        for step in steps:
            if step.found is None:
                self._state.pop(step.name, None)

    def _run_step(
        self, step: Step, fingerprint: str, on_tick: Callable[[Step, str, float], None], lock: FileLock
    ) -> None:
        entry = self._state.get(step.name, {})
        fingerprint = _with_inputs(fingerprint, step)
        interrupted = entry.get("fingerprint") == fingerprint and not entry["complete"]
        more = step.continuation() if interrupted or step.found is not None else None
        log_file = self.log_file(step)
        log_file.parent.mkdir(parents=True, exist_ok=True)
        # That of a killed run has grown: it is added to.
        own_log = self._log_file is None and not self._made.not_ours(log_file)
        if more is None:
            for path in step.leftovers:
                _clear(path, Record.read(path) or Record(path))
            if own_log:
                self._made.remove(log_file)
        if more is None or not interrupted:  # what is continued, with other versions too, has taken its time already
            seconds = 0.0 if more is None else entry.get("seconds", 0.0)
            entry = {"fingerprint": fingerprint, "complete": False, "seconds": seconds}
        self._state[step.name] = entry
        self._save_state()
        spent, begin, saved = entry["seconds"], time.monotonic(), time.monotonic()

        def tick(text: str) -> None:
            nonlocal saved
            entry["seconds"] = spent + time.monotonic() - begin
            on_tick(step, text, entry["seconds"])
            if time.monotonic() - saved > _SAVE_SECONDS:
                self._save_state()
                saved = time.monotonic()

        try:
            run_logged(
                [*resolve_command(step.command), *(more or [])],
                log_file,
                environment=self.environment,
                on_tick=tick,
                on_start=lambda pid: lock.name_holder(f"process {pid}"),
                inherited_fds=[lock.fileno()],
            )
            missing = [str(path) for path in step.outputs if not path.exists()]
            if missing:
                raise CommandFailed(f"{step.name} ended well but left no {', '.join(missing)}. Its log: {log_file}")
            entry["complete"] = True
        finally:
            entry["seconds"] = spent + time.monotonic() - begin
            if own_log:
                self._made.add(log_file)
            self._save_state()

    def _load_state(self) -> None:
        path = self.folder / STATE_FILE
        if not path.exists():
            begun = {partial_path(path).name, LOCK_FILE}  # left by a run that was ended at once
            if self.folder.exists() and (
                not self.folder.is_dir() or any(file.name not in begun for file in self.folder.iterdir())
            ):
                raise PipelineError(f"{self.folder} is not empty and has no {STATE_FILE}; give a new or empty folder")
            return
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
        except ValueError as error:
            raise PipelineError(
                f"{path} is damaged ({error}); give a new folder, or move that file's folder away"
            ) from error
        if not isinstance(content, dict) or content.get("made_by") != SIGNATURE:
            raise PipelineError(f"{path} belongs to something else; give a new or empty folder")
        self._state, self._made = content["steps"], Record(self.folder, content["files"])

    def _save_state(self) -> None:
        content = {"made_by": SIGNATURE, "steps": self._state, "files": self._made.files}
        write_text(self.folder / STATE_FILE, json.dumps(content, indent=1) + "\n")


def software_versions() -> str:
    """Versions of nnU-Net and of this package, for `Pipeline`."""
    return ", ".join(f"{package} {metadata.version(package)}" for package in ("nnunetv2", "nnunetv2-lightm"))


def _clear(path: Path, record: Record) -> None:
    """Remove what is recorded and unchanged; rename the rest, and say so."""
    rest = record.remove(path)
    if rest is not None:
        print(f"{path} is made anew; what was there is now {rest}. Remove that if you do not need it", file=sys.stderr)


def _fingerprint(previous: str, step: Step) -> str:
    return hashlib.sha256(json.dumps([previous, step.name, step.command]).encode()).hexdigest()


def _with_inputs(fingerprint: str, step: Step) -> str:
    """Add size and time of the step's input files, if it has any."""
    states = [_input_state(path) for path in step.inputs]
    return hashlib.sha256(json.dumps([fingerprint, states]).encode()).hexdigest() if states else fingerprint


def _input_state(path: Path) -> list | None:
    """Size and time of a file, or with its name those of each file directly in a folder; None if nothing is there."""
    if path.is_dir():
        files = sorted(file for file in path.iterdir() if file.is_file() and file.name not in INCIDENTAL)
        return [[file.name, *_input_state(file)] for file in files]
    return [path.stat().st_size, path.stat().st_mtime_ns] if path.exists() else None


@contextmanager
def folder_lock(folder: Path) -> Iterator[FileLock]:
    """Hold the lock of a folder. Commands may inherit it, which reveals one that outlived a killed run.

    Raises: PipelineError: if another process holds it.
    """
    lock = FileLock(folder / LOCK_FILE, inherited=True)
    try:
        lock.acquire(lambda message: print(message, file=sys.stderr))
    except LockHeldError as error:
        raise PipelineError(
            f"another run is working in {folder} ({error.holder}); wait for it or end it first"
        ) from error
    try:
        yield lock
    finally:
        lock.release()
