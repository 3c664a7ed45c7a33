"""Cases processed in parallel and independently: a refused one does not stop the others."""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, field
from typing import Any

import SimpleITK as sitk
from tqdm import tqdm

from ..limits import usable_cpus
from ._errors import CaseRefused, ConversionError

# Windows waits for no more processes at a time (Python: concurrent.futures.process).
MOST_WORKERS = 61


@dataclass
class CaseOutcome:
    """What `convert_case` says about a case: repairs and notes; `reason` if it was refused."""

    repairs: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    reason: str | None = None


def default_workers() -> int:
    """The cores this process may use, at most 8: a worker on a large CT volume needs about 2 GB."""
    return min(usable_cpus(), 8)


def process_cases(
    convert_case: Callable[..., CaseOutcome],
    jobs: Sequence[tuple[Any, ...]],
    *,
    workers: int,
    title: str,
    show_progress: bool,
) -> list[CaseOutcome]:
    """Call `convert_case(*job)` for every job, in this process if one worker is enough.

    Returns: The outcomes in the order of the jobs.
    Raises:
        ConversionError: if a worker dies.
    """
    workers = min(workers, len(jobs), MOST_WORKERS)
    with tqdm(total=len(jobs), desc=title, unit="case", file=sys.stderr, disable=not show_progress) as bar:
        if workers <= 1:
            outcomes = []
            for job in jobs:
                outcomes.append(_convert_one(convert_case, job))
                bar.update()
            return outcomes
        # Spawned workers behave alike on every system and inherit no lock.
        executor = ProcessPoolExecutor(workers, multiprocessing.get_context("spawn"), initializer=_prepare_worker)
        try:
            futures: list[Future[CaseOutcome]] = [executor.submit(_convert_one, convert_case, job) for job in jobs]
            for future in as_completed(futures):
                future.result()
                bar.update()
            return [future.result() for future in futures]
        except BrokenProcessPool as error:
            raise ConversionError(
                f"a worker process was killed, probably for lack of memory; try fewer than --workers {workers}"
            ) from error
        finally:
            executor.shutdown(wait=True, cancel_futures=True)


def end_workers() -> None:
    """End all workers at once; whatever they were writing is discarded."""
    for worker in multiprocessing.active_children():
        worker.kill()


def _convert_one(convert_case: Callable[..., CaseOutcome], job: tuple[Any, ...]) -> CaseOutcome:
    # ITK warns on stderr, in the middle of the progress bar, about headers that are checked here anyway.
    warned = sitk.ProcessObject.GetGlobalWarningDisplay()
    sitk.ProcessObject.SetGlobalWarningDisplay(False)
    try:
        return convert_case(*job)
    except CaseRefused as refusal:
        return CaseOutcome(reason=str(refusal))
    except MemoryError:
        return CaseOutcome(reason="does not fit into memory; try --workers 1")
    finally:
        sitk.ProcessObject.SetGlobalWarningDisplay(warned)


def _prepare_worker() -> None:
    # Ctrl-C reaches the workers too: they end at once and leave the clean-up to the parent.
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    sitk.ProcessObject.SetGlobalDefaultNumberOfThreads(1)
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    # If the parent is killed, workers would wait forever, or write into a folder that the next run removes.
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)
