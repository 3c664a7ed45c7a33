"""The compiled RVM layer against the same layer put together from PyTorch's operators, outputs and every gradient."""

from __future__ import annotations

import multiprocessing
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch

from nnunetv2_lightm.layers import RVMLayer
from nnunetv2_lightm.ops import rvm_layer, rvm_layer_op
from nnunetv2_lightm.ops.backends import ENVIRONMENT_VARIABLE, cpu_native, native_library
from nnunetv2_lightm.ops.rvm_layer import rvm_layer_backward_op

REASON = cpu_native.not_supported_reason("cpu")
pytestmark = pytest.mark.skipif(REASON is not None, reason=f"cpu_native: {REASON}")

# shape (batch, *spatial, channels), output channels, pooling, options.
CASES = {
    "3d pooled, odd": ((2, 5, 6, 7, 16), 16, (2, 2, 2), {}),
    "3d rows left over": ((1, 4, 9, 20, 32), 32, None, {}),
    "3d anisotropic pooling, 5 states": ((1, 12, 3, 70, 32), 64, (1, 3, 2), {"d_state": 5}),
    "3d slab ends within a plane": ((1, 20, 20, 20, 32), 64, (2, 2, 2), {}),
    "3d three times the channels inside": ((1, 6, 8, 8, 48), 16, (2, 1, 2), {"expand": 3}),
    "3d two images of several slabs": ((2, 12, 10, 24, 32), 32, (2, 2, 2), {}),
    "3d one voxel": ((1, 1, 1, 1, 16), 16, None, {}),
    "2d pooled, odd": ((2, 33, 17, 16), 16, (2, 2), {}),
    "2d several slabs": ((1, 130, 50, 32), 64, None, {}),
    "2d one row, one state": ((1, 1, 5, 16), 16, None, {"d_state": 1}),
}


# Results of the specification, which takes its time.
EXPECTED = {}


def layer_and_input(case, dtype):
    shape, out_channels, pool, options = CASES[case]
    torch.manual_seed(0)
    layer = RVMLayer(shape[-1], out_channels, len(shape) - 2, **options).double()
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return layer.to(dtype), torch.randn(shape, dtype=torch.float64).to(dtype), pool


def results(layer, x, pool, monkeypatch, backend):
    """Output and gradients by name."""
    monkeypatch.setenv(ENVIRONMENT_VARIABLE, backend)
    assert layer.fused("cpu") == (backend != "reference")
    x = x.detach().clone().requires_grad_()
    layer.zero_grad()
    y = layer(x, pool)
    y.backward(torch.linspace(0, 9, y.numel(), dtype=y.dtype).cos().view(y.shape))
    return {"y": y.detach(), "x": x.grad, **{n: p.grad.clone() for n, p in layer.named_parameters()}}


def assert_close(got, expected, tolerance):
    """Every tensor within a share of its largest element."""
    for name, tensor in expected.items():
        error = (got[name].double() - tensor.double()).abs().max()
        assert error <= tolerance * tensor.abs().max(), f"{name}: off by {error:.2e} of {tensor.abs().max():.2e}"


def instruction_sets():
    return range(len(native_library.instruction_sets())) if REASON is None else [0]


@pytest.mark.parametrize("threads", [1, 3])
@pytest.mark.parametrize("instruction_set", instruction_sets())
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-12), (torch.float32, 3e-5)])
@pytest.mark.parametrize("case", CASES)
def test_equals_the_layer_of_torch_operators(case, dtype, tolerance, instruction_set, threads, monkeypatch):
    monkeypatch.setattr(native_library, "INSTRUCTION_SET", instruction_set)
    monkeypatch.setattr(torch, "get_num_threads", lambda: threads)
    layer, x, pool = layer_and_input(case, dtype)
    if (case, dtype) not in EXPECTED:
        EXPECTED[case, dtype] = results(layer.double(), x.double(), pool, monkeypatch, "reference")
    assert_close(results(layer.to(dtype), x, pool, monkeypatch, "cpu_native"), EXPECTED[case, dtype], tolerance)


