"""The check on a GPU, tried without one: what was measured is kept, also of steps that hang and of earlier rounds."""

from __future__ import annotations

import json
import subprocess
import sys
import time

import pytest

from benchmarks.speed import gpu
from benchmarks.speed.harness import gpu_rounds, gpu_setting
from benchmarks.speed.harness.gpu_setting import Setting, attempt, command_record, run_command
from benchmarks.speed.harness.gpu_steps import STEPS, Step
from benchmarks.speed.harness.machine import ROOT

SMALL = Setting("cpu", small=True)


@pytest.mark.slow
def test_steps_end_in_files_and_tables(tmp_path, capsys):
    assert gpu.main([str(tmp_path), "--device", "cpu", "--small", "--only", "versions", "memcheck"]) == 0
    (this,) = json.loads((tmp_path / "gpu-no-GPU.json").read_text(encoding="utf-8"))["rounds"]
    assert [step["step"] for step in this["steps"]] == ["versions", "memcheck"]
    assert any(record["what"] == "copy, GB/s" and record["value"] > 0 for record in this["steps"][0]["records"])
    assert "compute-sanitizer" in this["steps"][1]["skipped"] or "not on a GPU" in this["steps"][1]["skipped"]
    assert {"torch", "triton", "nnunetv2", "driver", "commit", "card"} <= this["machine"].keys() and this["began"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["gpu-no-GPU.json", "gpu.md"]
    printed, text = capsys.readouterr().out, (tmp_path / "gpu.md").read_text(encoding="utf-8")
    assert "## versions" in text and "copy, GB/s" in text and "copy, GB/s" in printed


def test_a_round_comes_after_the_earlier_ones(tmp_path, monkeypatch):
    """Also after those of the published file, on a machine that has no other."""
    published, out = tmp_path / "results", tmp_path / "out"
    published.mkdir()
    monkeypatch.setattr(gpu_rounds, "RESULTS", published)
    monkeypatch.setattr(gpu, "_outcome", lambda name, *_: {"step": name, "records": [{"what": "x", "value": 1}]})
    for folder in (published, out, out):
        gpu.main([str(folder), "--device", "cpu", "--only", "versions", "--commit", "abc"])
    rounds = json.loads((out / "gpu-no-GPU.json").read_text(encoding="utf-8"))["rounds"]
    assert len(rounds) == 3 and all(one["steps"] and one["machine"]["commit"] == "abc" for one in rounds)
    assert "# Round 3" in (out / "gpu.md").read_text(encoding="utf-8")


def test_the_first_round_fits_into_its_time():
    """The limits of what runs one after the other, of what is not left to the end."""
    names = [name for name, step in STEPS.items() if not step.later]
    assert sum(max(STEPS[name].seconds for name in group) for group in gpu.groups(names)) <= gpu.SECONDS
    assert list(gpu.groups(list(STEPS)))[1] == ["compile_ahead", "tests", "memcheck", "predicted"]
    assert list(gpu.groups(["training", "versions"])) == [["versions"], ["training"]]


@pytest.mark.slow
def test_correctness_is_checked_without_nnunet():
    code = "import sys; sys.modules['nnunetv2'] = sys.modules['dynamic_network_architectures'] = None\n"
    code += "from benchmarks.speed.harness.gpu_steps import STEPS\nimport benchmarks.speed.gpu\n"
    code += "for name in ('versions', 'tests', 'memcheck', 'long_scan', 'compile_ahead'): STEPS[name].function(name)"
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT)
    for name, step in STEPS.items():
        assert callable(step.function(name)), name


