"""The networks that are compared, and what is done with them: a forward pass, a training step."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from dynamic_network_architectures.architectures.unet import PlainConvUNet, ResidualEncoderUNet
from nnunetv2.training.loss.compound_losses import DC_and_CE_loss
from nnunetv2.training.loss.dice import MemoryEfficientSoftDiceLoss
from torch import Tensor, nn

from nnunetv2_lightm import LightMUNet
from nnunetv2_lightm.complexity.nnunet_network import (
    RESENC_BLOCKS,
    plain_conv_unet,
    planned_architecture,
    resenc_unet,
)
from nnunetv2_lightm.layers import RVMLayer
from nnunetv2_lightm.measure.machine import version
from nnunetv2_lightm.ops import select_backend
from nnunetv2_lightm.ops.backends import REFERENCE, load_backend
from nnunetv2_lightm.optim import MuonAdamW

CLASSES = 3
CONTIGUOUS, CHANNELS_LAST = "contiguous", "channels-last"
LAYOUTS = (CONTIGUOUS, CHANNELS_LAST)
OURS, NNUNET, RESENC = "ours", "nnunet", "resenc"
# nnU-Net's default network, and that of its ResEnc presets.
RIVALS = {NNUNET: plain_conv_unet, RESENC: resenc_unet}
# Does something with an image and its labels.
Work = Callable[[Tensor, Tensor], None]


def light_m_unet(spatial_dims: int) -> nn.Module:
    """The paper's network as the package gives it: 1 channel, 3 classes."""
    torch.manual_seed(0)
    return LightMUNet(1, CLASSES, spatial_dims=spatial_dims)


def nnunet_unet(spatial_dims: int, layout: str, which: str = NNUNET) -> nn.Module:
    """One of ``RIVALS`` with the settings that nnU-Net's planner writes, without deep supervision, in a layout."""
    torch.manual_seed(0)
    network = RIVALS[which](spatial_dims, 1, CLASSES)
    return network.to(memory_format=memory_format(spatial_dims, layout))


def planned_network(
    which: str, strides: Sequence[Sequence[int]], classes: int, kernels: Sequence[Sequence[int]] | None = None
) -> nn.Module:
    """One of ``RIVALS`` as nnU-Net's planner sets it up for these strides and kernel sizes, with deep supervision."""
    dims, stages = len(strides[0]), len(strides)
    most = {2: 512, 3: 320}[dims]
    architecture = planned_architecture(dims) | {
        "n_stages": stages,
        "features_per_stage": [min(32 << stage, most) for stage in range(stages)],
        "strides": [list(stride) for stride in strides],
        "kernel_sizes": [list(size) for size in kernels] if kernels else 3,
        "deep_supervision": True,
    }
    if which == RESENC:
        blocks = {"n_blocks_per_stage": RESENC_BLOCKS[:stages], "n_conv_per_stage_decoder": 1}
        return ResidualEncoderUNet(input_channels=1, num_classes=classes, **architecture | blocks)
    return PlainConvUNet(input_channels=1, num_classes=classes, n_conv_per_stage=2, **architecture)


def build(which: str, spatial_dims: int, layout: str = CONTIGUOUS) -> nn.Module:
    """``OURS`` (which chooses its layout itself) or one of ``RIVALS``."""
    return light_m_unet(spatial_dims) if which == OURS else nnunet_unet(spatial_dims, layout, which)


def memory_format(spatial_dims: int, layout: str) -> torch.memory_format:
    if layout == CONTIGUOUS:
        return torch.contiguous_format
    return {2: torch.channels_last, 3: torch.channels_last_3d}[spatial_dims]


def sample(patch: Sequence[int], layout: str = CONTIGUOUS, batch: int = 1) -> tuple[Tensor, Tensor]:
    """Images, (batch, 1, *patch), and their label maps as nnU-Net's loader gives them, (batch, 1, *patch)."""
    generator = torch.Generator().manual_seed(0)
    image = torch.randn(batch, 1, *patch, generator=generator).to(memory_format=memory_format(len(patch), layout))
    return image, torch.randint(0, CLASSES, image.shape, generator=generator).float()


