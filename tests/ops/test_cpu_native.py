"""What only the compiled backend has: instruction sets, tails, vectorised functions, threads, forks."""

from __future__ import annotations

import ctypes
import math
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch

from nnunetv2_lightm.ops import selective_scan, selective_scan_reference
from nnunetv2_lightm.ops.backends import cpu_native, native_library

from . import cases
from .cases import NAMES, TOLERANCES, assert_close, cast, compare, grads_for, make_inputs

REASON = cpu_native.not_supported_reason("cpu")
pytestmark = pytest.mark.skipif(REASON is not None, reason=f"cpu_native {REASON}")
FUNCTIONS = {"exp2": 0, "softplus": 1, "sigmoid": 2}


@pytest.fixture
def without_openmp():
    library = native_library.library()
    library.nnunetv2_lightm_use_openmp(None)
    yield
    library.nnunetv2_lightm_use_openmp(native_library.torch_openmp())


def run(inputs):
    return cases.run(inputs, cpu_native.NAME, **grads_for(inputs))


def expected_of(inputs):
    """What the specification says, in float64."""
    return cases.run(cast(inputs, torch.float64), "reference", **grads_for(inputs))


def apply(function, instruction_set, x):
    """A vectorised float32 function of the library."""
    x = torch.nn.functional.pad(x.float(), (0, -x.numel() % 16))
    result = torch.empty_like(x)
    native_library.library().nnunetv2_lightm_apply(
        FUNCTIONS[function],
        ctypes.c_int64(instruction_set),
        *(ctypes.c_void_p(t.data_ptr()) for t in (x, result)),
        ctypes.c_int64(x.numel()),
    )
    return x.double(), result


def ulps(result, expected):
    """Error in units in the last place of float32; expected: float64, normal numbers."""
    unit = torch.exp2(torch.floor(torch.log2(expected.abs())) - 23)
    return float(((result.double() - expected).abs() / unit).max())


def python(script):
    """Run a script in a process of its own, which has to end by itself with success."""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout.split()


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=["float64", "float32"])
@pytest.mark.parametrize("d_inner", [1, 2, 3, 5, 7, 8, 15, 16, 17, 31, 32, 33])
def test_every_instruction_set_and_tail_of_channels(instruction_set, d_inner, dtype):
    compare(make_inputs(2, 67, d_inner, 1 + d_inner % 6, dtype=dtype), cpu_native.NAME, TOLERANCES[dtype])


@pytest.mark.parametrize("shape", [(1, 1500, 4, 3), (2, 700, 33, 4), (3, 200, 50, 5)], ids=str)
@pytest.mark.parametrize("count", [1, 2, 3, 8])
def test_thread_counts_agree(instruction_set, threads, shape, count):
    """Few chains and many threads: the sequence is cut; many blocks: gradients of B and C come from several buffers."""
    inputs = make_inputs(*shape)
    threads(1)
    expected = run(inputs)
    threads(count)
    result = run(inputs)
    assert_close(result, expected, 1e-12)
    again = run(inputs)
    assert all(torch.equal(again[name], value) for name, value in result.items())


def test_threads_of_its_own_give_the_same(threads, without_openmp):
    inputs = make_inputs(1, 1500, 20, 4)
    threads(1)
    expected = run(inputs)
    threads(3)
    assert_close(run(inputs), expected, 1e-12)


def test_concurrent_calls():
    all_inputs = [make_inputs(1, 700 + i, 33, 16, dtype=torch.float32) for i in range(4)]
    expected = [run(inputs) for inputs in all_inputs]
    with ThreadPoolExecutor(4) as pool:
        for results in pool.map(lambda inputs: [run(inputs) for _ in range(5)], all_inputs):
            matching = expected.pop(0)
            assert all(torch.equal(r[name], value) for r in results for name, value in matching.items())


