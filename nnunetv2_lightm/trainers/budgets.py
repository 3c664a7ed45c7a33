"""Budget suffixes: ``<trainer>_20epochs``, ``<trainer>_20epochs_50iters`` and both with ``_seed1`` name trainer
classes, for any ``<trainer>`` that nnU-Net can find.

A class is created on first use and cached, so that every look-up returns the same class. With N training iterations per
epoch there are ceil(N / 5) validation iterations, nnU-Net's own ratio (250 to 50). A seed fixes the initial weights and
all other randomness in the training process; nnU-Net's augmentation workers stay unseeded. Other people's trainers get
the same lock as ours, one training of a fold at a time, and the check of the images to segment (safeguards/files.py).
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
_made: dict[tuple[str, str, str], type[nnUNetTrainer]] = {}  # keyed by name, and by the base's module and name


class Budget(NamedTuple):
    """What a suffix sets; None: the trainer's own value, or nnU-Net's."""

    epochs: int
    iterations: int | None = None
    seed: int | None = None


def split_budget(name: str) -> tuple[str, Budget] | None:
    """Split a name into ("nnUNetTrainerX", budget); None if it has no budget suffix."""
    match = SUFFIX.fullmatch(name)
    if match is None:
        return None
    numbers = (match[part] for part in Budget._fields)
    return match["trainer"], Budget(*(None if number is None else int(number) for number in numbers))


def with_budget(base: type[nnUNetTrainer], name: str, budget: Budget) -> type[nnUNetTrainer]:
    """The trainer ``base`` under another name, with that budget."""
    # Not the base class itself: nnU-Net imports a directory in nnUNet_extTrainer again at every look-up.
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
        # nnU-Net saves every 50 epochs: a short run that gets killed would lose everything.
        self.save_every = min(self.save_every, max(1, budget.epochs // 10))

    def initialize(self) -> None:
        _seed(budget.seed)
        base.initialize(self)

    def on_train_start(self) -> None:
        if not self.was_initialized:  # as nnU-Net does next; it would seed again
            self.initialize()
        # Without workers this process draws the batches: not those of the first epoch again, nor those of another GPU.
        if self.current_epoch or self.local_rank:
            place = np.random.SeedSequence([budget.seed, self.current_epoch, self.local_rank])
            _seed(int(place.generate_state(1)[0]))
        base.on_train_start(self)

    def run_training(self) -> None:
        train_alone(self, partial(base.run_training, self))

    given = [f"{number} {part}" for part, number in budget._asdict().items() if number is not None]
    doc = f"{base.__name__} with a budget: {', '.join(given)}."
    namespace = {"__init__": __init__, "__module__": __name__, "__doc__": doc}
    if budget.seed is not None:
        namespace |= {"initialize": initialize, "on_train_start": on_train_start}
    if not issubclass(base, Safeguards):  # these have the lock already
        namespace["run_training"] = run_training
    _made[key] = type(name, (base,), namespace)
    return _made[key]


def _seed(seed: int) -> None:
    random.seed(seed)
    np.random.seed(seed)  # the generator of batchgenerators
    torch.manual_seed(seed)


def __getattr__(name: str) -> type[nnUNetTrainer]:
    """Lets pickle find a created class by name, also in a new process."""
    if split_budget(name) is not None:
        from . import find_trainer

        trainer = find_trainer(name)
        if trainer is not None:
            return trainer
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
