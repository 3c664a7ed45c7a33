"""Resolve trainer names that are not ours: find the owner, or suggest the nearest trainer."""

from __future__ import annotations

import contextlib
import io
import os
import re
from collections.abc import Iterable
from difflib import get_close_matches

from nnunetv2.paths import nnUNet_extTrainer
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer
from nnunetv2.utilities.find_class_by_name import recursive_find_python_class
from nnunetv2.utilities.find_objects import recursive_find_trainer_class_by_name

# A budget in any spelling: "_20epochs_50iters", "_20epochs_50", "20ep", "-20-50iterations"; or iterations alone.
BUDGET = re.compile(
    r"(?P<trainer>.+?)"
    r"(?:[_-]*(?P<epochs>\d{1,9})[_-]*e[a-z]*|[_-]+(?P<number>\d{1,9})(?!\d)|(?=[_-]*\d+[_-]*i))"
    r"(?:[_-]*(?P<iterations>\d{1,9})[_-]*[a-z]*)?[_-]*",
    re.IGNORECASE,
)


def nearest_trainer(name: str, trainers: Iterable[str]) -> str | None:
    """The trainer that a misspelled name most likely means, with its budget spelled correctly; None: no idea."""
    name, seed = re.fullmatch(r"(.*?)((?:_seed\d+)?)", name, re.DOTALL).groups()
    trainer, budget = name, ""
    if match := BUDGET.fullmatch(name):
        trainer = match["trainer"]
        epochs, iterations = int(match["epochs"] or match["number"] or 0), int(match["iterations"] or 0)
        if epochs:
            budget = f"_{epochs}epochs" + (f"_{iterations}iters" if iterations else "") + seed
    keys = {_normalised(known): known for known in trainers}
    near = get_close_matches(_normalised(trainer), keys, n=1)
    return keys[near[0]] + budget if near else None


def search_trainer(name: str) -> type[nnUNetTrainer]:
    """Any trainer that nnU-Net's own search finds, without the report it prints.

    Raises: RuntimeError: if there is none; it says where nnU-Net looked. Errors from a broken directory in
        ``nnUNet_extTrainer`` are passed on.
    """
    with contextlib.redirect_stdout(io.StringIO()):
        return recursive_find_trainer_class_by_name(name)


def found_in_later_directory(name: str, directory: str) -> bool:
    """Whether nnU-Net will find the trainer in a directory of ``nnUNet_extTrainer`` that comes after ``directory``.

    nnU-Net's own function does the search. Errors from a broken directory are passed on: they would end nnU-Net's
    search as well.
    """
    entries = [entry for entry in (nnUNet_extTrainer.get() or "").split(os.pathsep) if os.path.exists(entry)]
    here = [os.path.samefile(entry, directory) for entry in entries]
    after = here.index(True) + 1 if True in here else len(entries)
    return any(
        recursive_find_python_class(entry, name, None, entry, cleanup_imports_from_base_folder=True) is not None
        for entry, is_here in zip(entries[after:], here[after:])
        if not is_here
    )


def _normalised(name: str) -> str:
    """The part of a name that tells trainers apart: "lightmunet" in nnUNetTrainerLightMUNet and LightM-UNetTrainer."""
    return re.sub(r"nnunet(v2)?|trainer|[^a-z0-9]", "", name.lower())
