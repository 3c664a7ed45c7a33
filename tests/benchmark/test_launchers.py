"""Tasks as jobs, with submitit's local executor in place of Slurm's."""

from __future__ import annotations

import os
import re
import sys
from types import SimpleNamespace

import pytest

from nnunetv2_lightm.benchmark import launchers, slurm_queue
from nnunetv2_lightm.benchmark.launchers import SlurmLauncher, parse_slurm_options
from nnunetv2_lightm.benchmark.settings import SettingsError
from nnunetv2_lightm.benchmark.tasks import Task
from nnunetv2_lightm.runs.pipeline import Step

submitit = pytest.importorskip("submitit", reason="submitit is not installed: pip install '.[cluster]'")
from submitit.slurm.slurm import SlurmInfoWatcher, SlurmJob  # noqa: E402


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


@pytest.fixture
def slurm(tmp_path, monkeypatch):
    """Slurm's commands: `accounted` is what sacct says of a job's state, `queued` what is in the queue; None: it fails.
    Jobs are numbered from 1 and do nothing."""
    slurm = SimpleNamespace(folder=tmp_path / "slurm")
    (tmp_path / "bin").mkdir()
    say = {
        "sbatch": f"echo x >> {tmp_path}/submitted; echo Submitted batch job $(wc -l < {tmp_path}/submitted)",
        **{name: f"cat {tmp_path}/{name}.out" for name in ("sacct", "squeue")},
        "srun": "",
    }
    for name, script in say.items():
        (tmp_path / "bin" / name).write_text(f"#!/bin/sh\n{script}\n")
        (tmp_path / "bin" / name).chmod(0o755)

    def answer(name, lines):
        file = tmp_path / f"{name}.out"
        file.unlink(missing_ok=True) if lines is None else file.write_text("".join(f"{line}\n" for line in lines))

    def states(accounted, queued, job=1):
        answer("sacct", accounted and ["JobID|State|NodeList", f"{job}|{accounted}|n1"])
        answer("squeue", queued)

    slurm.states = states
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setattr(launchers, "POLL_SECONDS", 0.02)
    monkeypatch.setattr(launchers, "PATIENCE_SECONDS", 0.2)
    monkeypatch.setattr(slurm_queue, "SECONDS_BETWEEN_QUESTIONS", 0.1)
    monkeypatch.setattr(SlurmJob, "watcher", SlurmInfoWatcher(delay_s=1))
    monkeypatch.setattr(SlurmJob, "_results_timeout_s", 0)
    return slurm


class StillWaiting(Exception):
    """After the moments that a test gives it."""


def launch_for(launcher, task, moments=20):
    """Poll so many times, 0.4 s in all."""

    def tick():
        nonlocal moments
        moments -= 1
        if not moments:
            raise StillWaiting

    return launcher([task], lambda *_: None, tick)


@pytest.mark.skipif(os.name != "posix", reason="Slurm's commands are shell scripts here")
@pytest.mark.parametrize(
    ("accounted", "queued"),
    [
        (None, []),  # no accounting
        ("PREEMPTED", []),
        ("RUNNING", []),  # the accounting has not heard of its end
        ("SUSPENDED", []),
        ("OUT_OF_MEMORY", None),
        ("CANCELLED by 0", ["1"]),
    ],
)
def test_a_job_that_is_gone_has_failed_and_is_submitted_again(slurm, tmp_path, accounted, queued):
    task = make_task(tmp_path, "gone")
    slurm.states(accounted, queued)
    failures = launch_for(SlurmLauncher(slurm.folder, {"time": 5}), task)
    assert list(failures) == ["gone"]
    assert re.search("no longer in Slurm's queue|has not produced any output", failures["gone"])
    slurm.states("RUNNING", ["2"], job=2)
    with pytest.raises(StillWaiting):
        launch_for(SlurmLauncher(slurm.folder, {"time": 5}), task)
    assert (slurm.folder / "gone.job").read_text() == "2\n"


@pytest.mark.skipif(os.name != "posix", reason="Slurm's commands are shell scripts here")
@pytest.mark.parametrize(
    ("accounted", "queued"),
    [
        *((state, ["7", "1"]) for state in (None, "PENDING", "RUNNING", "PREEMPTED", "SUSPENDED", "RESIZING")),
        *((state, None) for state in (None, "PREEMPTED", "SUSPENDED")),  # Slurm does not answer
    ],
)
def test_a_job_that_is_not_over_is_waited_for_and_not_submitted_again(slurm, tmp_path, accounted, queued):
    task = make_task(tmp_path, "slow")
    slurm.states(accounted, queued)
    for _ in range(2):
        with pytest.raises(StillWaiting):
            launch_for(SlurmLauncher(slurm.folder, {"time": 5}), task)
        assert (slurm.folder / "slow.job").read_text() == "1\n"


@pytest.mark.skipif(os.name != "posix", reason="Slurm's commands are shell scripts here")
@pytest.mark.parametrize("written", ["", "1\n"])
def test_a_job_that_was_gone_before_the_call_is_submitted_again_at_once(slurm, tmp_path, written):
    """Also where a kill or a full disk has left no number."""
    slurm.folder.mkdir()
    (slurm.folder / "gone.job").write_text(written)
    (tmp_path / "submitted").write_text("x\n")
    slurm.states(None, ["2"])
    with pytest.raises(StillWaiting):
        launch_for(SlurmLauncher(slurm.folder, {"time": 5}), make_task(tmp_path, "gone"))
    assert (slurm.folder / "gone.job").read_text() == "2\n"


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
