"""The steps of the check on a GPU, each tried on a CPU at small sizes."""

from __future__ import annotations

import importlib.util
import math
import re

import pytest
import torch

from benchmarks.speed.harness import gpu_compile, gpu_correctness, gpu_setting, gpu_turns
from benchmarks.speed.harness.gpu_setting import Plan, Setting, SkippedStep, halving
from benchmarks.speed.harness.gpu_steps import STEPS
from benchmarks.speed.harness.models import NNUNET, OURS, RIVALS, make_own_optimizer, planned_network
from nnunetv2_lightm import LightMUNet
from nnunetv2_lightm.complexity.nnunet_network import FEATURES
from nnunetv2_lightm.trainers.recipes import LIGHTM_UNET_MUON

needs_triton = pytest.mark.skipif(importlib.util.find_spec("triton") is None, reason="Triton is not installed")
SMALL = Setting("cpu", small=True)


@pytest.fixture(autouse=True)
def little_work(monkeypatch):
    monkeypatch.setattr(gpu_turns, "TURNS", 2)
    monkeypatch.setattr(gpu_turns, "CANDIDATES", gpu_turns.CANDIDATES[:2])
    monkeypatch.setattr(gpu_turns, "WITH_AS_TRAINED", [*gpu_turns.CANDIDATES[:2], gpu_turns.WITH_AS_TRAINED[-1]])
    monkeypatch.setattr(gpu_turns, "LAYOUTS", gpu_turns.LAYOUTS[:1])


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "networks"),
    [
        ("training", ["ours", "nnunet", "ours as trained"]),
        ("inference", ["ours", "nnunet"]),
        ("other_training", ["ours", "nnunet"]),
        ("other_inference", ["ours", "nnunet"]),
        ("resenc", ["ours", "resenc"]),
    ],
)
def test_networks_take_turns(name, networks):
    given = list(STEPS[name].function(name)(SMALL))
    assert [record["network"] for record in given] == [*networks] * 3  # as each begins, and in each turn
    for record in given:
        assert "failed" not in record and record["ms"] > 0 and record["turns"] == 2, record
        assert record["fastest turn, ms"] <= record["ms"] <= record["slowest turn, ms"]
        assert "training" not in name or (math.isfinite(record["loss"]) and record["steps skipped before"] == 0)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["scans", "depthwise", "top_kernels"])
def test_other_timings_run(name, monkeypatch):
    monkeypatch.setattr(gpu_setting.Setting, "median_ms", lambda self, run: [1.0, run()][0])
    records = list(STEPS[name].function(name)(SMALL))
    assert records and not any("failed" in record for record in records)


class Scaler:
    """Whose scales come in this order."""

    def __init__(self, *scales):
        self._scales = iter(scales)

    def get_scale(self):
        return next(self._scales)


def step_with(scaler):
    step = gpu_turns.TrainingStep.__new__(gpu_turns.TrainingStep)
    step.scaler, step.setting, step._before, step.last_loss = scaler, SMALL, 0.0, torch.tensor(1.0)
    step.runs = []
    step.run = lambda: step.runs.append(1)
    return step


def test_steps_that_the_scaler_skips_are_not_timed():
    """Its scale falls where it skips one."""
    step = step_with(Scaler(64, 32, 32, 16, 16, 16, 16, 16))
    assert step._warm_up() == 2 and len(step.runs) == 4


def test_a_network_that_yields_nan_is_no_success():
    with pytest.raises(ArithmeticError, match="no finite gradients in 20 steps"):
        step_with(Scaler(*(2.0**-i for i in range(100)))).prepare()
    step = step_with(Scaler(*(64.0,) * 9))
    step.last_loss = torch.tensor(math.nan)
    with pytest.raises(ArithmeticError, match="the loss is nan, at a scale of 64"):
        step.prepare()
    (record,) = gpu_turns.in_turns([({"network": "ours"}, lambda: step_with(Scaler(*range(200, 0, -1))))], SMALL)
    assert "no finite gradients" in record["failed"] and "ms" not in record


def test_a_failure_in_a_turn_ends_that_candidates_turns():
    class Candidate:
        def __init__(self, runs):
            self.runs, self.own = runs, 0.0

        def prepare(self):
            return {}

        def run(self):
            self.runs -= 1
            if self.runs < 0:
                raise RuntimeError("out of memory")

    records = [{"network": "good"}, {"network": "bad"}]
    list(gpu_turns.in_turns([(records[0], lambda: Candidate(99)), (records[1], lambda: Candidate(4))], SMALL))
    assert records[0]["turns"] == 2 and "failed" not in records[0]
    assert "out of memory" in records[1]["failed"]


