"""The backend that hands over to mamba-ssm's kernel: its layouts, on a stand-in for the kernel, and its absence."""

from __future__ import annotations

import sys
from importlib.metadata import PackageNotFoundError

import pytest
import torch

from nnunetv2_lightm.ops import selective_scan
from nnunetv2_lightm.ops._scan_operator import scan_op
from nnunetv2_lightm.ops.backends import mamba_ssm_cuda

from . import fake_selective_scan_cuda
from .cases import NAMES, OPTIONAL, SUBSETS, TOLERANCES, VECTORS, assert_close, compare, load_vector, make_inputs, run

BACKEND = mamba_ssm_cuda.NAME
FLOAT32 = TOLERANCES[torch.float32]


@pytest.fixture
def installed(monkeypatch):
    """mamba-ssm 2.3.2, as far as its metadata tells."""
    monkeypatch.setattr(mamba_ssm_cuda, "version", {"mamba-ssm": "2.3.2"}.__getitem__)


@pytest.fixture
def kernel(monkeypatch, installed):
    """The stand-in, on any device; yields the names of its functions that were called."""
    monkeypatch.setitem(sys.modules, "selective_scan_cuda", fake_selective_scan_cuda)
    monkeypatch.setattr(mamba_ssm_cuda, "not_supported_reason", lambda device: None)
    fake_selective_scan_cuda.calls.clear()
    mamba_ssm_cuda._kernel.cache_clear()
    yield fake_selective_scan_cuda.calls
    mamba_ssm_cuda._kernel.cache_clear()


@pytest.mark.usefixtures("kernel")
@pytest.mark.parametrize("vector", VECTORS)
def test_mamba_reference_vectors(data_root, vector):
    inputs, options, expected = load_vector(data_root, vector, torch.float32)
    assert_close(run(inputs, BACKEND, **options), expected, FLOAT32)


@pytest.mark.usefixtures("kernel")
@pytest.mark.parametrize("with_last", [False, True], ids=["y", "y and last state"])
@pytest.mark.parametrize("shape", [(1, 1, 1, 1), (2, 2, 3, 5), (3, 63, 7, 16)], ids=str)
def test_shapes(shape, with_last):
    options = {} if with_last else {"grad_last": None}
    compare(make_inputs(*shape, dtype=torch.float32), BACKEND, FLOAT32, **options)


@pytest.mark.usefixtures("kernel")
@pytest.mark.parametrize("with_last", [False, True], ids=["y", "y and last state"])
@pytest.mark.parametrize("softplus", [True, False])
@pytest.mark.parametrize("without", SUBSETS, ids=str)
def test_every_choice_of_options(without, softplus, with_last):
    inputs = make_inputs(2, 20, 6, 4, without=without, dtype=torch.float32, positive_steps=not softplus)
    compare(inputs, BACKEND, FLOAT32, softplus=softplus, **({} if with_last else {"grad_last": None}))


def test_chunks_of_the_kernel_come_back_to_it(kernel):
    """More than 2048 tokens: the kernel's own states are the checkpoints, and it is not run again."""
    inputs = make_inputs(2, 2 * 2048 + 3, 3, 2, without=("z",), dtype=torch.float32)
    compare(inputs, BACKEND, FLOAT32, grad_last=None)
    assert kernel == ["fwd", "bwd"]


def test_last_state_read_beyond_a_chunk_of_the_kernel(kernel):
    inputs = make_inputs(1, 2047, 2, 3, dtype=torch.float32)
    compare(inputs, BACKEND, FLOAT32)
    assert kernel == ["fwd", "fwd", "bwd"]


@pytest.mark.usefixtures("kernel")
def test_non_contiguous_and_half_precision_inputs():
    inputs = make_inputs(2, 30, 6, 4, dtype=torch.bfloat16)
    expected = run(inputs, BACKEND)
    strided = {}
    for name, tensor in inputs.items():
        view = torch.full((*tensor.shape[:-1], 3 * tensor.shape[-1]), torch.nan, dtype=tensor.dtype)[..., ::3]
        view.copy_(tensor.detach())
        strided[name] = view.requires_grad_()
    assert_close(run(strided, BACKEND), expected, 0)
    compare(inputs, BACKEND, TOLERANCES[torch.bfloat16], grad_last=None)


