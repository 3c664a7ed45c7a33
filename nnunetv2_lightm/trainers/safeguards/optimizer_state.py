"""The optimiser's state in a checkpoint: refused in one sentence if it is another recipe's, which PyTorch accepts or
fails on obscurely, or if there is none."""

from __future__ import annotations

from collections.abc import Mapping

import torch

# Options that distinguish optimisers and exist in every version of PyTorch.
TELLING = ("betas", "momentum", "muon")
# What nnU-Net reads from a checkpoint to continue, and what a model that is handed on goes without.
STATE_OF_A_TRAINING = ("current_epoch", "logging", "_best_ema", "optimizer_state", "grad_scaler_state")


class OtherRecipeError(RuntimeError):
    """The checkpoint was made with another recipe; the message says how to continue."""


class NoTrainingStateError(RuntimeError):
    """The checkpoint is for prediction alone, as `export --zip` writes it; nnU-Net ends with a bare KeyError."""

    def __init__(self, checkpoint: object) -> None:
        super().__init__(
            f"{checkpoint}: has weights and no state of a training, so it cannot be continued (--c) or validated "
            "(--val). Start a new training from the weights, nnUNetv2_train ... -pretrained_weights CHECKPOINT, or "
            "predict with it"
        )


def refuse_other_recipe(optimizer: torch.optim.Optimizer) -> None:
    """Make an optimiser's ``load_state_dict`` refuse the state of one that groups or updates parameters differently.

    PyTorch compares only the numbers of groups and parameters; given the state of another optimiser it fails in the
    first step, or never.
    """

    def compare(optimizer: torch.optim.Optimizer, state: Mapping) -> None:
        given, own = _groups(state["param_groups"]), _groups(optimizer.param_groups)
        if given == own:
            return
        raise OtherRecipeError(
            f"the checkpoint was made with another recipe: its optimiser had {_described(given)}; this trainer's, "
            f"{type(optimizer).__name__}, has {_described(own)}. Continue with the trainer that made the checkpoint "
            "(-tr), or start a new training from its weights: nnUNetv2_train ... -pretrained_weights CHECKPOINT, "
            "without --c"
        )

    optimizer.register_load_state_dict_pre_hook(compare)


def _groups(param_groups: list[Mapping]) -> list[tuple]:
    """For each group its size and which of the ``TELLING`` options it has; ``muon`` counts only if it is on."""
    return [(len(g["params"]), *(name for name in TELLING if name in g and g[name] is not False)) for g in param_groups]


def _described(groups: list[tuple]) -> str:
    return " and ".join(f"{size} parameters ({', '.join(options) or 'plain'})" for size, *options in groups)
