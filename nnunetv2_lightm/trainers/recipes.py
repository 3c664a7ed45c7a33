"""Training recipes: initial weights, optimiser, and its parameter groups. All use nnU-Net's poly schedule."""

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
    """A single group with all parameters."""
    return [{"params": list(network.parameters()), "weight_decay": weight_decay}]


def decayed_and_free(network: nn.Module, weight_decay: float) -> list[dict]:
    """Two groups: weight decay on matrices and kernels, none on norms, biases, adjustment factors, A_log and D."""
    decayed, free = [], []
    for name, parameter in network.named_parameters():
        (decayed if parameter.ndim > 1 and not name.endswith("A_log") else free).append(parameter)
    return [{"params": decayed, "weight_decay": weight_decay}, {"params": free, "weight_decay": 0.0}]


@dataclass(frozen=True)
class MuonGroups:
    """Muon for the weights of linear and full convolution layers, AdamW for the rest; weight decay as in
    :func:`decayed_and_free`.

    Attributes:
        to_adamw: Patterns of layers that AdamW trains although they are matrices: those that read the image or write
            the logits, whose few rows differ in meaning (Jordan et al. 2024), and those of an SSM.
    """

    to_adamw: Sequence[str]

    def __call__(self, network: nn.Module, weight_decay: float) -> list[dict]:
        """The parameter groups of a network.

        Raises:
            ValueError: if a pattern matches no layer.
        """
        layers = {name: module for name, module in network.named_modules() if _is_matrix(module)}
        for pattern in self.to_adamw:
            if not any(re.search(pattern, name) for name in layers):
                raise ValueError(
                    f"no layer of {type(network).__name__} matches {pattern!r}, which AdamW should train; "
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
    """True for linear layers and full convolutions; a depthwise convolution has one number per channel and offset."""
    return isinstance(module, nn.Linear) or (isinstance(module, _ConvNd) and module.groups == 1)


@dataclass(frozen=True)
class Recipe:
    """An optimiser, and how a network is prepared for it.

    Attributes:
        optimizer: The optimiser's class.
        initial_lr: Learning rate at the start; the schedule lowers it to 0.
        weight_decay: Weight decay for the groups to which ``parameter_groups`` applies it.
        options: Further arguments for the optimiser.
        parameter_groups: Makes PyTorch's parameter groups from a network and the weight decay.
        initialise: Draws new initial weights; None: keep the network's own.
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
        """Optimiser and schedule. A user's subclass of the trainer may set its own learning rate and weight decay."""
        groups = self.parameter_groups(network, weight_decay)
        optimizer = self.optimizer(groups, lr=initial_lr, **self.options)
        return optimizer, PolyLRScheduler(optimizer, initial_lr, num_epochs)


ADAMW = Recipe(torch.optim.AdamW, initial_lr=1e-3, weight_decay=1e-2, parameter_groups=decayed_and_free)

# Section 3 of the paper names neither momentum nor weight decay: both are 0, PyTorch's defaults for SGD.
PAPER_SGD = Recipe(torch.optim.SGD, initial_lr=1e-4, weight_decay=0.0)

# From the authors' code.
RELEASED_ADAM = Recipe(torch.optim.Adam, initial_lr=1e-4, weight_decay=1e-5, options={"eps": 1e-5})


def muon(*to_adamw: str, initialise: Callable[[nn.Module], None] | None = None) -> Recipe:
    """Muon 2e-3 for all matrices except those of the named layers, AdamW 1e-3 for the rest; weight decay 1e-2."""
    options = {"muon_lr_factor": 2.0, "momentum": 0.95}
    groups = MuonGroups(to_adamw)
    return Recipe(MuonAdamW, 1e-3, 1e-2, options=options, parameter_groups=groups, initialise=initialise)


LIGHTM_UNET_MUON = muon(
    r"\bstem\.", r"\bseg_layers\.", r"\.x_proj$", r"\.dt_proj$", initialise=initialise_near_identity
)
# The paper's network without VSSM has no SSM whose projections AdamW would train.
CONV3_MUON = muon(r"\bstem\.", r"\bseg_layers\.", initialise=initialise_near_identity)

# nnU-Net's own U-Nets: the first convolution is in the stem, or in the first stage if there is no stem.
UNET_MUON = muon(r"\bencoder\.(stem|stages\.0\.0)\.convs\.0\.", r"\bseg_layers\.")
