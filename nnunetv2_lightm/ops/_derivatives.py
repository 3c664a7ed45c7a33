"""Derivatives that the operators do not compute themselves come from their specification in plain PyTorch, never zeros.

A registered operator has its own reverse-mode formula. Everything else uses the operator's composite, a function of
plain PyTorch operators, which is slower but supports every derivative:

- the function transforms of ``torch.func`` (grad, vmap, jvp, jacrev, functionalize, ...) and forward-mode derivatives
  see the composite instead of the operator (:func:`composite_needed`);
- derivatives of the gradient (``create_graph=True``) are those of the composite's gradient
  (:func:`gradients_of_gradients`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.autograd import forward_ad
from torch.library import CustomOpDef
from torch.utils import _pytree as pytree


def composite_needed() -> bool:
    """Whether the composites must replace the operators: inside a transform or a forward-mode level.

    Raises:
        RuntimeError: while torch.jit.trace records, which cannot record these operators.
    """
    if torch.jit.is_tracing():
        raise RuntimeError(
            "torch.jit.trace cannot record nnunetv2_lightm's operators (and is deprecated); use torch.export.export, "
            "which can, or torch.compile"
        )
    return forward_ad._current_level >= 0 or torch._C._are_functorch_transforms_active()


def refuse_forward_mode(operator: str) -> None:
    """For operators called directly, which would drop the tangents of their operands.

    Raises:
        NotImplementedError: inside a forward-mode level.
    """
    if forward_ad._current_level >= 0:
        raise NotImplementedError(
            f"{operator} has no forward-mode derivative; call its function in nnunetv2_lightm.ops, not the operator"
        )


def gradients_of_gradients(
    composite: Callable[..., Sequence[Tensor]],
    inputs: Sequence[Tensor | None],
    grads_out: Sequence[Tensor | None],
    cotangents: Sequence[Tensor | None],
) -> tuple[list[Tensor | None], list[Tensor | None]]:
    """The vector-Jacobian product of an operator's backward pass.

    Args:
        composite: Maps the inputs to the operator's outputs, in plain PyTorch.
        inputs: The operator's inputs; None: absent.
        grads_out: Gradients of its outputs, which the backward pass was given; None: zero.
        cotangents: Gradients of what it returned for each input; None: zero.

    Returns: The gradients of ``inputs`` and of ``grads_out``; None: zero or absent. They can be differentiated again
        where gradients are recorded.
    """
    record = torch.is_grad_enabled()
    leaves = [_leaf(t) for t in (*inputs, *grads_out)]
    inputs, grads_out = leaves[: len(inputs)], leaves[len(inputs) :]
    wanted = [(t, c) for t, c in zip(inputs, cotangents, strict=True) if t is not None and c is not None]
    with torch.enable_grad():
        outputs = [(out, g) for out, g in zip(composite(*inputs), grads_out, strict=True) if g is not None]
        firsts = _grad(outputs, [t for t, _ in wanted], create_graph=True)
        pairs = [(f, c) for f, (_, c) in zip(firsts, wanted, strict=True) if f is not None and f.requires_grad]
        seconds = iter(_grad(pairs, [t for t in leaves if t is not None], create_graph=record))
    of_all = [None if t is None else next(seconds) for t in leaves]
    return of_all[: len(inputs)], of_all[len(inputs) :]


def register_vmap_by_loop(operator: CustomOpDef) -> None:
    """Map an operator over a batch call by call.

    In ``torch.vmap``, and in ``torch.autograd.grad(is_grads_batched=True)`` (which ``jacobian(vectorize=True)`` of
    ``torch.autograd.functional`` calls): an older map of PyTorch's, with tensors of its own.
    """

    def loop(batch_size: int, in_dims: Any, args: Any) -> Any:
        if batch_size == 0:
            raise ValueError(f"{operator._qualname}: vmap over an axis of size 0; expected at least 1")
        return _stack([operator(*_entry(args, in_dims, i)) for i in range(batch_size)])

    @operator.register_vmap
    def _(info: Any, in_dims: Any, *args: Any) -> tuple[Any, Any]:
        stacked = loop(info.batch_size, in_dims, args)
        return stacked, _dims_like(stacked)

    def of_batched_gradients(*args: Any) -> Any:
        # PyTorch reveals the level only when the next one is entered.
        level = torch._C._vmapmode_increment_nesting() - 1
        torch._C._vmapmode_decrement_nesting()
        if level > 1:
            raise NotImplementedError(f"{operator._qualname}: is_grads_batched inside another; use torch.vmap")
        sizes: set[int] = set()
        plain = pytree.tree_map_only(Tensor, lambda t: _without_level(t, level, sizes), args)
        dims = pytree.tree_map_only(Tensor, lambda t: 0 if _is_batched(t) else None, args)
        stacked = loop(*sizes, dims, plain)
        return pytree.tree_map_only(Tensor, lambda t: torch._add_batch_dim(t, 0, level), stacked)

    operator._lib.impl(operator._name, of_batched_gradients, "Batched")


def _is_batched(tensor: Tensor) -> bool:
    return torch._C._dispatch_keys(tensor).has(torch._C._dispatch_key_parse("Batched"))


def _without_level(tensor: Tensor, level: int, sizes: set[int]) -> Tensor:
    """A batched tensor with its batch as the first axis, whose size is added to ``sizes``; others as they are."""
    if not _is_batched(tensor):
        return tensor
    whole = torch._remove_batch_dim(tensor, level, 1, 0)
    sizes.add(whole.shape[0])
    return whole


def _leaf(tensor: Tensor | None) -> Tensor | None:
    """A view to differentiate with respect to, separate from the other tensors but connected to its own history."""
    if tensor is None:
        return None
    with torch.enable_grad():
        return tensor.view_as(tensor) if tensor.requires_grad else tensor.detach().requires_grad_()


def _grad(outputs: list[tuple[Tensor, Tensor]], inputs: list[Tensor], create_graph: bool) -> Sequence[Tensor | None]:
    """torch.autograd.grad for pairs of an output and its gradient; works without any pairs."""
    if not outputs or not inputs:
        return [None] * len(inputs)
    tensors, grads = zip(*outputs, strict=True)
    return torch.autograd.grad(tensors, inputs, grads, create_graph=create_graph, allow_unused=True)


def _entry(args: Any, dims: Any, i: int) -> Any:
    if isinstance(args, (list, tuple)):
        dims = dims if isinstance(dims, (list, tuple)) else [dims] * len(args)
        return [_entry(arg, dim, i) for arg, dim in zip(args, dims, strict=True)]
    return args.select(dims, i) if isinstance(args, Tensor) and dims is not None else args


def _stack(outputs: list[Any]) -> Any:
    if isinstance(outputs[0], Tensor):
        return torch.stack(outputs)
    return type(outputs[0])(_stack(list(column)) for column in zip(*outputs, strict=True))


def _dims_like(outputs: Any) -> Any:
    return 0 if isinstance(outputs, Tensor) else type(outputs)(_dims_like(output) for output in outputs)