def test_works_in_a_forked_process():
    """The parent's pool of threads does not exist in the child."""
    python(
        """
import os, signal, torch
from nnunetv2_lightm.ops import selective_scan
torch.set_num_threads(2)
u, B = torch.randn(1, 2000, 8), torch.randn(1, 2000, 16)
scan = lambda: selective_scan(u, u, -torch.ones(8, 16), B, B, delta_softplus=True, backend="cpu_native")
big = torch.randn(400000)
expected = (scan(), big.sin())[0]
child = os.fork()
if child == 0:
    signal.alarm(60)
    os._exit(0 if torch.equal(scan(), expected) else 1)
assert os.waitpid(child, 0)[1] == 0
assert torch.equal(scan(), expected)
"""
    )


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc, which only Linux has")
def test_brings_no_second_openmp_runtime_and_leaves_the_floating_point_mode_alone():
    before, after, *modes = python(
        """
import re, torch
def runtimes():
    with open("/proc/self/maps") as maps:
        return sorted({line.split()[-1] for line in maps if re.search(r"/lib(gomp|omp|iomp)[^/]*$", line)})
before = runtimes()
from nnunetv2_lightm.ops import selective_scan
from nnunetv2_lightm.ops.backends import cpu_native, native_library
assert cpu_native.not_supported_reason("cpu") is None
print(*map("|".join, (before, runtimes())))
print(1e-310 / 2 != 0, bool((torch.full((100000,), 1e-40) / 2 != 0).all()))
u, B = torch.randn(1, 2000, 33), torch.randn(1, 2000, 16)
y = selective_scan(u.requires_grad_(), u, -torch.ones(33, 16), B, B, delta_softplus=True, backend="cpu_native")
y.sum().backward()
print(1e-310 / 2 != 0, bool((torch.full((100000,), 1e-40) / 2 != 0).all()))
"""
    )
    assert before == after
    assert modes == ["True"] * 4


def test_slices_of_a_wider_tensor_are_not_copied(monkeypatch):
    u, delta, A, B, C, D, z, delta_bias = (t.detach() for t in make_inputs(2, 70, 6, 4).values())
    wide = torch.cat([B, C, u], -1)
    B, C, u = wide.split([4, 4, 6], -1)
    z = torch.cat([z, z])[::2]
    inputs = (u, delta, A, B, C, D, z, delta_bias)
    expected = selective_scan_reference(*inputs, True)[0]
    monkeypatch.setattr(torch.Tensor, "contiguous", lambda tensor: tensor if tensor.is_contiguous() else pytest.fail())
    y, _, _ = cpu_native.forward(*inputs, True, False)
    torch.testing.assert_close(y, expected, rtol=1e-12, atol=1e-12)


def test_exp2_is_within_its_stated_bound(instruction_set):
    x, result = apply("exp2", instruction_set, torch.linspace(-125.9, 127.4, 2_000_003))
    assert ulps(result, torch.exp2(x)) <= 2.5
    x, result = apply("exp2", instruction_set, torch.linspace(-1, 1, 2_000_003))
    assert ulps(result, torch.exp2(x)) <= 2.5


def test_exp2_at_the_ends(instruction_set):
    inf, nan = torch.inf, torch.nan
    other_nan = torch.tensor([0x7F800001, -1, 0x7FC12345], dtype=torch.int32).view(torch.float32)
    x = torch.cat([torch.tensor([0.0, -0.0, -10.0, 20.0, -200.0, -3e38, -inf, 128.5, 3e38, inf, nan]), other_nan])
    _, result = apply("exp2", instruction_set, x)
    assert result[:10].tolist() == [1, 1, 2**-10, 2**20, 0, 0, 0, inf, inf, inf]
    assert result[10:14].isnan().all()
    large = torch.logspace(8, 127.99, 100_000, base=2)
    assert not apply("exp2", instruction_set, -large)[1][: large.numel()].any()
    assert apply("exp2", instruction_set, large)[1][: large.numel()].eq(inf).all()


def test_softplus_and_sigmoid_keep_their_relative_precision(instruction_set):
    x, result = apply("softplus", instruction_set, torch.linspace(-80, 80, 1_000_003))
    expected = torch.log1p(torch.exp(-x.abs())) + x.clamp_min(0)
    # exp(x) of a rounded product: half an ulp of |x| log2(e), up to 2^-18 relative at |x| = 80.
    assert float((result / expected - 1).abs().max()) <= 2e-7 + 80 * 1.3e-7
    near = x.abs() < 8
    assert ulps(result[near], expected[near]) <= 12
    x, result = apply("sigmoid", instruction_set, x)
    assert float((result / torch.sigmoid(x) - 1).abs().max()) <= 2e-7 + 80 * 1.3e-7


