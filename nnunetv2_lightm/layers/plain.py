"""When one operator may stand for a tree of modules: only if every module is exactly what the operator computes.

PyTorch changes networks from outside: hooks, pruning, weight and spectral norm, parametrizations, adapters such as
LoRA, quantised modules, replaced ``forward`` methods. All of these act through modules, and an operator that only takes
the parameters would bypass them. So each fused path asks :func:`is_plain` on every call and steps aside if the answer
is no.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from functools import cache

from torch import Tensor, nn
from torch.nn.modules import module as torch_module


@dataclass(frozen=True)
class Plain:
    """What an unmodified module of a class looks like.

    Attributes:
        parameters: Names of its own parameters.
        optional: Names of parameters that may be None.
        children: Names of its submodules.
        settings: Checks that its attributes are those that the operators assume.
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

    It may if all modules are exactly of declared classes, with nothing added, removed or attached, and all parameters
    are ordinary tensors of one dtype on one device.

    Args:
        root: The module.
        called: Whether the module itself is called; its own hooks then run anyway.
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
    """True for tensors, parameters and PyTorch's stand-ins for tracing; other subclasses may behave differently."""
    return kind in (Tensor, nn.Parameter) or kind.__module__.startswith("torch._subclasses.")
