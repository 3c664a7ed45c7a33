"""RVM layers, forward and backward, on three threads of the library's own: what tests/sanitizers.sh looks at for races.

PyTorch's OpenMP runtime is left out, because ThreadSanitizer does not see how its threads wait for one another. With
the argument `race` two threads write to the same numbers, which must be noticed.
"""

from __future__ import annotations

import ctypes
import sys
import threading

import torch

from nnunetv2_lightm.layers import RVMLayer
from nnunetv2_lightm.ops.backends import native_library

THREADS = 3
# (batch, *spatial, channels), output channels, pooling: several slabs each, which the threads share.
LAYERS = (
    ((2, 12, 10, 24, 32), 32, (2, 2, 2)),
    ((1, 20, 20, 20, 32), 64, (2, 2, 2)),
    ((1, 130, 50, 32), 64, None),
)


def race() -> None:
    # Calls longer than a time slice, so that they overlap on a busy machine, too: one after the other, Python's lock
    # would put them in order.
    values, count = (ctypes.c_float * (1 << 20))(), ctypes.c_int64(1 << 20)

    def work() -> None:
        for _ in range(20):
            native_library.library().nnunetv2_lightm_apply(0, ctypes.c_int64(0), values, values, count)

    threads = [threading.Thread(target=work) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def run_layers() -> None:
    for shape, out_channels, pool in LAYERS:
        layer, x = RVMLayer(shape[-1], out_channels, len(shape) - 2), torch.randn(shape, requires_grad=True)
        for _ in range(3):
            layer(x, pool).square().sum().backward()
        print(f"{shape}: {x.grad.norm().item():.6g}", flush=True)


if __name__ == "__main__":
    native_library.library().nnunetv2_lightm_use_openmp(None)
    torch.get_num_threads = lambda: THREADS
    race() if sys.argv[1:] == ["race"] else run_layers()
