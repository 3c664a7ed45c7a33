"""How the trainers train: initial weights, optimiser, and which parameters it treats how.

The schedule is nnU-Net's poly for all of them.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import torch
from nnunetv2.training.lr_scheduler.polylr import PolyLRScheduler
from torch import nn
from torch.nn.modules.conv import _ConvNd

from ..networks.initialisation import initialise_near_identity
from ..optim import MuonAdamW


def one_group(network: nn.Module, weight_decay: float) -> list[dict]:
    """All parameters alike."""
    return [{"params": list(network.parameters()), "weight_decay": weight_decay}]


def decayed_and_free(network: nn.Module, weight_decay: float) -> list[dict]:
    """Weight decay on the matrices and kernels only: not on norms, biases, adjustment factors, A_log and D."""
    decayed, free = [], []
    for name, parameter in network.named_parameters():
        (decayed if parameter.ndim > 1 and not name.endswith("A_log") else free).append(parameter)
    return [{"params": decayed, "weight_decay": weight_decay}, {"params": free, "weight_decay": 0.0}]


@dataclass(frozen=True)
class MuonGroups:
    """Muon for the weights of linear and of full convolution layers, AdamW for all else, decayed as by
    :func:`decayed_and_free`.

    Attributes:
        to_adamw: Patterns of the layers that AdamW has too: those that read the image or write the logits, whose
            rows are few and not alike (Jordan et al. 2024), and an SSM's.
    """

    to_adamw: Sequence[str]

    def __call__(self, network: nn.Module, weight_decay: float) -> list[dict]:
        """The groups.

        Raises:
            ValueError: if a pattern fits no layer.
        """
        layers = {name: module for name, module in network.named_modules() if _is_matrix(module)}
        for pattern in self.to_adamw:
            if not any(re.search(pattern, name) for name in layers):
                raise ValueError(
                    f"no layer of {type(network).__name__} fits {pattern!r}, one of the layers that AdamW is to train; "
                    "the recipe is for another network"
                )
        matrices = {
            id(layer.weight): layer.weight
            for name, layer in layers.items()
            if not any(re.search(pattern, name) for pattern in self.to_adamw)
        }
        others = [
            {**group, "params": [p for p in group["params"] if id(p) not in matrices]}
            for group in decayed_and_free(network, weight_decay)
        ]
        return [*others, {"params": list(matrices.values()), "weight_decay": weight_decay, "muon": True}]


def _is_matrix(module: nn.Module) -> bool:
    """Not a depthwise convolution, whose kernels are one number per channel and offset."""
    return isinstance(module, nn.Linear) or (isinstance(module, _ConvNd) and module.groups == 1)


@dataclass(frozen=True)
class Recipe:
    """An optimiser and how a network is made ready for it.

    Attributes:
        optimizer: Its class.
        initial_lr: From which the learning rate falls to 0.
        weight_decay: Of the groups that ``parameter_groups`` decays.
        options: Other arguments of the optimiser.
        parameter_groups: Torch's parameter groups of a network, given the weight decay.
        initialise: Draws initial weights anew; None: the network's own.
    """

    optimizer: type[torch.optim.Optimizer]
    initial_lr: float
    weight_decay: float
    options: Mapping[str, object] = field(default_factory=dict)
    parameter_groups: Callable[[nn.Module, float], list[dict]] = one_group
    initialise: Callable[[nn.Module], None] | None = None

    def optimizer_for(
        self, network: nn.Module, num_epochs: int, initial_lr: float, weight_decay: float
    ) -> tuple[torch.optim.Optimizer, PolyLRScheduler]:
        """Optimiser and schedule; learning rate and weight decay are the trainer's, which a user's subclass may set."""
        groups = self.parameter_groups(network, weight_decay)
        optimizer = self.optimizer(groups, lr=initial_lr, **self.options)
        return optimizer, PolyLRScheduler(optimizer, initial_lr, num_epochs)


ADAMW = Recipe(torch.optim.AdamW, initial_lr=1e-3, weight_decay=1e-2, parameter_groups=decayed_and_free)

# The paper's section 3, which names neither momentum nor weight decay: both are 0, as in PyTorch's SGD.
PAPER_SGD = Recipe(torch.optim.SGD, initial_lr=1e-4, weight_decay=0.0)

# That of the authors' code.
RELEASED_ADAM = Recipe(torch.optim.Adam, initial_lr=1e-4, weight_decay=1e-5, options={"eps": 1e-5})


def muon(*to_adamw: str, initialise: Callable[[nn.Module], None] | None = None) -> Recipe:
    """AdamW 1e-3, and Muon 2e-3 for all matrices but those of the layers named; weight decay 1e-2."""
    options = {"muon_lr_factor": 2.0, "momentum": 0.95}
    groups = MuonGroups(to_adamw)
    return Recipe(MuonAdamW, 1e-3, 1e-2, options=options, parameter_groups=groups, initialise=initialise)


LIGHTM_UNET_MUON = muon(
    r"\bstem\.", r"\bseg_layers\.", r"\.x_proj$", r"\.dt_proj$", initialise=initialise_near_identity
)

# nnU-Net's own U-Nets: the first convolution is the stem's, or that of the first stage.
UNET_MUON = muon(r"\bencoder\.(stem|stages\.0\.0)\.convs\.0\.", r"\bseg_layers\.")
