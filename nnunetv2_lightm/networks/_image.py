"""What a network requires of its image, checked before anything is computed."""

from __future__ import annotations

from torch import Tensor

AXES = {2: "(batch, channels, y, x)", 3: "(batch, channels, z, y, x)"}


def require_image(image: Tensor, input_channels: int, spatial_dims: int) -> None:
    """Check the image of a network.

    Args:
        image: The network's input.
        input_channels: Channels that the network was built for.
        spatial_dims: 2 or 3.

    Raises:
        ValueError: if the image has another number of axes or channels, an empty axis, or no floating-point numbers.
    """
    shape, axes = tuple(image.shape), AXES[spatial_dims]
    if len(shape) != spatial_dims + 2:
        hint = "; a single image gets its batch axis by `image[None]`" if len(shape) == spatial_dims + 1 else ""
        raise ValueError(
            f"the image is {shape}, {len(shape)} axes; this network takes {spatial_dims + 2} axes, {axes}{hint}"
        )
    if shape[1] != input_channels:
        raise ValueError(
            f"the image is {shape}, {_channels(shape[1])}; this network was built for {_channels(input_channels)}, "
            f"{axes}. Give it one channel for each of the dataset's channel_names, in their order"
        )
    if 0 in shape:
        raise ValueError(f"the image is {shape}, with an axis of size 0; expected at least 1 on each of {axes}")
    if not image.is_floating_point():
        raise ValueError(f"the image is {image.dtype}; expected floating-point numbers: `image.float()`")


def _channels(count: int) -> str:
    return "1 channel" if count == 1 else f"{count} channels"
