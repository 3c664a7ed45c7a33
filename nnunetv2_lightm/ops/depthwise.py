"""Depthwise convolution and its neighbouring layers, as one registered PyTorch operator that saves only its input:
compiled on a CPU, otherwise one slab of the image at a time. With the reference scan PyTorch's own operators do the
same (:mod:`nnunetv2_lightm.layers`)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from ._derivatives import composite_needed, gradients_of_gradients, refuse_forward_mode, register_vmap_by_loop
from ._dtypes import autocast_dtype, to_contiguous
from ._layer_backend import require_backend
from ._operands import Operands, checked_once, require_tensors
from .backends import TRITON, cpu_native, native_depthwise, select_backend, starts_from_a_state
from .backends.native_depthwise import HEAD, PLAIN, STEM
from .backends.native_interface import CHANNEL_MULTIPLE
from .backends.recomputing import depthwise as recomputing_depthwise
from .graphs import constant_in_graphs
from .reference import compute_dtype, depthwise_conv_reference, depthwise_head_reference, depthwise_stem_reference

NAMES = {PLAIN: "depthwise_conv", STEM: "depthwise_stem", HEAD: "depthwise_head"}
PARAMETERS = ("weight", "bias", "point_weight", "point_bias")


@constant_in_graphs
def fused_depthwise_usable(device_type: str, channels: int) -> bool:
    """Whether these functions run on the device, by the rules of :func:`.fused_rvm_layer_usable`."""
    if device_type == "meta":
        return False
    name = select_backend(device_type)
    if name == cpu_native.NAME:
        return native_depthwise.not_supported_reason(device_type, channels) is None
    return starts_from_a_state(name)


def depthwise_conv(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """Depthwise convolution, 3 taps on each axis, zeros beyond the image.

    The compiled functions compute in float32 whatever autocast says (in float64 if an input is float64) and return x's
    dtype; the others follow autocast like PyTorch's operators, except the stem. They raise ValueError if an operand's
    shape, dtype, device or memory is not as described. Second derivatives, forward-mode ones and the transforms of
    ``torch.func`` are computed by the reference.

    Args:
        x: (batch, *spatial, channels), 2D or 3D.
        weight: (channels, 1, 3, [3,] 3).
        bias: (channels,).

    Returns: as x.
    """
    return _run(PLAIN, x, x.shape[1:-1], [weight, bias])


def depthwise_stem(image: Tensor, parameters: Sequence[Tensor]) -> Tensor:
    """Pointwise layer, then depthwise convolution, in float32 under autocast too. The image gets no gradient.

    Args:
        image: (batch, input_channels, *spatial).
        parameters: Weight and bias of the convolution, then of the pointwise layer, (channels, input_channels).

    Returns: (batch, *spatial, channels).
    """
    return _run(STEM, image, image.shape[2:], parameters)


def depthwise_head(x: Tensor, size: Sequence[int], parameters: Sequence[Tensor]) -> Tensor:
    """Linear interpolation to a size (corners not aligned), depthwise convolution, pointwise layer.

    Args:
        x: (batch, *spatial, channels).
        size: Spatial size of the output.
        parameters: Weight and bias of the convolution, then of the pointwise layer, (num_classes, channels).

    Returns: Logits, (batch, num_classes, *size).
    """
    return _run(HEAD, x, size, parameters)


def _run(surroundings: int, x: Tensor, size: Sequence[int], parameters: Sequence[Tensor]) -> Tensor:
    require_tensors(NAMES[surroundings], (x, *parameters))
    backend = select_backend(x.device.type)
    if composite_needed():
        _check((x, *parameters), surroundings, tuple(size), backend, stored=False)
        return _composite(surroundings, x, size, parameters)
    product_dtype = None if backend == cpu_native.NAME or surroundings == STEM else autocast_dtype(x, *parameters)
    return depthwise_op(surroundings, x, list(size), list(parameters), backend, product_dtype)


def _composite(surroundings: int, x: Tensor, size: Sequence[int], parameters: Sequence[Tensor]) -> Tensor:
    if surroundings == HEAD:
        return depthwise_head_reference(x, size, *parameters)
    return (depthwise_stem_reference if surroundings == STEM else depthwise_conv_reference)(x, *parameters)


@torch.library.custom_op("nnunetv2_lightm::depthwise", mutates_args=())
def depthwise_op(
    surroundings: int,
    x: Tensor,
    size: list[int],
    parameters: list[Tensor],
    backend: str = cpu_native.NAME,
    product_dtype: torch.dtype | None = None,
) -> Tensor:
    """Any of the three.

    Args:
        surroundings: PLAIN, STEM or HEAD.
        x: Map or image.
        size: Spatial size of the output.
        parameters: Parameters of the convolution and the pointwise layer.
        backend: The scan's backend, which decides the kernels.
        product_dtype: Autocast's dtype; None: without autocast. The compiled convolutions have no use for it.
    """
    refuse_forward_mode("depthwise")
    _check((x, *parameters), surroundings, tuple(size), backend)
    dtype = compute_dtype(x, *parameters)
    if backend == cpu_native.NAME:
        given = [to_contiguous(p, dtype) for p in parameters]
        return native_depthwise.forward(surroundings, to_contiguous(x, dtype), size, given).to(x.dtype)
    with torch.autocast(x.device.type, enabled=False):
        options = (product_dtype or dtype, product_dtype or x.dtype, backend == TRITON)
        return recomputing_depthwise.forward(surroundings, x.contiguous(), size, parameters, *options)


@depthwise_op.register_fake
def _(surroundings, x, size, parameters, backend=cpu_native.NAME, product_dtype=None):
    _check((x, *parameters), surroundings, tuple(size), backend, stored=False)
    shape = native_depthwise.out_shape(surroundings, x, size, parameters)
    return x.new_empty(shape, dtype=x.dtype if backend == cpu_native.NAME else product_dtype or x.dtype)


@torch.library.custom_op("nnunetv2_lightm::depthwise_backward", mutates_args=())
def depthwise_backward_op(
    surroundings: int,
    grad_out: Tensor,
    x: Tensor,
    size: list[int],
    parameters: list[Tensor],
    backend: str = cpu_native.NAME,
    product_dtype: torch.dtype | None = None,
) -> tuple[Tensor, list[Tensor]]:
    """Gradients of x (empty for an image) and of the parameters, in their dtypes."""
    refuse_forward_mode("depthwise_backward")
    _check_backward((x, *parameters, grad_out), surroundings, tuple(size), backend)
    dtype = compute_dtype(x, *parameters)
    if backend == cpu_native.NAME:
        given = [to_contiguous(p, dtype) for p in parameters]
        grad_out, x_given = to_contiguous(grad_out, dtype), to_contiguous(x, dtype)
        grad_x, grads = native_depthwise.backward(surroundings, grad_out, x_given, size, given)
    else:
        with torch.autocast(x.device.type, enabled=False):
            options = (dtype, product_dtype or dtype, backend == TRITON)
            grad_x, grads = recomputing_depthwise.backward(
                surroundings, grad_out, x.contiguous(), size, parameters, *options
            )
    return grad_x.to(x.dtype), [grad.to(p.dtype) for grad, p in zip(grads, parameters, strict=True)]


@depthwise_backward_op.register_fake
def _(surroundings, grad_out, x, size, parameters, backend=cpu_native.NAME, product_dtype=None):
    _check_backward((x, *parameters, grad_out), surroundings, tuple(size), backend, stored=False)
    contiguous = {"memory_format": torch.contiguous_format}
    grad_x = x.new_empty((0,)) if surroundings == STEM else torch.empty_like(x, **contiguous)
    return grad_x, [torch.empty_like(p, **contiguous) for p in parameters]


@checked_once
def _check(
    tensors: tuple[Tensor, ...], surroundings: int, size: tuple[int, ...], backend: str, *, stored: bool
) -> None:
    """x, then the parameters; size: spatial, of the output."""
    if surroundings not in NAMES:
        raise ValueError(f"depthwise: surroundings is {surroundings}; expected one of {list(NAMES)}")
    x, *parameters = tensors
    names = PARAMETERS[:2] if surroundings == PLAIN else PARAMETERS
    if len(parameters) != len(names):
        given = f"{len(parameters)} parameters are given"
        raise ValueError(f"{NAMES[surroundings]}: {given}; expected {len(names)}: {', '.join(names)}")
    operands = Operands(NAMES[surroundings], dict(zip(("x", *names), tensors, strict=True)), stored)
    operands.require_floats()
    require_backend(operands, tensors, backend, stored)
    if x.ndim not in (4, 5):
        operands.refuse(f"`x` is {tuple(x.shape)}; expected batch, channels and 2 or 3 spatial axes")
    for name, parameter in zip(names, parameters, strict=True):
        if name.endswith("weight") and parameter.ndim < 2:
            operands.refuse(f"`{name}` is {tuple(parameter.shape)}; expected at least two axes")
    multiple = CHANNEL_MULTIPLE if backend == cpu_native.NAME else 1
    _check_shapes(operands, surroundings, x, size, parameters, multiple)


def _check_shapes(
    operands: Operands,
    surroundings: int,
    x: Tensor,
    size: tuple[int, ...],
    parameters: Sequence[Tensor],
    multiple: int,
) -> None:
    dims = x.ndim - 2
    sizes = {"channels": parameters[0].shape[0], "1": 1, "3": 3}
    axes = {"weight": ("channels", "1", *("3",) * dims), "bias": ("channels",)}
    if surroundings == STEM:
        sizes["input_channels"] = x.shape[1]
        axes |= {"point_weight": ("channels", "input_channels"), "point_bias": ("channels",)}
    else:
        sizes["channels"] = x.shape[-1]
    if surroundings == HEAD:
        sizes["num_classes"] = parameters[2].shape[0]
        axes |= {"point_weight": ("num_classes", "channels"), "point_bias": ("num_classes",)}
    operands.require_shapes(axes, sizes, "`x` and the others")
    if sizes["channels"] < 1 or sizes["channels"] % multiple:
        operands.refuse(f"there are {sizes['channels']} channels; expected a multiple of {multiple}")
    for axis in {"input_channels", "num_classes"} & sizes.keys():
        if sizes[axis] < 1:
            operands.refuse(f"{axis} is {sizes[axis]}; expected at least 1")
    spatial = tuple(x.shape[2:] if surroundings == STEM else x.shape[1:-1])
    if 0 in spatial:
        operands.refuse(f"`x` is {tuple(x.shape)}; expected at least 1 on each spatial axis")
    if surroundings != HEAD:
        if size != spatial:
            operands.refuse(f"size is {size}; expected {spatial}, the spatial axes of `x`")
    elif len(size) != dims or min(size) < 1:
        operands.refuse(f"size is {size}; expected {dims} positive numbers")


@checked_once
def _check_backward(
    tensors: tuple[Tensor, ...], surroundings: int, size: tuple[int, ...], backend: str, *, stored: bool
) -> None:
    """x, the parameters, then the gradient of the output."""
    *inputs, grad_out = tensors
    _check(inputs, surroundings, size, backend, stored=False)
    names = ("x", *PARAMETERS[: len(inputs) - 1], "grad_out")
    operands = Operands(f"{NAMES[surroundings]}_backward", dict(zip(names, tensors, strict=True)), stored)
    operands.require_floats("grad_out")
    x, *parameters = inputs
    require_backend(operands, inputs, backend, stored)
    expected = native_depthwise.out_shape(surroundings, x, size, parameters)
    if tuple(grad_out.shape) != expected:
        operands.refuse(f"`grad_out` is {tuple(grad_out.shape)}; expected {expected}, the shape of the output")


def _setup_context(ctx, inputs, output):
    ctx.surroundings, x, ctx.size, parameters, ctx.backend, ctx.product_dtype = inputs
    if ctx.surroundings == STEM and x.requires_grad:
        raise RuntimeError("depthwise_stem computes no gradient of the image; detach it")
    ctx.save_for_backward(x, *parameters)


def _backward(ctx, grad_out):
    x, *parameters = ctx.saved_tensors
    grad_x, grads = depthwise_backward_op(
        ctx.surroundings, grad_out, x, ctx.size, parameters, ctx.backend, ctx.product_dtype
    )
    return None, None if ctx.surroundings == STEM else grad_x, None, grads, None, None


depthwise_op.register_autograd(_backward, setup_context=_setup_context)


def _setup_second(ctx, inputs, output):
    ctx.surroundings, grad_out, x, ctx.size, parameters, *_ = inputs
    ctx.save_for_backward(grad_out, x, *parameters)


def _backward_of_backward(ctx, cotangent, cotangents):
    grad_out, *inputs = ctx.saved_tensors

    def convolution(x, *parameters):
        return [_composite(ctx.surroundings, x, ctx.size, parameters)]

    cotangents = [None if ctx.surroundings == STEM else cotangent, *cotangents]
    grads, (second,) = gradients_of_gradients(convolution, inputs, [grad_out], cotangents)
    return None, second, grads[0], None, grads[1:], None, None


depthwise_backward_op.register_autograd(_backward_of_backward, setup_context=_setup_second)
register_vmap_by_loop(depthwise_op)
register_vmap_by_loop(depthwise_backward_op)
