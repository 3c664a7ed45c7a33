"""What an operator requires of its operands, checked before any kernel reads them.

A kernel only gets addresses: whatever Python does not refuse here, it would read or write out of bounds.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence

import torch
from torch import Tensor

# Names of axes; `sizes` gives their lengths, and so an operand's shape.
Axes = Sequence[str]
# Signatures remembered per operator; the patches of a training have one or two.
MAX_REMEMBERED = 256


class Operands:
    """The operands of one call, for an operator's check.

    Args:
        operator: Name for messages.
        tensors: Operands by name.
        stored: Whether the tensors hold memory; False for shapes alone (fake and meta tensors).
        optional: Names of operands that may be None.
    """

    def __init__(
        self, operator: str, tensors: Mapping[str, Tensor | None], stored: bool, optional: Sequence[str] = ()
    ) -> None:
        self.operator, self._stored = operator, stored
        for name, tensor in tensors.items():
            if tensor is None and name not in optional:
                self.refuse(f"`{name}` is None; expected a tensor")
        self._tensors = {name: tensor for name, tensor in tensors.items() if tensor is not None}
        first, self._reference = next(iter(self._tensors.items()))
        for name, tensor in self._tensors.items():
            self._require_ordinary(name, tensor)
            if tensor.device != self._reference.device:
                self.refuse(
                    f"`{name}` is on {tensor.device}, `{first}` on {self._reference.device}; move them to one device"
                )

    def require_shapes(self, axes: Mapping[str, Axes], sizes: Mapping[str, int], source: str) -> None:
        """Each operand that is present has the shape of its axes; source: where the sizes come from."""
        for name, names in axes.items():
            if name not in self._tensors:
                continue
            expected = tuple(sizes[axis] for axis in names)
            given = tuple(self._tensors[name].shape)
            if given != expected:
                self.refuse(f"`{name}` is {given}; expected ({', '.join(names)}) = {expected} from {source}")

    def require_floats(self, *names: str) -> None:
        """The operands (without names: all) are real floating-point numbers."""
        for name in names or self._tensors:
            tensor = self._tensors.get(name)
            if tensor is not None and not tensor.is_floating_point():
                self.refuse(f"`{name}` is {tensor.dtype}; expected a real floating-point dtype: `{name}.float()`")

    def require_dtype(self, name: str, dtype: torch.dtype) -> None:
        """The operand is exactly of the dtype in which the kernel reads it."""
        if self._tensors[name].dtype != dtype:
            self.refuse(f"`{name}` is {self._tensors[name].dtype}; expected {dtype}, as the forward pass left it")

    def refuse(self, reason: str) -> None:
        """Raises: ValueError: always."""
        raise ValueError(f"{self.operator}: {reason}")

    def _require_ordinary(self, name: str, tensor: Tensor) -> None:
        if tensor.layout != torch.strided:
            self.refuse(f"`{name}` is laid out as {tensor.layout}; expected a dense tensor: `{name}.to_dense()`")
        if tensor.is_quantized:
            self.refuse(f"`{name}` is quantized, {tensor.dtype}; expected real numbers: `{name}.dequantize()`")
        if self._stored and not tensor.is_meta:
            needed, held = bytes_needed(tensor), tensor.untyped_storage().nbytes()
            if held < needed:
                self.refuse(
                    f"`{name}`, {tuple(tensor.shape)}, reaches {needed} bytes into its storage, which holds {held}: "
                    "its memory was freed or resized (`untyped_storage().resize_`); pass a tensor that owns its data"
                )


def require_tensors(operator: str, operands: Sequence[Tensor | None]) -> None:
    """Check operands before PyTorch does: its message about one that is not a tensor prints all others, even broken
    ones.

    Raises:
        TypeError: if an operand is neither a tensor nor None.
    """
    for operand in operands:
        if operand is not None and not isinstance(operand, Tensor):
            raise TypeError(f"{operator}: an operand is a {type(operand).__name__}; expected a tensor")


def checked_once(check: Callable[..., None]) -> Callable[..., None]:
    """Run a check only for the first call of each signature: shapes, strides, dtypes, devices and options.

    A check may look at nothing else; computing the signature takes some microseconds per operator. ``check`` is called
    with the operands' tuple, the options, and ``stored``; it raises if something is wrong. With ``stored=False``
    nothing is remembered, because shapes may be symbolic.
    """
    remembered: set[Hashable] = set()

    def checked(tensors: Sequence[Tensor | None], *options: Hashable, stored: bool = True) -> None:
        if not stored:
            check(tensors, *options, stored=False)
            return
        signature = (*options, *map(_signature, tensors))
        if signature not in remembered:
            check(tensors, *options, stored=True)
            if len(remembered) >= MAX_REMEMBERED:
                remembered.clear()
            remembered.add(signature)

    return checked


def _signature(tensor: Tensor | None) -> Hashable:
    if tensor is None:
        return None
    if tensor.layout != torch.strided:
        return tensor.layout  # refused
    storage = tensor.untyped_storage().nbytes()
    return tensor.shape, tensor.stride(), tensor.storage_offset(), storage, tensor.dtype, tensor.device


def bytes_needed(tensor: Tensor) -> int:
    """How far into its storage a tensor reaches."""
    if tensor.numel() == 0:
        return 0
    last = sum((size - 1) * stride for size, stride in zip(tensor.shape, tensor.stride(), strict=True))
    return (tensor.storage_offset() + last + 1) * tensor.element_size()