@pytest.mark.parametrize("instruction_set", instruction_sets())
def test_decays_beyond_all_bounds(instruction_set, monkeypatch):
    """exp(dt A) is 0 where dt A is beyond 1e28, up to the largest number."""
    monkeypatch.setattr(native_library, "INSTRUCTION_SET", instruction_set)
    layer, x, pool = layer_and_input("2d one row, one state", torch.float32)
    A_log = layer.vssm.ssms[0].A_log
    with torch.no_grad():
        A_log[::2, 0] = torch.linspace(60, 88.7, len(A_log[::2]))
    expected = results(layer.double(), x.double(), pool, monkeypatch, "reference")
    assert all(t.isfinite().all() for t in expected.values())
    assert_close(results(layer.float(), x, pool, monkeypatch, "cpu_native"), expected, 3e-5)


@pytest.mark.parametrize("case", [case for case in CASES if "slab" in case])
def test_the_same_on_any_number_of_threads(case, monkeypatch):
    """Bit by bit where each thread takes slabs of its own; on very many all share each slab, whose scan is cut."""
    layer, x, pool = layer_and_input(case, torch.float32)

    def on(threads):
        monkeypatch.setattr(torch, "get_num_threads", lambda: threads)
        return results(layer, x, pool, monkeypatch, "cpu_native")

    alone = on(1)
    for threads in (2, 3):
        for name, tensor in on(threads).items():
            assert torch.equal(tensor, alone[name]), f"{name} on {threads} threads"
    assert_close(on(12), alone, 2e-5)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_is_computed_in_float32(dtype):
    layer, x, pool = layer_and_input("3d pooled, odd", torch.float32)
    y = layer(x.to(dtype), pool)
    assert y.dtype == dtype
    torch.testing.assert_close(y, layer(x.to(dtype).float(), pool).to(dtype))


def test_autocast_changes_nothing():
    layer, x, pool = layer_and_input("2d pooled, odd", torch.float32)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        y = layer(x, pool)
    assert torch.equal(y, layer(x, pool))


def test_strided_input():
    layer, x, pool = layer_and_input("3d pooled, odd", torch.float32)
    strided = x.movedim(-1, 1).contiguous().movedim(1, -1)
    assert not strided.is_contiguous() and torch.equal(layer(strided, pool), layer(x, pool))


def test_inference_keeps_nothing():
    layer, x, pool = layer_and_input("3d pooled, odd", torch.float32)
    parameters = layer._parameters_of_operator()
    out, checkpoints, argmax = rvm_layer_op(x, parameters, [1, 1, 1], False, "cpu_native")
    assert checkpoints.numel() == argmax.numel() == 0
    with torch.inference_mode():
        assert torch.equal(layer(x), out)


def test_the_same_every_time():
    layer, x, pool = layer_and_input("3d slab ends within a plane", torch.float32)
    with torch.inference_mode():
        runs = [layer(x, pool) for _ in range(3)]
    assert torch.equal(runs[0], runs[1]) and torch.equal(runs[0], runs[2])


def test_nan_in_gives_nan_out():
    layer, x, pool = layer_and_input("3d pooled, odd", torch.float32)
    x[0, 2, 3, 4, 5] = float("nan")
    with torch.inference_mode():
        y = layer(x, pool)
    # The scan carries it on to all later tokens, not to the other entry of the batch.
    assert y[0, 1:].isnan().all() and y[1].isfinite().all()


def test_empty_batch():
    layer, x, pool = layer_and_input("2d pooled, odd", torch.float32)
    x = x[:0].requires_grad_()
    y = layer(x, pool)
    assert y.shape == (0, 16, 8, 16)
    y.sum().backward()
    assert x.grad.shape == x.shape and not layer.projection.weight.grad.any()


def test_image_smaller_than_the_pooling():
    layer, x, _ = layer_and_input("2d one row, one state", torch.float32)
    y = layer(x.requires_grad_(), (2, 2))
    assert y.shape == (1, 0, 2, 16)
    y.sum().backward()
    assert not x.grad.any()


