"""The steps of the check on a GPU, the most telling first; each yields records for a table, or raises."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch

from nnunetv2_lightm.ops import backend_table

from .gpu_correctness import compile_kernels, long_scan, sanitizer, tests
from .gpu_setting import Record, Setting
from .gpu_timings import compiled_training, depthwise, inference, scans, top_kernels, training


def versions(setting: Setting) -> Iterator[Record]:
    """Versions, the device, and how fast a large copy is."""
    facts = {"torch": torch.__version__, "CUDA": torch.version.cuda, "cuDNN": torch.backends.cudnn.version()}
    if setting.on_gpu:
        card = torch.cuda.get_device_properties(0)
        facts |= {"card": card.name, "compute capability": f"{card.major}.{card.minor}"}
        facts |= {"memory, GiB": card.total_memory / 2**30, "multiprocessors": card.multi_processor_count}
    source = torch.empty((1 << 22) if setting.small else (1 << 29), dtype=torch.float16, device=setting.device)
    target = torch.empty_like(source)
    facts["copy, GB/s"] = 2 * source.nbytes / setting.median_ms(lambda: target.copy_(source)) / 1e6
    yield from ({"what": name, "value": value} for name, value in facts.items())
    for status in backend_table((setting.device,)):
        chosen = "taken" if status.selected else status.usable
        yield {"what": f"backend {status.name}", "value": f"{chosen}: {status.reason}"}


# With the most seconds that each may take.
STEPS: dict[str, tuple[Callable[[Setting], Iterator[Record]], int]] = {
    "versions": (versions, 40),
    "compile": (compile_kernels, 160),
    "training": (training, 150),
    "tests": (tests, 160),
    "top_kernels": (top_kernels, 40),
    "inference": (inference, 60),
    "scans": (scans, 60),
    "depthwise": (depthwise, 40),
    "long_scan": (long_scan, 40),
    "compiled_training": (compiled_training, 200),
    "sanitizer": (sanitizer, 130),
}
