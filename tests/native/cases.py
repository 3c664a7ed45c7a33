"""Writes calls of the compiled library, with all that goes in and comes out, for harness.cpp to repeat elsewhere.

    python tests/native/cases.py FILE

Every operator forward and backward, in float32 and float64, 2D and 3D. Before a case is written its outputs are
compared with the same computation by PyTorch's operators.

The file, all numbers as 64-bit little-endian integers: the number of calls; for each its name, the function, whether it
is backward, the structure's bytes and the number of its pointers; for each pointer its offset in the structure, 1 if it
is an output, the bytes of an element (8: double, 4: float, 1: bytes) and its contents. Bytes follow their number.
"""

from __future__ import annotations

import ctypes
import os
import struct
import sys
from collections.abc import Iterator
from pathlib import Path

import torch
import torch.nn.functional as F

from nnunetv2_lightm.layers import RVMLayer
from nnunetv2_lightm.ops import depthwise_conv, depthwise_head, depthwise_stem, selective_scan
from nnunetv2_lightm.ops.backends import ENVIRONMENT_VARIABLE, native_library
from nnunetv2_lightm.ops.backends.native_interface import FUNCTIONS, Rows

FORWARD_OUTPUTS = {"y", "last_state", "checkpoints", "out", "argmax"}
BACKWARD_INPUTS = {"grad_y", "grad_last", "grad_out"}


def main() -> None:
    torch.set_num_threads(1)
    calls = [call for name, compute, expected in cases() for call in recorded(name, compute, expected)]
    Path(sys.argv[1]).write_bytes(_number(len(calls)) + b"".join(calls))
    print(f"{len(calls)} calls in {sys.argv[1]}")


def cases() -> Iterator[tuple[str, object, object]]:
    """Name, computation by the library, the same by PyTorch; each returns output and gradients."""
    for dtype in (torch.float32, torch.float64):
        short = str(dtype).removeprefix("torch.")
        for shape, states in (((2, 150, 33), 5), ((1, 700, 16), 16)):
            yield f"scan {shape} {short}", *scan_case(shape, states, dtype)
        for shape, out_channels, pool in (
            ((1, 40, 17, 16), 32, (2, 2)),
            ((1, 12, 9, 20, 16), 16, (2, 1, 2)),
            ((2, 3, 4, 5, 32), 16, None),
        ):
            yield f"RVM layer {shape} {short}", *layer_case(shape, out_channels, pool, dtype)
        for spatial in ((9, 10), (5, 6, 7)):
            yield f"depthwise {spatial} {short}", *plain_case(spatial, dtype)
            yield f"stem {spatial} {short}", *stem_case(spatial, dtype)
            yield f"head {spatial} {short}", *head_case(spatial, dtype)


def gradients(y, inputs):
    weights = torch.linspace(0, 9, y.numel(), dtype=y.dtype).cos().view(y.shape)
    return y.detach(), *torch.autograd.grad(y, inputs, weights)


def random(*shape, dtype, scale=1.0):
    return (scale * torch.randn(shape, dtype=torch.float64)).to(dtype).requires_grad_()


def scan_case(shape, states, dtype):
    torch.manual_seed(0)
    batch, length, d_inner = shape
    tokens, matrix = (batch, length, d_inner), (batch, length, states)
    made = [random(*tokens, dtype=dtype), random(*tokens, dtype=dtype)]
    made += [(-torch.rand(d_inner, states, dtype=torch.float64) - 0.1).to(dtype).requires_grad_()]
    made += [random(*s, dtype=dtype) for s in (matrix, matrix, (d_inner,), tokens, (d_inner,))]

    def scan(backend):
        return lambda: gradients(selective_scan(*made, delta_softplus=True, backend=backend), made)

    return scan("cpu_native"), scan("reference")


def layer_case(shape, out_channels, pool, dtype):
    torch.manual_seed(0)
    layer = RVMLayer(shape[-1], out_channels, len(shape) - 2).to(dtype)
    x = random(*shape, dtype=dtype)

    def compute():
        return gradients(layer(x, pool), [x, *layer.parameters()])

    return compute, compute


def convolution(channels, dims, dtype):
    return [random(channels, 1, *(3,) * dims, dtype=dtype, scale=0.3), random(channels, dtype=dtype)]


def plain(x, weight, bias):
    op = F.conv2d if x.ndim == 4 else F.conv3d
    return op(x.movedim(-1, 1), weight, bias, padding=1, groups=x.shape[-1]).movedim(1, -1)


def plain_case(spatial, dtype):
    torch.manual_seed(0)
    made = [random(2, *spatial, 32, dtype=dtype), *convolution(32, len(spatial), dtype)]
    return lambda: gradients(depthwise_conv(*made), made), lambda: gradients(plain(*made), made)


