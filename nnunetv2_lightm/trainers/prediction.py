"""A trainer's network as nnU-Net's prediction builds it."""

from __future__ import annotations

import inspect

from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer
from nnunetv2.utilities.plans_handling.plans_handler import ConfigurationManager, PlansManager
from torch import nn


def build_for_prediction(
    trainer: type[nnUNetTrainer], plans: PlansManager, configuration: ConfigurationManager, channels: int, outputs: int
) -> nn.Module:
    """The network without deep supervision (nnU-Net: inference/predict_from_raw_data.py).

    Args:
        trainer: Any trainer, also one whose ``build_network_architecture`` is that of nnU-Net before 2.8.
        plans: The plans.
        configuration: One of their configurations.
        channels: Channels of the input.
        outputs: Channels of the logits.
    """
    planned = (plans, configuration)
    if "plans_manager" not in inspect.signature(trainer.build_network_architecture).parameters:  # before nnU-Net 2.8
        planned = (
            configuration.network_arch_class_name,
            configuration.network_arch_init_kwargs,
            configuration.network_arch_init_kwargs_req_import,
        )
    return trainer.build_network_architecture(*planned, channels, outputs, enable_deep_supervision=False)
