"""NaN and infinite values: caught before they reach the weights, and reported with the case they come from.

One such voxel spoils more of the output of a Mamba network than of a convolutional one: everything that the scan
reaches after it.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensor


class NotFiniteError(ValueError):
    """An image, or a training's weights, have NaN or infinite values."""


def all_finite(values: Tensor) -> bool:
    """Whether no value is NaN or infinite. Usually a single pass: the sum is finite unless it overflows."""
    return bool(torch.isfinite(values.sum())) or bool(torch.isfinite(values).all())


def check_batch(batch: dict, describe_case: Callable[[str], str]) -> None:
    """Check the images of a batch from nnU-Net's loader, while they are still in main memory.

    Args:
        batch: "data" (batch, channels, *spatial) and "keys", the cases.
        describe_case: Describes a case: whether the values are in its file.

    Raises: NotFiniteError: naming the cases.
    """
    data = batch["data"]
    if all_finite(data):
        return
    cases = sorted({str(key) for image, key in zip(data, batch["keys"]) if not all_finite(image)})
    raise NotFiniteError(
        "NaN or infinite values in the images of a batch, which would spoil all weights: "
        + "; ".join(describe_case(case) for case in cases)
        + ". The weights and the last checkpoint are sound: fix the images, preprocess again, and continue with --c"
    )


def check_weights(network: nn.Module, what_happened: str) -> None:
    """Check the weights after a step whose loss was not finite, and before they are saved.

    Under CUDA's autocast the loss may overflow now and then; nnU-Net's gradient scaler skips such a step.

    Args:
        network: Whose parameters are checked.
        what_happened: For the message.
    Raises: NotFiniteError: if the weights have NaN or infinite values.
    """
    broken = [name for name, weight in network.named_parameters() if not all_finite(weight.detach())]
    if broken:
        raise NotFiniteError(
            f"the training has diverged: {what_happened}, and {len(broken)} parameters are NaN or infinite "
            f"({broken[0]}, ...). The last checkpoint is sound; from there, a lower initial_lr or another seed may do "
            "better"
        )


def reject_nonfinite_images(network: nn.Module) -> nn.Module:
    """Make a network check its images in prediction, where nothing else does: nnU-Net would silently write a
    segmentation of them. Not where there are no values to see: traced, exported, counted on meta, or in a transform
    of torch.func."""
    network.register_forward_pre_hook(_check_image, with_kwargs=True)
    return network


def _check_image(network: nn.Module, arguments: tuple[Tensor, ...], named: dict[str, Tensor]) -> None:
    if network.training or torch.compiler.is_exporting() or torch.jit.is_tracing():
        return
    image = next(iter((*arguments, *named.values())), None)
    if image is not None:  # else PyTorch says what is missing
        _reject_nonfinite(image)


@torch.compiler.disable  # torch.compile compiles a hook apart from the network; this one must see values
def _reject_nonfinite(image: Tensor) -> None:
    if image.is_meta or isinstance(image, FakeTensor) or torch._C._are_functorch_transforms_active():
        return
    if not all_finite(image):
        count = int((~torch.isfinite(image)).sum())
        raise NotFiniteError(
            f"{count} of the {image.numel()} values in a patch of the image to segment are NaN or infinite; nnU-Net "
            "has printed its name above. Fix that image or take it out of the input folder"
        )
