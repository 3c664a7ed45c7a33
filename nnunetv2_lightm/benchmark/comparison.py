"""Runs a comparison: prepares it, launches the remaining runs, and keeps results.json up to date."""

from __future__ import annotations

import time

from ..complexity.plans import PlannedConfiguration
from ..runs.pipeline import folder_lock
from ..runs.progress import format_seconds
from .collect import collect
from .costs import MeasuredCosts, load_costs, write_costs
from .earlier import check_trainings, costs_to_reuse
from .launchers import Launcher
from .results import BenchmarkResults, load_results, write_results
from .settings import Settings
from .tasks import PlannedRun, Task, plan_runs, preparation_tasks, run_task, trained_before

SECONDS_BETWEEN_RESULTS = 60.0


class Comparison:
    """A comparison in progress."""

    def __init__(self, settings: Settings, planned: PlannedConfiguration, launch: Launcher) -> None:
        self.settings, self.planned, self.launch = settings, planned, launch
        self.runs: list[PlannedRun] = []
        self.commands: list[tuple[str, ...]] = [settings.command]
        self.complete: set[str] = set()
        self.failures: dict[str, str] = {}
        self._written = 0.0

    def run(self) -> bool:
        """Run everything that is not complete yet.

        Returns: whether everything is complete.
        Raises: an error of the settings, results, budget, pipeline or evaluation that stops the whole comparison.
        """
        from .report.document import write_report  # loads matplotlib: not before there is something to draw

        reused = costs_to_reuse(self.settings, self.planned)
        self.settings.folder.mkdir(parents=True, exist_ok=True)
        with folder_lock(self.settings.folder):
            file = self.settings.results_file
            earlier = load_results(file) if file.exists() else None
            if earlier is None:
                self.write()  # from now on the folder is this comparison's
            if reused:
                self._reuse(reused)
            # What earlier calls wrote stays as it is until this one is prepared.
            if self.launch(preparation_tasks(self.settings), lambda *_: None, lambda: None):
                print("\nbenchmark: nothing was trained because of the failure above; fix it, or leave out the trainer")
                return False
            file = self.settings.calibration_file
            costs = load_costs(file) if self.settings.timings or file.exists() else None
            self.runs = plan_runs(self.settings, costs)
            if earlier is not None and (kept := trained_before(self.settings, earlier, self.runs)):
                self.runs = [*kept, *self.runs]
                others = [command for command in earlier.commands if command != self.settings.command]
                self.commands = [*others, self.settings.command]
            check_trainings(self.settings, self.planned, self.runs)
            tasks = [run_task(self.settings, run) for run in self.runs]
            self.complete = {task.name for task in tasks if task.pipeline().is_complete()}
            self.write()
            print(self._outlook(costs), flush=True)
            self.failures = self.launch(tasks, self._on_change, self._on_tick)
            write_report([self.write()], self.settings.folder, self.settings.title)
        return not self.failures

    def _reuse(self, costs: MeasuredCosts) -> None:
        """Copy the costs of trainers that the calibration lacks; those that it has may have decided budgets already."""
        file = self.settings.calibration_file
        if file.exists():
            own = load_costs(file)
            costs = own.with_trainers({**costs.trainers, **own.trainers})
        write_costs(costs, file)

    def _outlook(self, costs: MeasuredCosts | None) -> str:
        """Estimated duration of the remaining runs, if the costs of their trainers are known."""
        left = [run for run in self.runs if run.key not in self.complete]
        done = f"{len(self.runs) - len(left)} of {len(self.runs)} runs are complete"
        if costs is None or any(run.trainer not in costs.trainers for run in left):
            return f"\n{done}\n"
        seconds = sum(
            costs.trainers[run.trainer].median.training_seconds(
                run.epochs, run.iterations_per_epoch, run.validation_iterations_per_epoch
            )
            for run in left
        )
        return f"\n{done}; training the others takes about {format_seconds(seconds)}, by the calibration\n"

    def write(self) -> BenchmarkResults:
        """Write the current state to results.json."""
        state = {"commands": self.commands, "complete": self.complete, "failures": self.failures}
        results = collect(self.settings, self.planned, self.runs, **state)
        write_results(results, self.settings.results_file)
        self._written = time.monotonic()
        return results

    def _on_change(self, task: Task, complete: bool, failure: str | None) -> None:
        if complete:
            self.complete.add(task.name)
        if failure is not None:
            self.failures[task.name] = failure
        self.write()

    def _on_tick(self) -> None:
        if time.monotonic() - self._written > SECONDS_BETWEEN_RESULTS:
            self.write()