def test_a_step_that_fails_later_keeps_what_it_has_measured(tmp_path, monkeypatch):
    def half_done(setting):
        record = {"what": "first", "value": 1}
        yield record
        record["value"] = 2
        yield record
        raise RuntimeError("CUDA error: an illegal memory access")

    monkeypatch.setattr(Step, "function", lambda self, name: half_done)
    with pytest.raises(RuntimeError):
        gpu.run_step("versions", SMALL, tmp_path)
    monkeypatch.setattr(gpu, "run_command", lambda *_, **__: (1, "Traceback ..."))
    outcome = gpu.start_step("versions", SMALL, tmp_path, 60, asked_for=False)
    assert outcome["records"] == [{"what": "first", "value": 2}] and outcome["failed"] == "exit code 1"
    assert gpu.failures(outcome) and "Traceback" in gpu.text(outcome) and "first" in gpu.text(outcome)


@pytest.mark.slow
def test_a_step_that_hangs_is_ended_with_what_it_started(tmp_path):
    """A child process that survived would slow the next measurement down. What it has said by then is kept."""
    alive, log = tmp_path / "alive", tmp_path / "log"
    child = f"import time\nwhile True: open({str(alive)!r}, 'a').write('.'); time.sleep(0.05)"
    parent = f"import subprocess, sys; print('begun'); subprocess.run([sys.executable, '-c', {child!r}])"
    assert run_command([sys.executable, "-c", parent], 10, log=log, whole_step=True) == (None, "begun\n")
    assert log.read_text(encoding="utf-8") == "begun\n"
    time.sleep(0.5)
    size = alive.stat().st_size
    time.sleep(1)
    assert alive.stat().st_size == size > 0


def test_no_step_begins_when_the_time_is_over(tmp_path):
    outcome = gpu.start_step("training", SMALL, tmp_path, 3, asked_for=False)
    assert outcome["failed"] == "no time was left for it" and gpu.failures(outcome)
    outcome = gpu.start_step("scans", SMALL, tmp_path, 60, asked_for=False)
    assert outcome["skipped"] == "no time was left for it" and not gpu.failures(outcome)


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


def test_predictions_are_next_to_what_was_measured():
    named = {"work": "a, batch 2", "network": "ours"}
    known = {"step": "predicted", "records": [named | {"training, ms": 30.0, "inference, ms": 9.0, "peak, GiB": 2.0}]}
    measured = {"step": "training", "records": [named | {"ms": 50.0, "peak, GiB": 3.0}, named | {"failed": "why"}]}
    inference = {"step": "inference", "records": [named | {"ms": 12.0, "peak, GiB": 1.0}]}
    found = gpu_rounds.with_predictions([known, measured, inference])
    assert found[0] == known and found[1]["records"][1] == measured["records"][1]
    assert found[1]["records"][0] == measured["records"][0] | {"predicted, ms": 30.0, "predicted peak, GiB": 2.0}
    assert found[2]["records"] == [inference["records"][0] | {"predicted, ms": 9.0}]


def test_goals_are_judged_against_the_rivals_best_layout():
    def record(network, ms, peak):
        return {"network": network, "ms": ms, "peak, GiB": peak}

    records = [record("ours", 60.0, 4.0), record("nnunet", 100.0, 8.0), record("nnunet", 70.0, 9.0)]
    records += [record("ours as trained", 1.0, 1.0), record("nnunet", 1.0, 1.0) | {"failed": "the loss is nan"}]
    time, peak = gpu_rounds.goals([{"step": "training", "records": records}, {"step": "scans", "records": []}])
    assert time["ratio"] == pytest.approx(60 / 70) and not time["met"]
    assert peak["ratio"] == 0.5 and peak["met"] and peak["goal"] == "≤ 1x (aim: 0.6x)"


def test_plans_are_those_of_nnunet():
    from nnunetv2.experiment_planning.experiment_planners.network_topology import get_pool_and_conv_props

    for plan, spacing in zip(gpu_setting.PLANS, ((1, 1, 1), (1, 1), (3.6, 0.62, 0.62)), strict=True):
        _, strides, kernels, patch, _ = get_pool_and_conv_props(spacing, plan.patch, 4, 999999)
        assert (plan.strides, plan.patch) == (strides, tuple(map(int, patch)))
        assert (plan.kernels or ((3,) * len(spacing),) * len(strides)) == kernels
