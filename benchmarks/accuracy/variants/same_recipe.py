"""The recipe of nnUNetTrainerLightMUNet on other networks, and ResEnc M: is it the network or the optimiser?

Not part of the package, except for nnUNetTrainerPlainMuon; nnU-Net finds them like lightm_unet_variants.py.
"""

from __future__ import annotations

from dynamic_network_architectures.architectures.unet import ResidualEncoderUNet
from nnunetv2.utilities.get_network_from_plans import get_network_from_plans
from torch import nn

from nnunetv2_lightm import trainers
from nnunetv2_lightm.complexity.nnunet_network import RESENC_BLOCKS
from nnunetv2_lightm.trainers._base import PluginTrainer
from nnunetv2_lightm.trainers.recipes import muon


class nnUNetTrainerSegResNetMuon(trainers.nnUNetTrainerSegResNet):
    """SegResNet with Muon on its kernels."""

    recipe = muon(r"\bconvInit\.", r"\bconv_final\.")


class nnUNetTrainerLightMUNetReleasedMuon(trainers.nnUNetTrainerLightMUNetReleased):
    """The authors' released network with Muon on its matrices; float32, as with its own recipe."""

    recipe = muon(r"\bconvInit\.", r"\bconv_final\.", r"\.x_proj$", r"\.dt_proj$")


class nnUNetTrainerResEncM(PluginTrainer):
    """The network of nnU-Net's ResEnc presets, with stock nnU-Net's recipe, whatever network the plans name.

    The presets also plan patch and batch; here these come from the plans, as for every trainer. The stages are the
    plans', with the preset's numbers of residual blocks.
    """

    deep_supervision = True

    @classmethod
    def make_network(
        cls, plans_manager, configuration_manager, num_input_channels, num_output_channels, enable_deep_supervision
    ) -> nn.Module:
        architecture = dict(configuration_manager.network_arch_init_kwargs)
        architecture.pop("n_conv_per_stage")
        stages = architecture["n_stages"]
        architecture["n_blocks_per_stage"] = list(RESENC_BLOCKS[:stages])
        architecture["n_conv_per_stage_decoder"] = [1] * (stages - 1)
        return get_network_from_plans(
            f"{ResidualEncoderUNet.__module__}.{ResidualEncoderUNet.__qualname__}",
            architecture,
            configuration_manager.network_arch_init_kwargs_req_import,
            num_input_channels,
            num_output_channels,
            deep_supervision=enable_deep_supervision,
        )