def stem_case(spatial, dtype):
    torch.manual_seed(0)
    image = random(1, 3, *spatial, dtype=dtype).detach()
    made = [*convolution(16, len(spatial), dtype), random(16, 3, dtype=dtype), random(16, dtype=dtype)]

    def expected():
        return plain(F.linear(image.movedim(1, -1), *made[2:]), *made[:2])

    return lambda: gradients(depthwise_stem(image, made), made), lambda: gradients(expected(), made)


def head_case(spatial, dtype):
    torch.manual_seed(0)
    x = random(1, *(-(-size // 2) for size in spatial), 16, dtype=dtype)
    made = [*convolution(16, len(spatial), dtype), random(3, 16, dtype=dtype), random(3, dtype=dtype)]

    def expected():
        mode = "bilinear" if len(spatial) == 2 else "trilinear"
        wide = F.interpolate(x.movedim(-1, 1), size=spatial, mode=mode).movedim(1, -1)
        return F.linear(plain(wide, *made[:2]), *made[2:]).movedim(-1, 1)

    return lambda: gradients(depthwise_head(x, spatial, made), [x, *made]), lambda: gradients(expected(), [x, *made])


def recorded(name: str, compute, expected) -> list[bytes]:
    """The calls of the library in a computation, whose result is as expected."""
    os.environ[ENVIRONMENT_VARIABLE] = "cpu_native"
    with Recorder(name) as recorder:
        got = compute()
    os.environ[ENVIRONMENT_VARIABLE] = "torch_chunked"
    for number, (one, other) in enumerate(zip(got, expected(), strict=True)):
        tolerance = (1e-4 if one.dtype == torch.float32 else 1e-9) * float(other.abs().max())
        torch.testing.assert_close(one, other, rtol=0, atol=tolerance, msg=lambda m, n=number: f"{name}, {n}: {m}")
    assert recorder.calls, f"{name} did not reach the library"
    return recorder.calls


class Recorder:
    """Records what goes through ``native_library.run``; tensors are known by the addresses that were asked for."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.calls: list[bytes] = []
        self._tensors: dict[int, torch.Tensor] = {}
        self._originals = native_library.run, torch.Tensor.data_ptr

    def __enter__(self) -> Recorder:
        run, data_ptr = self._originals

        def asked(tensor):
            address = data_ptr(tensor)
            self._tensors[address] = tensor.detach()
            return address

        native_library.run, torch.Tensor.data_ptr = lambda *arguments: self._call(run, *arguments), asked
        return self

    def __exit__(self, *_: object) -> None:
        native_library.run, torch.Tensor.data_ptr = self._originals

    def _call(self, run, problem, backward, what):
        pointers = list(_pointers(problem))
        inputs = {}
        for offset, field, address in pointers:
            if _is_output(field, backward):
                self._tensors[address].zero_()  # what is never written is the same everywhere
            else:
                inputs[offset] = _bytes(self._tensors[address])
        run(problem, backward, what)
        contents = []
        for offset, field, address in pointers:
            tensor = self._tensors[address]
            head = _number(offset) + _number(_is_output(field, backward)) + _number(tensor.element_size())
            contents.append(head + _counted(inputs.get(offset) or _bytes(tensor)))
        direction = "backward" if backward else "forward"
        head = _counted(f"{self.name}, {direction}".encode()) + _counted(FUNCTIONS[type(problem)].encode())
        head += _number(backward) + _counted(bytes(problem)) + _number(len(pointers))
        self.calls.append(head + b"".join(contents))


def _pointers(problem: ctypes.Structure) -> Iterator[tuple[int, str, int]]:
    """Offset, field and address of all pointers that are set."""
    size = ctypes.sizeof(ctypes.c_void_p)
    for field, ctype in problem._fields_:
        offset = getattr(type(problem), field).offset
        if ctype is Rows or ctype is ctypes.c_void_p:
            offsets = [offset]  # of Rows the pointer comes first
        elif getattr(ctype, "_type_", None) is ctypes.c_void_p:
            offsets = range(offset, offset + ctypes.sizeof(ctype), size)
        else:
            continue
        for at in offsets:
            address = ctypes.c_void_p.from_buffer(problem, at).value
            if address:
                yield at, field, address


def _is_output(field: str, backward: bool) -> bool:
    if backward:
        return field == "gradient" or (field.startswith("grad_") and field not in BACKWARD_INPUTS)
    return field in FORWARD_OUTPUTS


def _bytes(tensor: torch.Tensor) -> bytes:
    """From the first element to the last, whatever the strides."""
    extent = 1 + sum((size - 1) * stride for size, stride in zip(tensor.shape, tensor.stride(), strict=True))
    return torch.as_strided(tensor, (extent,), (1,)).numpy().tobytes()


def _number(value: int) -> bytes:
    return struct.pack("<q", value)


def _counted(content: bytes) -> bytes:
    return _number(len(content)) + content


if __name__ == "__main__":
    main()
