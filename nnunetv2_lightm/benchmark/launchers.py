"""Runs tasks one after the other on this machine, or each as a Slurm job through submitit."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from ..escaping import escape_terminal
from ..extras import import_extra
from ..files import write_text
from ..runs.pipeline import Step
from ..runs.process import CommandFailed, tail
from ..runs.progress import Progress
from .settings import SettingsError
from .slurm_queue import SlurmQueue
from .tasks import Task

CLUSTER = "slurm"
POLL_SECONDS = 5.0
# Not in the queue for so long, a job has failed. Longer than the file system takes to show a result.
PATIENCE_SECONDS = 180.0
PAUSED = ("SUSPENDED", "RESIZING")  # for submitit such a job is over
OnChange = Callable[[Task, bool, str | None], None]


class Launcher(Protocol):
    """Runs tasks to completion."""

    def __call__(self, tasks: Sequence[Task], on_change: OnChange, on_tick: Callable[[], None]) -> dict[str, str]:
        """Run the tasks that are not complete; a failing task does not stop the others.

        Args:
            tasks: The tasks, in order.
            on_change: Called after each step, with the task, whether it is complete, and why it failed, or None.
            on_tick: Called every few seconds.
        Returns: Name of each failed task to the reason.
        Raises: PipelineError: if another process is working in the folder of a task.
        """


def run_here(tasks: Sequence[Task], on_change: OnChange, on_tick: Callable[[], None]) -> dict[str, str]:
    """A :class:`Launcher` that runs tasks one after the other, in processes on this machine."""
    progress = Progress([step for task in tasks for step in task.steps])
    failures = {}
    for task in tasks:
        pipeline = task.pipeline()

        def tick(step: Step, text: str, seconds: float) -> None:
            progress.update(step, text, seconds)
            on_tick()

        def end(step: Step, seconds: float, task: Task = task) -> None:
            progress.end(step, seconds)
            on_change(task, False, None)

        try:
            pipeline.run(tick, on_skip=progress.skip, on_end=end)
            on_change(task, True, None)
        except CommandFailed as error:
            failures[task.name] = str(error)
            progress.fail(f"{task.name}: {error}")
            on_change(task, False, str(error))
    return failures


class RunTask:
    """The work of a job; submitit calls it on the cluster."""

    def __call__(self, task: Task) -> str | None:
        """Run a task. Returns: the reason if it failed, None if it is complete."""
        try:
            task.pipeline().run(lambda *_: None, on_skip=lambda step: None, on_end=lambda *_: None)
        except CommandFailed as error:
            return str(error)
        return None

    def checkpoint(self, task: Task) -> Any:
        """A job that runs out of time or is preempted is queued again and continues."""
        return import_extra("submitit.helpers", "--launcher slurm").DelayedSubmission(self, task)


class SlurmLauncher:
    """A :class:`Launcher` that submits one job per task."""

    def __init__(self, folder: Path, options: Mapping[str, str | int]) -> None:
        """
        Args:
            folder: Folder for submitit's files.
            options: For `sbatch`, in submitit's names: partition, time, gpus_per_node, cpus_per_task, mem, ...
        Raises:
            ImportError: with the command that installs submitit, if it is missing.
            SettingsError: if there is no Slurm, or an option is unknown.
        """
        submitit = import_extra("submitit", "--launcher slurm")
        if "time" not in options:
            raise SettingsError("--launcher slurm needs --slurm time=MINUTES: submitit's default is 5")
        self.folder = folder
        self.queue = SlurmQueue()
        try:
            self.executor = submitit.AutoExecutor(folder=folder, cluster=CLUSTER)
            self.executor.update_parameters(**{f"slurm_{name}": value for name, value in options.items()})
        except (RuntimeError, ValueError, NameError, AssertionError) as error:
            raise SettingsError(f"--launcher slurm: {error}") from error

    def __call__(self, tasks: Sequence[Task], on_change: OnChange, on_tick: Callable[[], None]) -> dict[str, str]:
        waiting = {}
        for task in tasks:
            if task.pipeline().is_complete():
                print(f"{task.name}: complete already", flush=True)
                on_change(task, True, None)
            else:
                waiting[task.name] = (task, self._job(task))
        failures = {}
        total = len(waiting)
        while waiting:
            time.sleep(POLL_SECONDS)
            for name, (task, job) in list(waiting.items()):
                if self._is_over(job, PATIENCE_SECONDS):
                    failure = self._failure(job)
                    self._job_file(task).unlink(missing_ok=True)
                    del waiting[name]
                    if failure is not None:
                        failures[name] = failure
                    state = "complete" if failure is None else f"FAILED: {failure}"
                    print(escape_terminal(f"[{total - len(waiting)}/{total}] {name}: {state}"), flush=True)
                    on_change(task, failure is None, failure)
            on_tick()
        return failures

    def _job(self, task: Task) -> Any:
        """The job still working on the task, submitted by an earlier call, or a new one."""
        file = self._job_file(task)
        if file.exists():
            job = self.executor._executor.job_class(self.folder, file.read_text().strip())
            if not self._is_over(job, 0):
                print(f"{task.name}: job {job.job_id}, submitted before", flush=True)
                return job
        self.executor.update_parameters(name=task.name[-100:])
        job = self.executor.submit(RunTask(), task)
        write_text(file, f"{job.job_id}\n")
        print(f"{task.name}: job {job.job_id}", flush=True)
        return job

    def _job_file(self, task: Task) -> Path:
        return self.folder / f"{task.name}.job"

    def _is_over(self, job: Any, patience: float) -> bool:
        """Whether a job has left a result, has ended by the accounting, or has not been in the queue for some time."""
        if job.done() and (job.paths.result_pickle.exists() or job.state.upper() not in PAUSED):
            return True
        return self.queue.has_left(job.job_id, patience=patience)

    @staticmethod
    def _failure(job: Any) -> str | None:
        if not job.done():  # submitit would wait for ever
            log = job.paths.stderr
            end = f"The end of {log}:\n\n{tail(log)}" if log.exists() else f"It has left no {log}"
            return (
                f"job {job.job_id} is no longer in Slurm's queue and has left no result (state: {job.state}): it was "
                f"ended from outside. {end}"
            )
        error = job.exception()
        return job.result() if error is None else str(error)


def parse_slurm_options(words: Sequence[str]) -> dict[str, str | int]:
    """Parse KEY=VALUE words.

    Raises: SettingsError: for a word of another form.
    """
    options = {}
    for word in words:
        key, equals, value = word.partition("=")
        if not (key and equals and value):
            raise SettingsError(f"--slurm {word!r}; expected KEY=VALUE, e.g. partition=gpu time=240 gpus_per_node=1")
        options[key] = int(value) if re.fullmatch("[0-9]{1,18}", value) else value
    return options
