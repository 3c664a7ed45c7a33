"""The check on a GPU, tried without one: steps end in files, also those that hang, and what cannot run says why."""

from __future__ import annotations

import json

import pytest

from benchmarks.speed import gpu
from benchmarks.speed.harness import gpu_steps
from benchmarks.speed.harness.gpu_steps import STEPS, Setting

pytestmark = pytest.mark.slow
SMALL = Setting("cpu", small=True)


def test_steps_end_in_files_and_tables(tmp_path):
    assert gpu.main([str(tmp_path), "--device", "cpu", "--small", "--only", "versions", "sanitizer"]) == 0
    found = json.loads((tmp_path / "gpu-no-GPU.json").read_text(encoding="utf-8"))["steps"]
    assert [step["step"] for step in found] == ["versions", "sanitizer"]
    assert any(record["what"] == "copy, GB/s" and record["value"] > 0 for record in found[0]["records"])
    assert "compute-sanitizer" in found[1]["skipped"] or "not on a GPU" in found[1]["skipped"]
    assert "## versions" in (tmp_path / "gpu.md").read_text(encoding="utf-8")


def test_a_step_that_hangs_is_ended_and_told(tmp_path, monkeypatch):
    monkeypatch.setitem(STEPS, "versions", (STEPS["versions"][0], 0))
    assert not gpu.start_step("versions", [], tmp_path)
    assert "not done after" in json.loads((tmp_path / "versions.json").read_text(encoding="utf-8"))["failed"]


def test_a_long_scan_is_finite_repeatable_and_right():
    (record,) = gpu_steps.long_scan(SMALL)
    assert record["finite"] and record["twice the same"] and record["error at the start"] < 1e-4


def test_training_steps_of_both_networks(monkeypatch):
    monkeypatch.setattr(gpu_steps, "LAYOUTS", gpu_steps.LAYOUTS[:1])
    records = gpu_steps.training(SMALL)
    assert [record["network"] for record in records] == ["ours", "nnunet"]
    assert all(record["ms"] > 0 for record in records)