@pytest.mark.parametrize("function", ["softplus", "sigmoid"])
def test_softplus_and_sigmoid_at_the_ends(instruction_set, function):
    _, result = apply(function, instruction_set, torch.tensor([-torch.inf, -3e38, 3e38, torch.inf, torch.nan]))
    high = [3e38, torch.inf] if function == "softplus" else [1, 1]
    assert result[:4].tolist() == pytest.approx([0, 0, *high])
    assert result[4].isnan()


@pytest.mark.parametrize("name", NAMES)
def test_nan_goes_where_it_goes_in_the_reference(instruction_set, name):
    inputs = make_inputs(1, 100, 18, 5, dtype=torch.float32)
    place = {1: (2,), 2: (2, 3), 3: (0, 70, 2)}[inputs[name].ndim]
    with torch.no_grad():
        inputs[name][place] = torch.nan
    expected = expected_of(inputs)
    assert expected["y"].isnan().any()
    for key, value in run(inputs).items():
        assert torch.equal(value.isnan(), expected[key].isnan()), key


def test_large_steps_and_fading_states(instruction_set):
    """exp(delta A) underflows to 0; a state without input fades away to 0 without a denormal trace."""
    inputs = make_inputs(1, 3000, 17, 4, dtype=torch.float32)
    with torch.no_grad():
        inputs["delta"][:, ::7] = 1e4
        inputs["u"][:, 1000:] = 0
    result = run(inputs)
    assert all(t.isfinite().all() for t in result.values())
    assert not result["last_state"].any()


FLOAT_MAX = torch.finfo(torch.float32).max


@pytest.mark.parametrize("A", [-1e20, -1e27, -1.234e30, -1e36, -3e38, -FLOAT_MAX, -torch.inf], ids=str)
def test_exponents_beyond_all_bounds(instruction_set, A):
    """exp(dt A) is 0 however large dt A is, and 1 for a step of 0; steps and gradients are what they were."""
    inputs = make_inputs(1, 131, 18, 5, dtype=torch.float32)
    with torch.no_grad():
        inputs["A"][::2, 1:4] = A
        inputs["delta"][:, ::7] = 1e10 * (1.5 + torch.rand(1, 19, 18))
        inputs["delta"][:, 5::7] = 1.0 if math.isinf(A) else -2e4  # softplus: 0
    expected, result = expected_of(inputs), run(inputs)
    if A < -1e36:
        # The steps' gradient at a step of 0 is A times one of ordinary size, or, of infinity, not defined.
        del expected["grad_delta"], expected["grad_delta_bias"]
    for name, value in expected.items():
        assert value.isfinite().all(), name
        error = (result[name] - value).abs()
        assert (error <= 1e-4 * value.abs() + 1e-6 * value.abs().max()).all(), f"{name}: off by {error.max():.2e}"


def test_a_state_without_decay_outlasts_steps_whose_sum_overflows(instruction_set, threads):
    threads(3)  # which cut the sequence
    u, delta, A, B, C, *_ = (t.detach() for t in make_inputs(1, 3000, 17, 4, dtype=torch.float32).values())
    A[3] = 0
    delta[:, 100::300, 3], u[:, 100::300] = 3e38, 0
    y, last = selective_scan(u, delta.abs(), A, B, C, return_last_state=True, backend="cpu_native")
    expected, expected_last = selective_scan_reference(u, delta.abs(), A, B, C)
    torch.testing.assert_close(y, expected, rtol=1e-4, atol=1e-4 * float(expected.abs().max()))
    torch.testing.assert_close(last, expected_last, rtol=1e-4, atol=1e-4 * float(expected_last.abs().max()))


def test_other_devices_are_left_to_others():
    assert cpu_native.not_supported_reason("cuda") == "CPU only"