def forward_pass(network: nn.Module) -> Work:
    """Inference."""
    network = network.eval()

    def run(image: Tensor, labels: Tensor) -> None:
        with torch.inference_mode():
            network(image)

    return run


def training_step(network: nn.Module, optimizer: torch.optim.Optimizer | None = None) -> Work:
    """nnU-Net's training step on a CPU, with its default loss and, unless given, its default optimizer, whichever the
    network."""
    network, loss = network.train(), make_loss()
    optimizer = optimizer or make_optimizer(network)

    def run(image: Tensor, labels: Tensor) -> None:
        optimizer.zero_grad(set_to_none=True)
        loss(network(image), labels).backward()
        update(network, optimizer)

    return run


def make_loss() -> nn.Module:
    """nnU-Net's default loss, Dice + cross entropy."""
    dice = {"batch_dice": False, "smooth": 1e-5, "do_bg": False, "ddp": False}
    return DC_and_CE_loss(dice, {}, weight_ce=1, weight_dice=1, dice_class=MemoryEfficientSoftDiceLoss)


def make_optimizer(network: nn.Module) -> torch.optim.Optimizer:
    """nnU-Net's default optimizer, at a rate so low that the weights stay those at the start of a training."""
    return torch.optim.SGD(network.parameters(), lr=1e-5, momentum=0.99, nesterov=True, weight_decay=3e-5)


def make_own_optimizer(network: nn.Module) -> torch.optim.Optimizer:
    """That of our trainer's recipe, ``LIGHTM_UNET_MUON``, at the low rate of :func:`make_optimizer`. Not made by the
    recipe itself: its package imports nnU-Net's trainer, which needs more packages than a borrowed GPU has."""
    not_muon = ("stem.", "seg_layers.", ".x_proj.", ".dt_proj.")
    matrices, decayed, free = [], [], []
    for name, parameter in network.named_parameters():
        if parameter.ndim < 2 or name.endswith("A_log"):
            free.append(parameter)
        # A depthwise kernel has one input channel.
        elif any(part in f".{name}" for part in not_muon) or parameter.shape[1] == 1:
            decayed.append(parameter)
        else:
            matrices.append(parameter)
    groups = [{"params": decayed, "weight_decay": 1e-2}, {"params": free, "weight_decay": 0.0}]
    muon = {"params": matrices, "weight_decay": 1e-2, "muon": True}
    return MuonAdamW([*groups, muon], lr=1e-5, muon_lr_factor=2.0, momentum=0.95)


def update(network: nn.Module, optimizer: torch.optim.Optimizer) -> None:
    """Clip the gradients as nnU-Net does, then step."""
    nn.utils.clip_grad_norm_(network.parameters(), 12)
    optimizer.step()


def on_threads(run: Callable[[], object], threads: int) -> Callable[[], object]:
    """The same, with another number of PyTorch's threads."""

    def limited() -> object:
        before = torch.get_num_threads()
        torch.set_num_threads(threads)
        try:
            return run()
        finally:
            torch.set_num_threads(before)

    return limited


def ours_name(network: nn.Module | None = None) -> str:
    """Our side in a table: package and the backend that PyTorch's CPU tensors get now."""
    name = select_backend("cpu")
    described = name if name == REFERENCE else f"{name} ({load_backend(name).describe()})"
    if network is None:
        return f"nnunetv2-lightm, {described}"
    fused = [layer.fused("cpu") for layer in network.modules() if isinstance(layer, RVMLayer)]
    how = "fused RVM layers" if all(fused) else "some fused RVM layers" if any(fused) else "no fused layers"
    return f"LightMUNet, {described}, {how}"


def nnunet_name(layout: str, which: str = NNUNET) -> str:
    package = "dynamic-network-architectures"
    name = {NNUNET: "PlainConvUNet", RESENC: "ResEnc M"}[which]
    return f"nnU-Net's {name} ({package} {version(package)}), {layout}"
