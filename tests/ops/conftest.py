"""Fixtures of the operators' tests: unwritten memory that shows, instruction sets, numbers of threads."""

from __future__ import annotations

import pytest
import torch

from nnunetv2_lightm.ops.backends import cpu_native, native_library
from nnunetv2_lightm.ops.backends.triton_kernels import scan_launches

from .cases import CHUNK, INTERPRETED

INSTRUCTION_SETS = native_library.instruction_sets() if cpu_native.not_supported_reason("cpu") is None else []


@pytest.fixture
def poisoned_memory(monkeypatch):
    """Tensors that PyTorch leaves unwritten hold NaN."""
    monkeypatch.setattr(torch.utils.deterministic, "fill_uninitialized_memory", True)
    torch.use_deterministic_algorithms(True)
    assert torch.zeros(1).new_empty(9).isnan().all() and torch.empty(9).isnan().all()
    yield
    torch.use_deterministic_algorithms(False)


@pytest.fixture(params=list(enumerate(INSTRUCTION_SETS)), ids=lambda numbered: numbered[1])
def instruction_set(request, monkeypatch):
    """Each instruction set of the compiled library that this processor has."""
    monkeypatch.setattr(native_library, "INSTRUCTION_SET", request.param[0])
    return request.param[0]


@pytest.fixture
def threads():
    """Sets PyTorch's number of threads; the test leaves it as it was."""
    before = torch.get_num_threads()
    yield torch.set_num_threads
    torch.set_num_threads(before)


@pytest.fixture
def short_triton_chunks(monkeypatch):
    """Several chunks and groups of them in sequences that Triton's interpreter can walk through."""
    if INTERPRETED:
        monkeypatch.setattr(scan_launches, "CHUNK_LENGTH", CHUNK)
        monkeypatch.setattr(scan_launches, "GROUP_CHUNKS", 2)