@pytest.mark.parametrize("dims", [2, 3])
def test_our_trainers_optimizer(dims):
    network = LightMUNet(1, 3, spatial_dims=dims)
    recipe, _ = LIGHTM_UNET_MUON.optimizer_for(network, 1, 1e-5, LIGHTM_UNET_MUON.weight_decay)
    for ours, theirs in zip(make_own_optimizer(network).param_groups, recipe.param_groups, strict=True):
        assert list(map(id, ours.pop("params"))) == list(map(id, theirs.pop("params")))
        assert ours.items() == {name: theirs[name] for name in ours}.items()


@pytest.mark.parametrize("which", RIVALS)
@pytest.mark.parametrize("dims", [2, 3])
def test_planned_networks_are_nnunets_own(which, dims):
    with torch.device("meta"):
        planned = planned_network(which, halving(dims, len(FEATURES[dims])), 3)
        given = RIVALS[which](dims, 1, 3)
    assert {n: t.shape for n, t in planned.state_dict().items()} == {n: t.shape for n, t in given.state_dict().items()}


def test_an_anisotropic_plan_does_not_halve_its_thin_axis_first():
    plan = gpu_setting.PLANS[2]
    ours, theirs = (gpu_turns.workload_of(plan, which) for which in (OURS, NNUNET))
    assert ours.levels == [(20, 320, 256), (20, 160, 128), (20, 80, 64), (10, 40, 32)]
    assert theirs.levels[-1] == (5, 5, 4) and theirs.kernels[0] == (1, 3, 3)
    with torch.device("meta"):
        network = planned_network(NNUNET, plan.strides, 3, plan.kernels)
    convolutions = [m for m in network.encoder.modules() if isinstance(m, torch.nn.Conv3d)]
    assert convolutions[0].kernel_size == (1, 3, 3) and convolutions[2].stride == (1, 2, 2)


@pytest.mark.slow
def test_a_long_scan_is_finite_repeatable_and_right(monkeypatch):
    monkeypatch.setattr(gpu_correctness, "RUN_IN", 3000)
    (record,) = gpu_correctness.long_scan(SMALL)
    assert record["finite"] and record["twice the same"] and "failed" not in record
    assert sum(name.startswith("error of") for name in record) == 4


@pytest.mark.slow
def test_a_long_scan_that_is_wrong_at_its_end_fails(monkeypatch):
    def wrong(inputs, length, backend=None):
        found = right(inputs, length, backend)
        if backend is None:
            found[1][:, -1] *= 1.5
        return found

    right = gpu_correctness._value_and_gradients
    monkeypatch.setattr(gpu_correctness, "_value_and_gradients", wrong)
    monkeypatch.setattr(gpu_correctness, "RUN_IN", 3000)
    (record,) = gpu_correctness.long_scan(SMALL)
    assert record["failed"] and record["error of gradient of u at the end"] > 1e-3 > record["error of y at the end"]


@pytest.mark.slow
def test_the_tests_are_found_and_their_output_is_kept(tmp_path):
    (record,) = gpu_correctness.tests(Setting("cpu", small=True, logs=tmp_path))
    log = (tmp_path / "tests.log").read_text(encoding="utf-8")
    assert "failed" not in record and re.search(r"\d\d+ (passed|skipped)", log) and log.endswith(record["output"])


def test_a_sanitizer_that_refuses_the_device_is_skipped(monkeypatch):
    monkeypatch.setattr("shutil.which", lambda name: f"/bin/{name}")
    outcome = (9, "========= COMPUTE-SANITIZER\n========= Error: Device not supported. Please refer to ...\n")
    monkeypatch.setattr(gpu_correctness, "run_command", lambda *_: outcome)
    with pytest.raises(SkippedStep, match="Device not supported"):
        list(STEPS["memcheck"].function("memcheck")(Setting("cuda", small=False)))
    monkeypatch.setattr(gpu_correctness, "run_command", lambda *_: (9, "Invalid __global__ read of size 2 bytes"))
    (record,) = STEPS["memcheck"].function("memcheck")(Setting("cuda", small=False))
    assert record["tool"] == "memcheck" and record["failed"] == "exit code 9"


@pytest.mark.slow
def test_the_sanitizers_layer_runs():
    command = [gpu_correctness.sys.executable, "-c", gpu_correctness.ODD_LAYER, "200", "cpu", "float32"]
    code, output = gpu_setting.run_command([*command, *map(str, gpu_correctness.SMALL_SIZES)], 200)
    assert code == 0 and output == "gradients finite: True\n"


@needs_triton
@pytest.mark.slow
def test_kernels_are_compiled_ahead_and_sizes_make_no_new_ones():
    """For a GPU that is not there; the extent of a map alone makes no other kernel."""
    (record,) = gpu_compile.compile_ahead(SMALL)
    assert record["done"] == "2 kernels"
    plans = [Plan((32, 48, 40), 2, halving(3, 4)), Plan((33, 56, 47), 3, halving(3, 4))]
    one, other = (set(gpu_compile.launches_of(plan)) for plan in plans)
    assert one == other and 50 < len(one) < 70
