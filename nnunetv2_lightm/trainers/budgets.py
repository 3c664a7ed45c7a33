"""Budget suffixes: ``<trainer>_20epochs``, ``..._50iters`` and ``..._seed1`` after them are trainers too, whoever's
``<trainer>`` is.

A class is made when its name is asked for, and kept, so that it is the same class at each look-up. N training
iterations an epoch go with ceil(N / 5) validation iterations, nnU-Net's own ratio (250 to 50). A seed sets the
initial weights, and all else that is random in the training process; nnU-Net's augmentation workers stay unseeded.
Other people's trainers get the lock that ours have, one training of a fold at a time, and the check of the images to
segment (safeguards/files.py).
"""

from __future__ import annotations

import random
import re
from functools import partial
from typing import NamedTuple

import numpy as np
import torch
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer

from .safeguards import Safeguards, train_alone

SUFFIX = re.compile(
    r"(?P<trainer>\w+?)_(?P<epochs>[1-9]\d{0,8})epochs?(?:_(?P<iterations>[1-9]\d{0,8})iters?)?(?:_seed(?P<seed>\d{1,9}))?"
)
_made: dict[tuple[str, str, str], type[nnUNetTrainer]] = {}  # by name, and by the module and name of the base


class Budget(NamedTuple):
    """What a suffix asks for; None where it leaves nnU-Net's or the trainer's own."""

    epochs: int
    iterations: int | None = None
    seed: int | None = None


def split_budget(name: str) -> tuple[str, Budget] | None:
    """("nnUNetTrainerX", budget) of a name with a budget suffix; None if it has none."""
    match = SUFFIX.fullmatch(name)
    if match is None:
        return None
    numbers = (match[part] for part in Budget._fields)
    return match["trainer"], Budget(*(None if number is None else int(number) for number in numbers))


def with_budget(base: type[nnUNetTrainer], name: str, budget: Budget) -> type[nnUNetTrainer]:
    """The trainer ``base`` under another name, with that budget."""
    # Not by the base itself: nnU-Net imports a directory of nnUNet_extTrainer anew at each look-up.
    key = name, base.__module__, base.__qualname__
    if key in _made:
        return _made[key]

    def __init__(
        self,
        plans: dict,
        configuration: str,
        fold: int,
        dataset_json: dict,
        device: torch.device = torch.device("cuda"),
    ) -> None:
        base.__init__(self, plans, configuration, fold, dataset_json, device)
        self.num_epochs = budget.epochs
        if budget.iterations is not None:
            self.num_iterations_per_epoch = budget.iterations
            self.num_val_iterations_per_epoch = -(-budget.iterations // 5)
        # nnU-Net saves every 50 epochs: a short run that is killed would lose everything.
        self.save_every = min(self.save_every, max(1, budget.epochs // 10))

    def initialize(self) -> None:
        random.seed(budget.seed)
        np.random.seed(budget.seed)  # the generator of batchgenerators
        torch.manual_seed(budget.seed)
        base.initialize(self)

    def run_training(self) -> None:
        train_alone(self, partial(base.run_training, self))

    given = [f"{number} {part}" for part, number in budget._asdict().items() if number is not None]
    doc = f"{base.__name__} with a budget: {', '.join(given)}."
    namespace = {"__init__": __init__, "__module__": __name__, "__doc__": doc}
    if budget.seed is not None:
        namespace["initialize"] = initialize
    if not issubclass(base, Safeguards):  # which has the lock already
        namespace["run_training"] = run_training
    _made[key] = type(name, (base,), namespace)
    return _made[key]


def __getattr__(name: str) -> type[nnUNetTrainer]:
    """Pickle finds a made class here by its name, in a fresh process as well."""
    if split_budget(name) is not None:
        from . import find_trainer

        trainer = find_trainer(name)
        if trainer is not None:
            return trainer
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
