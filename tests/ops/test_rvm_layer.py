"""The compiled RVM layer against the same layer put together from PyTorch's operators, outputs and every gradient."""

from __future__ import annotations

import ctypes
import math
import multiprocessing
import sys
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch

from nnunetv2_lightm.layers import RVMLayer
from nnunetv2_lightm.networks import LightMUNet
from nnunetv2_lightm.ops import rvm_layer, rvm_layer_op
from nnunetv2_lightm.ops.backends import ENVIRONMENT_VARIABLE, cpu_native, native_rvm
from nnunetv2_lightm.ops.rvm_layer import rvm_layer_backward_op

from .cases import LAYER_TOLERANCES

REASON = cpu_native.not_supported_reason("cpu")
pytestmark = pytest.mark.skipif(REASON is not None, reason=f"cpu_native: {REASON}")

# shape (batch, *spatial, channels), output channels, pooling, options. A slab of the training has 256 tokens at least,
# with 128 inner channels or more; separate threads take slabs of their own where there are six.
CASES = {
    "3d pooled, odd": ((2, 5, 6, 7, 16), 16, (2, 2, 2), {}),
    "3d rows left over": ((1, 4, 9, 20, 32), 32, None, {}),
    "3d anisotropic pooling, 5 states": ((1, 12, 3, 70, 32), 64, (1, 3, 2), {"d_state": 5}),
    "3d slab ends within a plane": ((1, 12, 13, 12, 32), 64, (2, 2, 2), {"expand": 4}),
    "3d three times the channels inside": ((1, 6, 8, 8, 48), 16, (2, 1, 2), {"expand": 3}),
    "3d two images of several slabs": ((2, 13, 7, 17, 32), 32, (2, 2, 2), {"expand": 4}),
    "3d one voxel": ((1, 1, 1, 1, 16), 16, None, {}),
    "2d pooled, odd": ((2, 33, 17, 16), 16, (2, 2), {}),
    "2d several slabs": ((1, 70, 25, 32), 64, None, {"expand": 4}),
    "2d one row, one state": ((1, 1, 5, 16), 16, None, {"d_state": 1}),
}


# Of glibc's mallopt.
M_PERTURB = -6
# Results of the specification, which takes its time.
EXPECTED = {}


def layer_and_input(case, dtype):
    """The same in every dtype: numbers that float32 holds."""
    shape, out_channels, pool, options = CASES[case]
    torch.manual_seed(0)
    layer = RVMLayer(shape[-1], out_channels, len(shape) - 2, **options)
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return layer.to(dtype), torch.randn(shape).to(dtype), pool


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


def expected_of(case, monkeypatch):
    """Results of the specification, in float64."""
    if case not in EXPECTED:
        EXPECTED[case] = results(*layer_and_input(case, torch.float64), monkeypatch, "reference")
    return EXPECTED[case]


@pytest.mark.parametrize("threads", [1, 3])
@pytest.mark.parametrize("dtype", LAYER_TOLERANCES, ids=str)
@pytest.mark.parametrize("case", CASES)
def test_equals_the_layer_of_torch_operators(case, dtype, instruction_set, threads, monkeypatch):
    monkeypatch.setattr(torch, "get_num_threads", lambda: threads)
    found = results(*layer_and_input(case, dtype), monkeypatch, "cpu_native")
    assert_close(found, expected_of(case, monkeypatch), LAYER_TOLERANCES[dtype])


def test_decays_beyond_all_bounds(instruction_set, monkeypatch):
    """exp(dt A) is 0 where dt A is beyond 1e28, up to the largest number."""
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


@pytest.mark.parametrize("product_dtype", [None, torch.bfloat16], ids=str)
def test_opcheck(product_dtype):
    layer, x, pool = layer_and_input("2d pooled, odd", torch.float32)
    parameters = [p.detach().requires_grad_() for p in layer._parameters_of_operator()]
    torch.library.opcheck(rvm_layer_op, (x.requires_grad_(), parameters, list(pool), True, "cpu_native", product_dtype))


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


def sums(network, image):
    """A step's output and gradients, in sums."""
    network.zero_grad()
    y = network(image)
    y.square().mean().backward()
    return [t.double().sum().item() for t in (y, *(p.grad for p in network.parameters()))]


def test_a_gradient_that_is_undefined():
    class Nothing(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            ctx.set_materialize_grads(False)
            return x.clone()

        @staticmethod
        def backward(ctx, grad):
            return None

    layer, x = RVMLayer(16, 32, 2), torch.randn(1, 6, 6, 16, requires_grad=True)
    (Nothing.apply(layer(x, pool=(2, 2))).sum() + x.sum()).backward()
    assert torch.equal(x.grad, torch.ones_like(x)) and all(p.grad is None for p in layer.parameters())


def test_buffers_need_not_be_zero():
    """The same numbers, whatever byte the C library fills the memory with that it gives."""
    perturb = getattr(ctypes.CDLL(None), "mallopt", None) if sys.platform == "linux" else None
    if perturb is None or perturb(M_PERTURB, 0) == 0:
        pytest.skip("fills memory by mallopt(M_PERTURB), which glibc has")
    torch.manual_seed(0)
    network, image = LightMUNet(1, 3, spatial_dims=3), torch.randn(2, 1, 20, 17, 19)
    clean = sums(network, image)
    try:
        assert perturb(M_PERTURB, 128) == 1  # 0x7f7f7f7f: 3.4e38
        filled = sums(network, image)
        assert torch.empty(1000)[-1] > 3e38
    finally:
        perturb(M_PERTURB, 0)
    assert filled == clean and not any(map(math.isnan, clean))


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


@pytest.mark.parametrize(
    "spatial", [(1, 1), (3, 700), (130, 50), (64, 64), (5, 9, 20), (1, 300, 2), (40, 33, 17)], ids=str
)
@pytest.mark.parametrize("expand", [1, 3, 20])
def test_as_many_checkpoints_for_a_size_that_is_a_symbol(spatial, expand):
    """As an export for any image announces them."""
    layer = RVMLayer(32, 16, len(spatial), expand=expand)
    parameters = [p.detach() for p in layer._parameters_of_operator()]
    announced = native_rvm._symbolic_checkpoint_count(spatial, 32 * expand)
    assert announced == native_rvm.checkpoint_count(spatial, parameters)
