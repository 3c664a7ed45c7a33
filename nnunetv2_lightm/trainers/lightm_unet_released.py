"""Trainers of the network that the authors of LightM-UNet released, with the recipe from their code."""

from __future__ import annotations

from nnunetv2.utilities.plans_handling.plans_handler import ConfigurationManager, PlansManager
from torch import nn

from ..networks import LightMUNetReleased
from ._base import PluginTrainer
from .recipes import RELEASED_ADAM


class nnUNetTrainerLightMUNetReleased(PluginTrainer):
    """The released network, head revision, and the released recipe: Adam 1e-4 (weight decay 1e-5, eps 1e-5), poly
    schedule, 100 epochs of 250 iterations, CE + Dice, gradient clipping at 12, training in float32.

    The network halves every axis three times whatever the plans say, as the released code does. So weights trained with
    that code make the same predictions here, and other plans do not change the network. Odd sizes are rounded down; an
    axis of a single voxel stays as it is.
    """

    revision = "head"
    recipe = RELEASED_ADAM
    epochs_between_checkpoints = 1
    has_grad_scaler = False

    @classmethod
    def make_network(
        cls,
        plans_manager: PlansManager,
        configuration_manager: ConfigurationManager,
        num_input_channels: int,
        num_output_channels: int,
        enable_deep_supervision: bool,
    ) -> nn.Module:
        """The plans set only the number of dimensions.

        Raises:
            ValueError: if deep supervision is requested: the released network has none.
        """
        if enable_deep_supervision:
            raise ValueError(f"{cls.__name__}: enable_deep_supervision is True; the released network has none")
        dims = len(configuration_manager.patch_size)
        return LightMUNetReleased(num_input_channels, num_output_channels, spatial_dims=dims, revision=cls.revision)

    def train_step(self, batch: dict) -> dict:
        return self._checked_step(self._float32_step, batch)

    def _float32_step(self, batch: dict) -> dict:
        """nnU-Net's step without autocast: on a GPU nnU-Net has no other way to switch it off."""
        data = batch["data"].to(self.device, non_blocking=True)
        target = batch["target"].to(self.device, non_blocking=True)
        self.optimizer.zero_grad(set_to_none=True)
        loss = self.loss(self.network(data), target)
        loss.backward()
        nn.utils.clip_grad_norm_(self.network.parameters(), 12)
        self.optimizer.step()
        return {"loss": loss.detach().cpu().numpy()}


class nnUNetTrainerLightMUNetReleasedFirst(nnUNetTrainerLightMUNetReleased):
    """The first public revision of the released network, the one in the paper's tables; the same recipe."""

    revision = "first"