@pytest.mark.usefixtures("kernel")
def test_empty_sequence_and_batch():
    for shape in ((2, 0, 4, 3), (0, 5, 4, 3)):
        inputs = make_inputs(*shape, dtype=torch.float32)
        y, last = selective_scan(**inputs, return_last_state=True, backend=BACKEND)
        assert y.shape == shape[:3] and last.shape == (shape[0], 4, 3) and not last.any()
        y.sum().backward()
        assert all(t.grad is None or not t.grad.any() for t in inputs.values())


@pytest.mark.usefixtures("kernel")
@pytest.mark.parametrize("name", NAMES)
def test_gradient_of_one_input_alone(name):
    inputs = {n: t.detach() for n, t in make_inputs(1, 10, 3, 2, dtype=torch.float32).items()}
    inputs[name].requires_grad_()
    gradients = []
    for backend in (BACKEND, "reference"):
        y = selective_scan(**inputs, delta_softplus=True, backend=backend)
        gradients.append(torch.autograd.grad(y.square().sum(), inputs[name])[0])
    torch.testing.assert_close(*gradients, rtol=1e-4, atol=1e-4)


@pytest.mark.usefixtures("kernel")
@pytest.mark.parametrize("without", [(), OPTIONAL], ids=str)
def test_opcheck(without):
    inputs = make_inputs(2, 20, 4, 3, without=without, dtype=torch.float32)
    torch.library.opcheck(scan_op, (*inputs.values(), True, BACKEND, True))


@pytest.mark.usefixtures("kernel")
def test_too_many_states_are_refused_before_the_kernel_does():
    inputs = make_inputs(1, 2, 2, 257, dtype=torch.float32)
    with pytest.raises(ValueError, match="257 states, mamba-ssm's kernel has at most 256; .*=triton_gpu"):
        selective_scan(**inputs, backend=BACKEND)


@pytest.mark.usefixtures("kernel")
def test_says_which_kernel_it_is():
    assert mamba_ssm_cuda.describe() == "compiled kernel of mamba-ssm 2.3.2"


@pytest.mark.parametrize("device", ["cpu", "mps", "xpu"])
def test_other_devices_are_left_to_others(device):
    assert mamba_ssm_cuda.not_supported_reason(device) == "CUDA only"


def test_not_installed(monkeypatch):
    def version(name):
        raise PackageNotFoundError(name)

    monkeypatch.setattr(mamba_ssm_cuda, "version", version)
    # A module of that name alone may be another project's, with other arguments.
    monkeypatch.setitem(sys.modules, "selective_scan_cuda", fake_selective_scan_cuda)
    command = 'python -m pip install "mamba-ssm>=2.2" --no-build-isolation'
    assert mamba_ssm_cuda._kernel.__wrapped__() == f"needs mamba-ssm: {command}"


@pytest.mark.usefixtures("installed")
def test_installed_without_its_kernel(monkeypatch):
    monkeypatch.setitem(sys.modules, "selective_scan_cuda", None)
    reason = mamba_ssm_cuda._kernel.__wrapped__()
    assert reason.startswith("mamba-ssm 2.3.2 is installed without its compiled kernel, as versions above 2.3 can be")
    assert "MAMBA_FORCE_BUILD=TRUE" in reason


@pytest.mark.usefixtures("installed")
def test_kernel_built_for_another_torch(monkeypatch, tmp_path):
    (tmp_path / "selective_scan_cuda.py").write_text("raise ImportError('undefined symbol: _ZN3c104cuda')")
    monkeypatch.syspath_prepend(str(tmp_path))
    reason = mamba_ssm_cuda._kernel.__wrapped__()
    assert "kernel of mamba-ssm 2.3.2 does not load (undefined symbol: _ZN3c104cuda)" in reason
    assert "MAMBA_FORCE_BUILD=TRUE" in reason


def test_a_missing_kernel_is_the_reason_on_cuda_and_an_error_if_it_is_run(monkeypatch):
    monkeypatch.setattr(mamba_ssm_cuda, "_kernel", lambda: "has no kernel")
    assert mamba_ssm_cuda.not_supported_reason("cuda") == "has no kernel"
    inputs = make_inputs(1, 2, 2, 2, dtype=torch.float32)
    with pytest.raises(RuntimeError, match="'mamba_ssm_cuda' does not run on 'cpu'"):
        scan_op(*inputs.values(), True, BACKEND, False)
