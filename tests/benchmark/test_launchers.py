"""Tasks as jobs, with submitit's local executor in place of Slurm's."""

from __future__ import annotations

import sys

import pytest

from nnunetv2_lightm.benchmark import launchers
from nnunetv2_lightm.benchmark.launchers import SlurmLauncher, parse_slurm_options
from nnunetv2_lightm.benchmark.settings import SettingsError
from nnunetv2_lightm.benchmark.tasks import Task
from nnunetv2_lightm.runs.pipeline import Step

submitit = pytest.importorskip("submitit", reason="submitit is not installed: pip install '.[cluster]'")


@pytest.fixture
def launcher(tmp_path, monkeypatch):
    monkeypatch.setattr(launchers, "CLUSTER", "local")
    monkeypatch.setattr(launchers, "POLL_SECONDS", 0.1)
    return SlurmLauncher(tmp_path / "slurm", {"time": 5, "partition": "gpu"})


def make_task(root, name, code="pass"):
    output = root / f"{name}.out"
    script = f"print('at work'); {code}; open({str(output)!r}, 'a').write('x')"
    step = Step(f"{name} step", ("python", "-c", script), outputs=(output,))
    return Task(name, root / "state" / name, root / "logs" / f"{name}.log", (step,))


def launch(launcher, tasks):
    changes = []
    failures = launcher(tasks, lambda task, complete, failure: changes.append((task.name, complete)), lambda: None)
    return failures, sorted(changes)


@pytest.mark.slow
def test_each_task_is_a_job(launcher, tmp_path, capsys):
    flag = tmp_path / "flag"
    wrong = f"import os, sys; os.path.exists({str(flag)!r}) or sys.exit('the reason')"
    tasks = [make_task(tmp_path, "good"), make_task(tmp_path, "bad", wrong)]
    failures, changes = launch(launcher, tasks)
    assert list(failures) == ["bad"] and "the reason" in failures["bad"]
    assert changes == [("bad", False), ("good", True)]
    assert "[2/2]" in capsys.readouterr().out
    assert (tmp_path / "logs" / "good.log").read_text() == "at work\n"

    flag.touch()
    failures, changes = launch(launcher, tasks)
    assert failures == {} and changes == [("bad", True), ("good", True)]
    assert (tmp_path / "good.out").read_text() == "x", "a complete task is not submitted again"


@pytest.mark.slow
def test_job_at_work_is_not_submitted_again(launcher, tmp_path, monkeypatch, capsys):
    task = make_task(tmp_path, "slow", "import time; time.sleep(3)")
    job = launcher._job(task)
    # This machine's jobs, unlike Slurm's, are known by their process alone.
    monkeypatch.setattr(launcher.executor._executor, "job_class", lambda folder, job_id: job)
    failures, changes = launch(launcher, [task])
    assert failures == {} and changes == [("slow", True)]
    assert f"slow: job {job.job_id}, submitted before" in capsys.readouterr().out
    assert (tmp_path / "slow.out").read_text() == "x"


def test_job_whose_time_is_up_is_queued_again(tmp_path):
    task = make_task(tmp_path, "any")
    again = launchers.RunTask().checkpoint(task)
    assert isinstance(again.function, launchers.RunTask) and again.args == (task,)


def test_options():
    assert parse_slurm_options(["partition=gpu", "time=240"]) == {"partition": "gpu", "time": 240}
    for word in ("time", "=5", "time="):
        with pytest.raises(SettingsError, match="expected KEY=VALUE"):
            parse_slurm_options([word])


def test_what_does_not_go_is_said(tmp_path, monkeypatch):
    with pytest.raises(SettingsError, match="time=MINUTES"):
        SlurmLauncher(tmp_path, {})
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(SettingsError, match="srun"):
        SlurmLauncher(tmp_path, {"time": 5})
    monkeypatch.setattr(launchers, "CLUSTER", "local")
    with pytest.raises(SettingsError, match="Unknown argument 'colour'"):
        SlurmLauncher(tmp_path, {"time": 5, "colour": "red"})
    monkeypatch.setitem(sys.modules, "submitit", None)
    with pytest.raises(ImportError, match=r'--launcher slurm needs submitit.*pip install "submitit'):
        SlurmLauncher(tmp_path, {"time": 5})