@pytest.mark.parametrize("pool", [None, (2, 1, 2)])
def test_gradcheck(pool):
    layer = RVMLayer(16, 16, 3, d_state=2).double()
    x = torch.randn(1, 2, 2, 3, 16, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda x: layer(x, pool), x, fast_mode=True)
    parameters = [p.detach().clone().requires_grad_() for p in layer._parameters_of_operator()]
    assert torch.autograd.gradcheck(
        lambda *p: rvm_layer(x.detach(), p, pool or (1, 1, 1)), parameters, fast_mode=True, atol=1e-4
    )


def test_opcheck():
    layer, x, pool = layer_and_input("2d pooled, odd", torch.float32)
    parameters = [p.detach().requires_grad_() for p in layer._parameters_of_operator()]
    torch.library.opcheck(rvm_layer_op, (x.requires_grad_(), parameters, list(pool), True, "cpu_native"))


def test_several_python_threads_at_once():
    layer, x, pool = layer_and_input("3d slab ends within a plane", torch.float32)

    def run(_):
        with torch.inference_mode():
            return layer(x, pool)

    expected = run(0)
    with ThreadPoolExecutor(4) as pool_of_threads:
        assert all(torch.equal(expected, y) for y in pool_of_threads.map(run, range(12)))


def _send_output(connection, x, parameters, pool):
    with torch.inference_mode():
        connection.send(rvm_layer(x, parameters, pool).numpy())


def test_works_in_a_forked_process():
    """The operator alone: PyTorch's own threads, which -exp(A_log) may take, do not survive a fork."""
    layer, x, pool = layer_and_input("3d slab ends within a plane", torch.float32)
    with torch.inference_mode():
        parameters = layer._parameters_of_operator()
        expected = rvm_layer(x, parameters, pool)
    context = multiprocessing.get_context("fork")
    here, there = context.Pipe(duplex=False)
    process = context.Process(target=_send_output, args=(there, x, parameters, pool))
    process.start()
    try:
        assert here.poll(60), "the forked process hangs"
        torch.testing.assert_close(torch.from_numpy(here.recv()), expected)
        process.join(60)
        assert process.exitcode == 0
    finally:
        process.kill()  # one that hangs would keep the whole run from ending


SUMS = """
import torch
from nnunetv2_lightm.networks import LightMUNet
torch.manual_seed(0)
network = LightMUNet(1, 3, spatial_dims=3)
y = network(torch.randn(2, 1, 20, 17, 19))
y.square().mean().backward()
print(y.double().sum().item(), *(p.grad.double().sum().item() for p in network.parameters()))
"""


def test_buffers_need_not_be_zero():
    """The same numbers if the C library fills the memory that it gives with 3e38."""

    def sums(**environment):
        command = [sys.executable, "-c", SUMS]
        return subprocess.run(command, env=os.environ | environment, capture_output=True, text=True, check=True).stdout

    assert "nan" not in (clean := sums(MALLOC_PERTURB_="0"))
    assert sums(MALLOC_PERTURB_="128") == clean


@pytest.mark.parametrize("scan", [cpu_native.NAME, "torch_chunked"])
@pytest.mark.parametrize("name", ["checkpoints", "argmax", "grad_out"])
def test_what_the_backward_operator_is_given_may_lie_anywhere(name, scan):
    layer = RVMLayer(16, 32, 3)
    parameters = [p.detach() for p in layer._parameters_of_operator()]
    x, pool = torch.randn(2, 2, 5, 5, 16), [1, 2, 2]
    out, checkpoints, argmax = rvm_layer_op(x, parameters, pool, True, scan)
    given = {"grad_out": torch.randn_like(out), "checkpoints": checkpoints, "argmax": argmax}
    expected, _ = rvm_layer_backward_op(*given.values(), x, parameters, pool, scan)
    given[name] = torch.stack((given[name], torch.full_like(given[name], 3)), -1)[..., 0]
    assert torch.equal(rvm_layer_backward_op(*given.values(), x, parameters, pool, scan)[0], expected)
