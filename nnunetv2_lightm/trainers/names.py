"""Names that are none of our trainers': whose they are, and what a wrong one was meant to be."""

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
    """The trainer, with its budget in the right spelling, that a wrong name was probably meant to be."""
    name, seed = re.fullmatch(r"(.*?)((?:_seed\d+)?)", name, re.DOTALL).groups()
    trainer, budget = name, ""
    if match := BUDGET.fullmatch(name):
        trainer = match["trainer"]
        epochs, iterations = int(match["epochs"] or match["number"] or 0), int(match["iterations"] or 0)
        if epochs:
            budget = f"_{epochs}epochs" + (f"_{iterations}iters" if iterations else "") + seed
    keys = {_essence(known): known for known in trainers}
    near = get_close_matches(_essence(trainer), keys, n=1)
    return keys[near[0]] + budget if near else None


def search_trainer(name: str) -> type[nnUNetTrainer]:
    """The trainer, anyone's, that nnU-Net's own search finds, without the report that it prints.

    Raises: RuntimeError: if it finds none; it says where it looked. What a broken directory of ``nnUNet_extTrainer``
        raises is raised as well.
    """
    with contextlib.redirect_stdout(io.StringIO()):
        return recursive_find_trainer_class_by_name(name)


def elsewhere(name: str, directory: str) -> bool:
    """Whether nnU-Net will find the trainer in a directory of ``nnUNet_extTrainer`` that comes after ``directory``.

    Looked for by nnU-Net's own function. What a broken directory raises is raised here as well: it would end the
    search in any case.
    """
    entries = [entry for entry in (nnUNet_extTrainer.get() or "").split(os.pathsep) if os.path.exists(entry)]
    here = [os.path.samefile(entry, directory) for entry in entries]
    after = here.index(True) + 1 if True in here else len(entries)
    return any(
        recursive_find_python_class(entry, name, None, entry, cleanup_imports_from_base_folder=True) is not None
        for entry, is_here in zip(entries[after:], here[after:])
        if not is_here
    )


def _essence(name: str) -> str:
    """What tells trainers apart: "lightmunet" of nnUNetTrainerLightMUNet and LightM-UNetTrainer."""
    return re.sub(r"nnunet(v2)?|trainer|[^a-z0-9]", "", name.lower())
