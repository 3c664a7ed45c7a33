"""What setup.py put into the compiled library: code for every instruction set of this processor that it is to hold."""

from __future__ import annotations

import platform
import sys
from pathlib import Path

import pytest

from nnunetv2_lightm.ops.backends import cpu_native, native_library

REASON = cpu_native.not_supported_reason("cpu")
NEEDED = {"AVX-512": {"avx512f", "avx512dq", "fma"}, "AVX2": {"avx2", "fma"}}


@pytest.mark.skipif(REASON is not None, reason=f"cpu_native {REASON}")
@pytest.mark.skipif(
    sys.platform != "linux" or platform.machine() != "x86_64",
    reason="reads /proc/cpuinfo as Linux on x86-64 writes it",
)
def test_has_code_for_what_the_processor_can_do():
    """A source file that setup.py compiles without its flags is empty, which nothing but the speed would tell."""
    (flags, *_) = [line for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("flags")]
    expected = [name for name, needed in NEEDED.items() if needed <= set(flags.split())]
    assert native_library.instruction_sets() == [*expected, "SSE2"]
