"""Weights of another network: one clear sentence instead of PyTorch's page of parameter names."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterable, Mapping

from torch import Tensor, nn

from ...files import some_of

# Architecture, its trainer, and patterns that all occur among its parameters' names; the first match counts. A state
# dict carries no other hint: the checkpoint's trainer_name does not reach load_state_dict.
ARCHITECTURES = (
    ("LightMUNet", "nnUNetTrainerLightMUNet", (r"stem\.pointwise", r"\.vssm\.")),
    ("an ablation of LightMUNet", "", (r"stem\.pointwise", r"decoder\.blocks")),
    ("LightMUNetReleased, head revision", "nnUNetTrainerLightMUNetReleased", (r"convInit\.0\.conv", r"\.mamba\.A_log")),
    ("LightMUNetReleased, first revision", "nnUNetTrainerLightMUNetReleasedFirst", (r"convInit", r"\.mamba\.A_log")),
    ("MONAI's SegResNet", "nnUNetTrainerSegResNet", (r"convInit", r"down_layers")),
    ("MONAI's SwinUNETR", "nnUNetTrainerSwinUNETR", (r"swinViT\.",)),
    ("MONAI's UNETR", "nnUNetTrainerUNETR", (r"vit\.patch_embedding", r"decoder2\.")),
    ("U-Mamba with Mamba in the bottleneck", "nnUNetTrainerUMambaBot", (r"encoder\.stages", r"^mamba(_layer)?\.")),
    ("U-Mamba with Mamba in the encoder", "nnUNetTrainerUMambaEnc", (r"encoder\.", r"mamba_layers\.")),
    ("nnU-Net's ResidualEncoderUNet", "nnUNetTrainer", (r"encoder\.stages\.\d+\.blocks", r"decoder\.seg_layers")),
    ("nnU-Net's PlainConvUNet", "nnUNetTrainer", (r"encoder\.stages\.\d+\.\d+\.convs", r"decoder\.seg_layers")),
)
SHOWN = 3


class OtherArchitectureError(RuntimeError):
    """The weights belong to another network; the message says to which."""


def refuse_other_weights(network: nn.Module) -> nn.Module:
    """Make a network's ``load_state_dict`` say which network the weights belong to, if not to this one.

    nnU-Net loads strictly in training and in prediction. With ``strict=False`` names may be missing, as in PyTorch.
    """
    network.register_load_state_dict_pre_hook(_compare)
    return network


def architecture_of(names: Iterable[str]) -> tuple[str, str] | None:
    """The architecture with parameters of these names, and its trainer ("" if several fit); None: unknown."""
    names = list(names)
    for architecture, trainer, patterns in ARCHITECTURES:
        if all(any(re.search(pattern, name) for name in names) for pattern in patterns):
            return architecture, trainer
    return None


def _compare(network: nn.Module, weights: Mapping[str, Tensor], prefix: str, *_: object) -> None:
    own = network.state_dict()
    given = {name[len(prefix) :]: weight for name, weight in weights.items() if name.startswith(prefix)}
    missing = [name for name in own if name not in given]
    reshaped = [name for name in own if name in given and own[name].shape != given[name].shape]
    # Surplus names are left to PyTorch: a network may drop those of parts that it does not need.
    if not _is_strict():
        missing = []
    if missing or reshaped:
        theirs, ours = architecture_of(given), architecture_of(own)
        same = theirs is not None and theirs == ours
        message = _same(own, given, missing, reshaped) if same else _other(theirs, given)
        raise OtherArchitectureError(f"the weights do not belong to this network, {_name(ours, network)}: {message}")


def _is_strict() -> bool:
    """Whether the running ``load_state_dict`` is: PyTorch tells hooks that it is, whatever its caller asked for."""
    frame = inspect.currentframe()
    while frame is not None and frame.f_code is not nn.Module.load_state_dict.__code__:
        frame = frame.f_back
    return frame is not None and frame.f_locals["strict"]


def _name(architecture: tuple[str, str] | None, network: nn.Module) -> str:
    return type(network).__name__ if architecture is None else architecture[0]


def _other(theirs: tuple[str, str] | None, given: Mapping[str, Tensor]) -> str:
    count = sum(weight.numel() for weight in given.values())
    if theirs is None:
        return f"they belong to an unknown architecture with {count:,} values: {some_of(given)}"
    architecture, trainer = theirs
    return f"they belong to {architecture}, {count:,} values. {_advice(trainer)}"


def _advice(trainer: str) -> str:
    if not trainer:
        return "Use the trainer that the checkpoint was made with"
    return f"The trainer for it is {trainer}: train, continue and predict with -tr {trainer}"


def _same(own: Mapping[str, Tensor], given: Mapping[str, Tensor], missing: list[str], reshaped: list[str]) -> str:
    if missing:
        message = f"they come from another version of it, without {some_of(missing, SHOWN)}"
        return message + "; install the version of nnunetv2-lightm that made the checkpoint, or train again"
    changes = [f"{name} is {_size(given[name])}, needed is {_size(own[name])}" for name in reshaped]
    return (
        "they are for another number of channels, classes or dimensions, or for other plans: "
        f"{some_of(changes, SHOWN, separator='; ')}. Use the dataset.json and plans.json of that training"
    )


def _size(weight: Tensor) -> str:
    return "x".join(map(str, weight.shape)) or "a single value"
