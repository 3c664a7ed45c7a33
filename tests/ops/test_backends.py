"""Which backend is taken where, why the others are not, and that a forced one is never replaced in silence."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch

from nnunetv2_lightm.ops import backend_table, select_backend, selective_scan
from nnunetv2_lightm.ops.backends import REGISTRY, is_short, load_backend

ON_CUDA = ["triton_gpu", "mamba_ssm_cuda", "torch_chunked"]
ON_CPU = ["cpu_native", "torch_chunked"]


@pytest.fixture(autouse=True)
def nothing_is_forced(monkeypatch):
    monkeypatch.delenv("NNUNETV2_LIGHTM_BACKEND", raising=False)


@pytest.fixture
def only(monkeypatch):
    """Lets only the named backends run, on any device."""

    def let_run(*names):
        for name in REGISTRY:
            reason = None if name in names else f"{name} is away"
            monkeypatch.setattr(load_backend(name), "not_supported_reason", lambda device, reason=reason: reason)

    return let_run


@pytest.mark.parametrize(("device", "order"), [("cuda", ON_CUDA), ("cpu", ON_CPU)])
def test_the_first_of_the_device_s_order_that_can_run_is_taken(only, device, order):
    for first in range(len(order)):
        only(*order[first:])
        assert select_backend(device) == order[first]


@pytest.mark.parametrize(
    ("shape", "taken"),
    [
        ((2, 128**3, 64), "triton_gpu"),
        ((2, 32**3, 256), "triton_gpu"),
        ((2, 16**3, 512), "mamba_ssm_cuda"),
        ((1, 4096, 64), "triton_gpu"),
    ],
    ids=str,
)
def test_mamba_ssm_is_taken_for_many_short_sequences(only, shape, taken):
    only(*REGISTRY)
    assert select_backend("cuda", short=is_short(*shape)) == taken
    assert select_backend("cpu", short=is_short(*shape)) == "cpu_native"


@pytest.mark.parametrize("device", ["mps", "xpu"])
def test_elsewhere_pytorch_is_taken(only, device):
    only(*REGISTRY)
    assert select_backend(device) == "torch_chunked"


def test_backends_of_other_devices_are_taken_if_asked_for_alone(only):
    """The interpreter of Triton makes triton_gpu run on the CPU; nobody wants that by default."""
    only("triton_gpu", "torch_chunked")
    assert select_backend("cpu") == "torch_chunked"
    assert select_backend("cpu", "triton_gpu") == "triton_gpu"


def test_reasons_of_all_are_told_if_none_can_run(only):
    only()
    with pytest.raises(RuntimeError, match="no scan backend runs on 'cuda'") as error:
        select_backend("cuda")
    assert all(f"{name}: {name} is away" in str(error.value) for name in ON_CUDA)


def test_float64_is_computed_where_it_can_be(only):
    only(*REGISTRY)
    assert select_backend("cuda", dtype=torch.float64) == "triton_gpu"
    with pytest.raises(RuntimeError, match="mamba_ssm_cuda: does not compute in torch.float64"):
        select_backend("cuda", "mamba_ssm_cuda", torch.float64)


def test_the_public_function_asks_for_the_dtype_it_computes_in(monkeypatch):
    u, B = torch.randn(1, 4, 2), torch.randn(1, 4, 3)
    monkeypatch.setattr(load_backend("torch_chunked"), "COMPUTE_DTYPES", (torch.float32,))
    inputs = (u.bfloat16(), u, -torch.ones(2, 3), B, B)
    selective_scan(*inputs, backend="torch_chunked")
    with pytest.raises(RuntimeError, match="does not compute in torch.float64"):
        selective_scan(*inputs[:4], B.double(), backend="torch_chunked")


def test_forcing_a_backend(monkeypatch):
    monkeypatch.setenv("NNUNETV2_LIGHTM_BACKEND", "torch_chunked")
    assert select_backend("cpu") == select_backend("cuda") == "torch_chunked"
    monkeypatch.setenv("NNUNETV2_LIGHTM_BACKEND", "reference")
    assert select_backend("cpu") == "reference"
    monkeypatch.setenv("NNUNETV2_LIGHTM_BACKEND", "fast")
    with pytest.raises(ValueError, match="no scan backend named 'fast'; there are: .*torch_chunked"):
        select_backend("cpu")


def test_a_forced_backend_that_cannot_run_is_not_replaced(monkeypatch):
    monkeypatch.setenv("NNUNETV2_LIGHTM_BACKEND", "mamba_ssm_cuda")
    x = torch.ones(1, 2, 1)
    with pytest.raises(RuntimeError, match="'mamba_ssm_cuda' does not run on 'cpu':\\n  mamba_ssm_cuda: CUDA only"):
        selective_scan(x, x, -torch.ones(1, 1), x, x)


def test_table_selects_one_backend_on_each_device_that_is_there():
    table = list(backend_table(("cpu", "npu")))
    assert [s.name for s in table if s.device == "cpu" and s.selected] == [select_backend("cpu")]
    absent = [s for s in table if s.device == "npu"]
    assert absent and not any(s.usable or s.selected for s in absent)
    assert all("this machine has no npu device" in s.reason for s in absent)
    assert all(s.reason for s in table)


@pytest.mark.parametrize(("device", "order"), [("cuda", ON_CUDA), ("cpu", ON_CPU), ("mps", ["torch_chunked"])])
def test_table_begins_with_those_that_are_tried_in_their_order(device, order):
    table = list(backend_table((device,)))
    assert sorted(s.name for s in table) == sorted(REGISTRY)
    assert [s.name for s in table if s.considered] == [s.name for s in table][: len(order)] == order


def test_table_shows_a_forced_backend_even_where_it_cannot_run(monkeypatch):
    monkeypatch.setenv("NNUNETV2_LIGHTM_BACKEND", "mamba_ssm_cuda")
    assert not any(status.selected for status in backend_table(("cpu",)))
    monkeypatch.setenv("NNUNETV2_LIGHTM_BACKEND", "torch_chunked")
    assert [status.name for status in backend_table(("cpu",)) if status.selected] == ["torch_chunked"]


@pytest.mark.slow
def test_backends_of_a_gpu_are_not_looked_at_for_the_cpu():
    script = """
import sys
from nnunetv2_lightm.ops import select_backend
select_backend("cpu")
loaded = {name.removeprefix("nnunetv2_lightm.ops.backends.") for name in sys.modules}
assert not loaded & {"triton_gpu", "triton_kernels.scan", "mamba_ssm_cuda", "mamba_ssm", "selective_scan_cuda"}
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
