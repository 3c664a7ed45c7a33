"""nnU-Net's commands, run in this process through their own entry points.

Wherever nnU-Net starts processes, threads do the work: each process would import PyTorch again, which takes seconds.
The end-to-end tests run the installed commands as they are.
"""

from __future__ import annotations

import json
import multiprocessing
import queue
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from multiprocessing.pool import ThreadPool
from pathlib import Path

import matplotlib
import numpy as np
import pytest
import torch
from nnunetv2.experiment_planning.dataset_fingerprint.fingerprint_extractor import DatasetFingerprintExtractor
from nnunetv2.experiment_planning.experiment_planners.default_experiment_planner import ExperimentPlanner
from nnunetv2.experiment_planning.plan_and_preprocess_entrypoints import plan_and_preprocess_entry
from nnunetv2.inference import data_iterators
from nnunetv2.run.run_training import run_training_entry
from nnunetv2.utilities import utils

from .raw_dataset import write_raw_dataset

FOLDERS = ("nnUNet_raw", "nnUNet_preprocessed", "nnUNet_results")
TRAINER = "nnUNetTrainerLightMUNet_1epochs_2iters"


class Nnunet:
    """nnU-Net's three folders and its commands.

    Attributes:
        root: Holds the three folders.
        max_patch_voxels: What the planner may plan, in place of GPU memory: it takes seconds to measure that.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self.max_patch_voxels = 16**3

    def run(self, entry_point: Callable[[], None], *arguments: object) -> None:
        """Run a command with these arguments."""
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(sys, "argv", [entry_point.__name__, *map(str, arguments)])
            entry_point()

    def make_dataset(self, name: str, *configurations: str, **phantoms: object) -> None:
        """Write a raw data set of phantoms, plan and preprocess it."""
        write_raw_dataset(self.root / "nnUNet_raw" / name, **phantoms)
        self.plan_and_preprocess(name, *configurations)

    def plan_and_preprocess(self, dataset: str, *configurations: str) -> None:
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("nnUNet_n_proc_DA", "1")  # nnU-Net's planner does not take its own "no workers", 0
            arguments = ("-d", int(dataset[7:10]), "-npfp", 1, "-np", 1, "-c", *configurations)
            self.run(plan_and_preprocess_entry, *arguments, "--verify_dataset_integrity")

    def train(
        self, dataset: str, configuration: str, *options: object, fold: object = 0, trainer: str = TRAINER
    ) -> Path:
        """nnUNetv2_train on the CPU; returns the folder of the fold."""
        self.run(run_training_entry, dataset, configuration, fold, "-tr", trainer, "-device", "cpu", *options)
        return self.fold(dataset, configuration, fold, trainer)

    def fold(self, dataset: str, configuration: str, fold: object = 0, trainer: str = TRAINER) -> Path:
        return self.root / "nnUNet_results" / dataset / f"{trainer}__nnUNetPlans__{configuration}" / f"fold_{fold}"

    def plans_file(self, dataset: str) -> Path:
        return self.root / "nnUNet_preprocessed" / dataset / "nnUNetPlans.json"

    def plans(self, dataset: str) -> dict:
        return json.loads(self.plans_file(dataset).read_text())

    def estimate_memory(self, patch_size: list[int], *_: object) -> float:
        """In the planner's own units, so that a batch of two of the largest patches just fits."""
        reference = {2: 85_000_000 * 6, 3: 560_000_000}[len(patch_size)]
        return float(np.prod(patch_size)) / self.max_patch_voxels * reference


class _Threads:
    """What nnU-Net uses of multiprocessing's context."""

    Pool = staticmethod(ThreadPool)
    Process = threading.Thread


class _Manager:
    """What nnU-Net uses of multiprocessing's manager."""

    Event = staticmethod(threading.Event)
    Queue = staticmethod(queue.Queue)


@contextmanager
def threads_for_processes(folders: Mapping[str, Path]) -> Iterator[pytest.MonkeyPatch]:
    """nnU-Net's folders, by variable, and threads in place of its worker processes."""
    num_threads = torch.get_num_threads()
    get_context = multiprocessing.get_context
    with pytest.MonkeyPatch.context() as patch:
        for name, folder in folders.items():
            patch.setenv(name, str(folder))
        patch.setenv("nnUNet_n_proc_DA", "0")
        patch.setattr(multiprocessing, "get_context", lambda m=None: _Threads if m == "spawn" else get_context(m))
        patch.setattr(data_iterators, "Manager", _Manager)
        # For patches so small waking a thread costs more than its work; the commands take as many as there are cores.
        patch.setattr(multiprocessing, "cpu_count", lambda: 1)
        torch.set_num_threads(1)
        for name in ("figure.dpi", "savefig.dpi"):
            patch.setitem(matplotlib.rcParams, name, 10)  # progress.png, after each epoch
        try:
            yield patch
        finally:
            torch.set_num_threads(num_threads)


@contextmanager
def nnunet_in_process(root: Path) -> Iterator[Nnunet]:
    """nnU-Net with folders of its own below root, without worker processes."""
    nnunet = Nnunet(root)
    collect = DatasetFingerprintExtractor.collect_foreground_intensities
    folders = {name: root / name for name in FOLDERS}
    for folder in folders.values():
        folder.mkdir()
    with threads_for_processes(folders) as patch:
        patch.setattr(utils, "Pool", ThreadPool)
        patch.setattr(ExperimentPlanner, "static_estimate_VRAM_usage", staticmethod(nnunet.estimate_memory))
        # nnU-Net draws millions of voxels from a case, also from a small one.
        few = staticmethod(lambda segmentation, images, num_samples: collect(segmentation, images))
        patch.setattr(DatasetFingerprintExtractor, "collect_foreground_intensities", few)
        yield nnunet
