"""The check on a GPU, tried without one: what was measured is kept, also of steps that hang; failures are failures."""

from __future__ import annotations

import json
import sys
import time

import pytest

from benchmarks.speed import gpu
from benchmarks.speed.harness import gpu_correctness, gpu_setting, gpu_timings
from benchmarks.speed.harness.gpu_setting import Setting, attempt, command_record, run_command
from benchmarks.speed.harness.gpu_steps import STEPS

pytestmark = pytest.mark.slow
SMALL = Setting("cpu", small=True)


def test_steps_end_in_files_and_tables(tmp_path, capsys):
    assert gpu.main([str(tmp_path), "--device", "cpu", "--small", "--only", "versions", "sanitizer"]) == 0
    found = json.loads((tmp_path / "gpu-no-GPU.json").read_text(encoding="utf-8"))["steps"]
    assert [step["step"] for step in found] == ["versions", "sanitizer"]
    assert any(record["what"] == "copy, GB/s" and record["value"] > 0 for record in found[0]["records"])
    assert "compute-sanitizer" in found[1]["skipped"] or "not on a GPU" in found[1]["skipped"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["gpu-no-GPU.json", "gpu.md"]
    printed, text = capsys.readouterr().out, (tmp_path / "gpu.md").read_text(encoding="utf-8")
    assert "## versions" in text and "copy, GB/s" in text and "copy, GB/s" in printed


def test_a_step_that_fails_later_keeps_what_it_has_measured(tmp_path, monkeypatch):
    def half_done(setting):
        yield {"what": "first", "value": 1}
        raise RuntimeError("CUDA error: an illegal memory access")

    monkeypatch.setitem(STEPS, "versions", (half_done, 40))
    with pytest.raises(RuntimeError):
        gpu.run_step("versions", SMALL, tmp_path)
    monkeypatch.setattr(gpu, "run_command", lambda *_, **__: (1, "Traceback ..."))
    outcome = gpu.start_step("versions", [], tmp_path, seconds=60)
    assert outcome["records"] == [{"what": "first", "value": 1}] and outcome["failed"] == "exit code 1"
    assert gpu.failures(outcome) and "Traceback" in gpu.text(outcome) and "first" in gpu.text(outcome)


def test_a_step_that_hangs_is_ended_with_what_it_started(tmp_path):
    """A child process that survived would slow the next measurement down."""
    alive = tmp_path / "alive"
    child = f"import time\nwhile True: open({str(alive)!r}, 'a').write('.'); time.sleep(0.05)"
    parent = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {child!r}])"
    assert run_command([sys.executable, "-c", parent], 5, whole_step=True)[0] is None
    time.sleep(0.5)
    size = alive.stat().st_size
    time.sleep(1)
    assert alive.stat().st_size == size > 0


def test_no_step_begins_when_the_time_is_over(tmp_path):
    outcome = gpu.start_step("training", [], tmp_path, seconds=3)
    assert outcome["failed"] == "no time was left for it" and gpu.failures(outcome)


def test_a_candidate_that_fails_costs_no_other_but_a_broken_gpu_does():
    def fail(message):
        raise RuntimeError(message)

    assert attempt({"network": "ours"}, lambda: {"ms": 1}) == {"network": "ours", "ms": 1}
    record = attempt({"network": "ours"}, lambda: fail("out of resource: shared memory"))
    assert record == {"network": "ours", "failed": "RuntimeError: out of resource: shared memory"}
    with pytest.raises(RuntimeError):
        attempt({}, lambda: fail("CUDA error: an illegal memory access was encountered"))


def test_commands_that_fail_are_failures():
    assert command_record((0, "fine"), 5) == {"output": "fine"}
    assert command_record((1, "1 failed"), 5)["failed"] == "exit code 1"
    assert command_record((None, ""), 5)["failed"] == "not done after 5 s"


def test_layers_are_compiled_in_processes_of_their_own(monkeypatch):
    """Of the whole network, those first that take longest."""
    (record,) = gpu_correctness.compile_kernels(SMALL)
    assert "failed" not in record and record["dims"] == 3
    layers = gpu_correctness._layers(Setting("cuda", small=False))
    assert layers[0][0] == 256 and {dims for *_, dims in layers} == {2, 3} and len(layers) == len(set(layers)) > 6
    monkeypatch.setattr(gpu_correctness, "ONE_LAYER", "raise SystemExit('no such layer')")
    assert "no such layer" in next(gpu_correctness.compile_kernels(SMALL))["output"]


def test_a_long_scan_is_finite_repeatable_and_right():
    (record,) = gpu_correctness.long_scan(SMALL)
    assert record["finite"] and record["twice the same"] and "failed" not in record


def test_training_steps_of_both_networks(monkeypatch):
    monkeypatch.setattr(gpu_timings, "LAYOUTS", gpu_timings.LAYOUTS[:1])
    records = list(gpu_timings.training(SMALL))
    assert [record["network"] for record in records] == ["ours", "nnunet"]
    assert all(record["ms"] > 0 and record["steps skipped before"] == 0 for record in records)


def test_steps_that_the_scaler_skips_are_not_timed(monkeypatch):
    """Its scale falls where it skips one."""
    step = gpu_timings.TrainingStep.__new__(gpu_timings.TrainingStep)
    scales = iter([64, 32, 32, 16, 16, 16, 16, 16])
    step.scaler = type("Scaler", (), {"get_scale": lambda self: next(scales)})()
    runs = []
    step.run = lambda: runs.append(1)
    assert step._warm_up() == 2 and len(runs) == 4


@pytest.mark.parametrize("name", ["scans", "depthwise", "inference", "top_kernels"])
def test_other_timings_run(name, monkeypatch):
    monkeypatch.setattr(gpu_timings, "LAYOUTS", gpu_timings.LAYOUTS[:1])
    monkeypatch.setattr(gpu_setting.Setting, "median_ms", lambda self, run: [1.0, run()][0])
    records = list(STEPS[name][0](SMALL))
    assert records and not any("failed" in record for record in records)
