"""Budget suffixes: ``<trainer>_20epochs`` and ``<trainer>_20epochs_50iters`` are trainers too.

A class is made when its name is asked for, and kept, so that it is the same class at each look-up. N training
iterations an epoch go with ceil(N / 5) validation iterations, nnU-Net's own ratio (250 to 50).
"""

from __future__ import annotations

import re

import torch
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer

SUFFIX = re.compile(r"(?P<trainer>\w+?)_(?P<epochs>[1-9]\d*)epochs?(?:_(?P<iterations>[1-9]\d*)iters?)?")
_made: dict[str, type[nnUNetTrainer]] = {}


def split_budget(name: str) -> tuple[str, int, int | None] | None:
    """("nnUNetTrainerX", epochs, iterations or None) of a name with a budget suffix; None if it has none."""
    match = SUFFIX.fullmatch(name)
    if match is None:
        return None
    iterations = match["iterations"]
    return match["trainer"], int(match["epochs"]), None if iterations is None else int(iterations)


def with_budget(base: type[nnUNetTrainer], name: str, epochs: int, iterations: int | None) -> type[nnUNetTrainer]:
    """The trainer ``base`` under another name, with that many epochs and training iterations an epoch."""
    if name in _made:
        return _made[name]

    def __init__(
        self,
        plans: dict,
        configuration: str,
        fold: int,
        dataset_json: dict,
        device: torch.device = torch.device("cuda"),
    ) -> None:
        base.__init__(self, plans, configuration, fold, dataset_json, device)
        self.num_epochs = epochs
        if iterations is not None:
            self.num_iterations_per_epoch = iterations
            self.num_val_iterations_per_epoch = -(-iterations // 5)
        # nnU-Net saves every 50 epochs: a short run that is killed would lose everything.
        self.save_every = min(self.save_every, max(1, epochs // 10))

    budget = f"{epochs} epochs" + ("" if iterations is None else f" of {iterations} training iterations")
    namespace = {"__init__": __init__, "__module__": __name__, "__doc__": f"{base.__name__} with {budget}."}
    _made[name] = type(name, (base,), namespace)
    return _made[name]


def __getattr__(name: str) -> type[nnUNetTrainer]:
    """Pickle finds a made class here by its name, in a fresh process as well."""
    if split_budget(name) is not None:
        from . import find_trainer

        trainer = find_trainer(name)
        if trainer is not None:
            return trainer
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
