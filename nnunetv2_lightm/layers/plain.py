"""When one operator may stand for a tree of modules: only where every module is exactly what the operator computes.

PyTorch changes networks from outside: hooks, pruning, weight and spectral norm, parametrizations, adapters such as
LoRA, quantised modules, replaced ``forward`` methods. All of it lives in modules, and an operator that takes their
parameters bypasses it. So each fused path asks :func:`is_plain` on every call, and steps aside where it says no.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from functools import cache

import torch
from torch import Tensor, nn
from torch.nn.modules import module as torch_module


@dataclass(frozen=True)
class Plain:
    """What a module of a class is where nobody has changed it.

    Attributes:
        parameters: Names of its own parameters.
        optional: Those of them that may be None.
        children: Names of its submodules.
        settings: Whether its attributes are those that the operators assume.
        forward: The method that the operator stands for.
    """

    parameters: frozenset[str]
    optional: frozenset[str]
    children: frozenset[str]
    settings: Callable[[nn.Module], bool] | None
    forward: Callable = field(compare=False)


_PLAIN: dict[type[nn.Module], Plain] = {}


def stands_for(
    kind: type[nn.Module],
    parameters: Iterable[str] = (),
    children: Iterable[str] = (),
    settings: Callable[[nn.Module], bool] | None = None,
    optional: Iterable[str] = (),
) -> None:
    """Declare a class that operators stand for; arguments as in :class:`Plain`."""
    _PLAIN[kind] = Plain(frozenset(parameters), frozenset(optional), frozenset(children), settings, kind.forward)


stands_for(nn.Linear, ("weight", "bias"), optional=("bias",))
stands_for(nn.LayerNorm, ("weight", "bias"), settings=lambda m: m.eps == 1e-5 and len(m.normalized_shape) == 1)


def is_plain(root: nn.Module, *, called: bool = True) -> bool:
    """Whether an operator may stand for a module and all in it.

    All are exactly of declared classes, with nothing added, removed or attached; their parameters are ordinary tensors
    of one dtype on one device.

    Args:
        root: The module.
        called: The module itself is called, and so its own hooks run whatever it does inside.
    """
    if (
        torch_module._global_forward_hooks
        or torch_module._global_forward_pre_hooks
        or torch_module._global_backward_hooks
        or torch_module._global_backward_pre_hooks
    ):
        return False
    modules, formats = [root], set()
    while modules:
        module = modules.pop()
        state = module.__dict__
        plain = _PLAIN.get(type(module))
        if plain is None or "forward" in state or type(module).forward is not plain.forward:
            return False
        parameters, children = state["_parameters"], state["_modules"]
        if parameters.keys() != plain.parameters or children.keys() != plain.children or state["_buffers"]:
            return False
        if plain.settings is not None and not plain.settings(module):
            return False
        if not (called and module is root) and (
            state["_forward_hooks"]
            or state["_forward_pre_hooks"]
            or state["_backward_hooks"]
            or state["_backward_pre_hooks"]
        ):
            return False
        for name, parameter in parameters.items():
            if parameter is not None:
                formats.add((type(parameter), parameter.dtype, parameter.device))
            elif name not in plain.optional:
                return False
        modules += children.values()
    return len(formats) <= 1 and all(_is_ordinary(kind) for kind, *_ in formats)


@cache
def _is_ordinary(kind: type) -> bool:
    """Not a subclass with a behaviour of its own; PyTorch's stand-ins for tracing have none."""
    return kind in (Tensor, nn.Parameter) or kind.__module__.startswith("torch._subclasses.")


# torch.compile takes the answers of what this decorates as constants, instead of tracing how they were found.
constant_in_graphs = torch.compiler.assume_constant_result
