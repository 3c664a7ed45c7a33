"""Steps that run once, continue after an interruption, and leave no process behind."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time

import pytest

from nnunetv2_lightm.runs import process
from nnunetv2_lightm.runs.pipeline import STATE_FILE, Pipeline, PipelineError, Step
from nnunetv2_lightm.runs.process import CommandFailed, resolve_command, run_logged


@pytest.fixture(autouse=True)
def fast_polling(monkeypatch):
    monkeypatch.setattr(process, "POLL_SECONDS", 0.02)


def writing(name, output, code="", **options):
    """A step that appends its name to `trace.txt` next to its output, and writes the output."""
    script = (
        f"import pathlib, sys; out = pathlib.Path({str(output)!r}); "
        f"trace = out.with_name('trace.txt').open('a'); trace.write(' '.join([{name!r}, *sys.argv[1:]]) + '\\n'); "
        f"trace.close(); {code or 'pass'}; out.write_text('done')"
    )
    return Step(name, ("python", "-c", script), outputs=(output,), **options)


class Run:
    """Runs a pipeline in `folder` and notes what was skipped and what ended."""

    def __init__(self, folder, steps, version="1"):
        self.skipped, self.ended, self.text = [], [], ""
        self.pipeline = Pipeline(folder, steps, environment={}, version=version)

    def __call__(self):
        def on_tick(step, text, seconds):
            self.text += text

        self.pipeline.run(
            on_tick,
            on_skip=lambda step: self.skipped.append(step.name),
            on_end=lambda step, seconds: self.ended.append(step.name),
        )
        return self


def trace(folder):
    return (folder / "trace.txt").read_text().split("\n")[:-1]


def test_steps_run_in_order_and_once(tmp_path):
    folder = tmp_path / "demo"
    steps = [writing(name, folder / f"{name}.out", f"print('hello from {name}')") for name in "abc"]
    assert Run(folder, steps)().ended == ["a", "b", "c"]
    again = Run(folder, steps)()
    assert (again.ended, again.skipped) == ([], ["a", "b", "c"])
    assert trace(folder) == ["a", "b", "c"]
    assert "hello from b" in (folder / "logs" / "b.log").read_text()
    assert again.pipeline.seconds(steps[1]) > 0


def test_changed_step_runs_again_with_those_after_it(tmp_path):
    folder = tmp_path / "demo"
    steps = [writing(name, folder / f"{name}.out") for name in "abc"]
    Run(folder, steps)()
    steps[1] = writing("b", folder / "b.out", "print(1)")
    again = Run(folder, steps)()
    assert (again.skipped, again.ended) == (["a"], ["b", "c"])
    assert Run(folder, steps, version="2")().ended == ["a", "b", "c"]


def test_step_runs_again_when_its_output_is_gone(tmp_path):
    folder = tmp_path / "demo"
    steps = [writing(name, folder / f"{name}.out") for name in "ab"]
    Run(folder, steps)()
    (folder / "b.out").unlink()
    assert Run(folder, steps)().ended == ["b"]


def test_failed_step_shows_its_log_and_goes_on_later(tmp_path):
    folder = tmp_path / "demo"
    flag = tmp_path / "flag"
    code = f"print('the reason'); flag = pathlib.Path({str(flag)!r}); sys.exit(0 if flag.exists() else 3)"
    # A continued step ends before it writes its output, which the first attempt left.
    steps = [
        writing("a", folder / "a.out"),
        writing("b", folder / "b.out", f"out.write_text('half'); {code}", continuation=lambda: ["--c"]),
    ]
    run = Run(folder, steps)
    with pytest.raises(CommandFailed, match=r"exit code 3[\s\S]*the reason[\s\S]*b\.log"):
        run()
    spent = run.pipeline.seconds(steps[1])
    assert spent > 0
    flag.touch()
    again = Run(folder, steps)()
    assert (again.skipped, again.ended) == (["a"], ["b"])
    assert trace(folder) == ["a", "b", "b --c"]
    assert again.pipeline.seconds(steps[1]) > spent
    assert (folder / "logs" / "b.log").read_text().count("the reason") == 2


def test_step_that_cannot_go_on_starts_without_leftovers(tmp_path):
    folder = tmp_path / "demo"
    leftover = folder / "leftover"
    code = f"p = pathlib.Path({str(leftover)!r}); print(p.exists()); p.mkdir(); (p / 'x').touch(); sys.exit(1)"
    steps = [writing("a", folder / "a.out", code, leftovers=(leftover,))]
    for _ in range(2):
        with pytest.raises(CommandFailed, match="False"):
            Run(folder, steps)()
    assert trace(folder) == ["a", "a"]


def test_continuation_is_not_used_for_another_command(tmp_path):
    folder = tmp_path / "demo"
    steps = [writing("a", folder / "a.out", "sys.exit(1)", continuation=lambda: ["--c"])]
    with pytest.raises(CommandFailed):
        Run(folder, steps)()
    Run(folder, [writing("a", folder / "a.out", continuation=lambda: ["--c"])])()
    assert trace(folder) == ["a", "a"]


def test_time_counts_when_another_version_continues(tmp_path):
    """As a training does after an upgrade: it is found by its checkpoint, whatever began it."""
    folder, state = tmp_path / "demo", tmp_path / "ended"
    code = f"import time; time.sleep(0.3); flag = pathlib.Path({str(state)!r}); flag.exists() or sys.exit(1)"
    options = {"continuation": lambda: ["--c"], "found": (folder / "a.out").exists}
    steps = [writing("a", folder / "a.out", code, **options)]
    with pytest.raises(CommandFailed):
        Run(folder, steps, version="1")()
    state.touch()
    again = Run(folder, steps, version="2")()
    assert trace(folder) == ["a --c", "a --c"]
    assert again.pipeline.seconds(steps[0]) > 0.6


def test_step_without_its_output_is_an_error(tmp_path):
    step = Step("a", ("python", "-c", "pass"), outputs=(tmp_path / "nothing",))
    with pytest.raises(CommandFailed, match="nothing"):
        Run(tmp_path / "demo", [step])()


def test_folder_of_others_is_refused(tmp_path):
    (tmp_path / "thesis.tex").touch()
    with pytest.raises(PipelineError, match="empty folder"):
        Run(tmp_path, [])
    with pytest.raises(PipelineError, match="empty folder"):
        Run(tmp_path / "thesis.tex", [])
    (tmp_path / STATE_FILE).write_text("{")
    with pytest.raises(PipelineError, match="damaged"):
        Run(tmp_path, [])


@pytest.mark.skipif(os.name != "posix", reason="the lock is POSIX only")
def test_second_run_in_the_same_folder_is_refused(tmp_path):
    folder = tmp_path / "demo"
    inner = (
        "from pathlib import Path; from nnunetv2_lightm.runs.pipeline import Pipeline; "
        f"p = Pipeline(Path({str(folder)!r}), [], environment={{}}, version='1'); "
        "p.run(lambda *a: None, on_skip=print, on_end=print)"
    )
    with pytest.raises(CommandFailed, match="another run is working"):
        Run(folder, [Step("a", ("python", "-c", inner), outputs=())])()


def test_interruption_ends_the_command_and_its_children(tmp_path):
    code = (
        "import subprocess, sys, time; "
        "child = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(60)']); "
        "print(child.pid, flush=True); time.sleep(60)"
    )
    text = ""

    def interrupt(new):
        nonlocal text
        text += new
        if "\n" in text:
            raise KeyboardInterrupt

    started = []
    with pytest.raises(KeyboardInterrupt):
        run_logged(
            [sys.executable, "-c", code],
            tmp_path / "log",
            environment=dict(os.environ),
            on_tick=interrupt,
            on_start=started.append,
        )
    for pid in (*started, int(text)):
        deadline = time.monotonic() + 5
        while is_running(pid) and time.monotonic() < deadline:
            time.sleep(0.05)
        assert not is_running(pid)


def is_running(pid):
    # A zombie that nobody has waited for yet does not run.
    status = subprocess.run(["ps", "-o", "stat=", "-p", str(pid)], capture_output=True, text=True).stdout
    return bool(status.strip()) and not status.startswith("Z")


def test_state_says_what_is_complete_while_a_step_fails(tmp_path):
    folder = tmp_path / "demo"
    steps = [writing("a", folder / "a.out"), writing("b", folder / "b.out", "sys.exit(1)")]
    with pytest.raises(CommandFailed):
        Run(folder, steps)()
    state = json.loads((folder / STATE_FILE).read_text())["steps"]
    assert {name: entry["complete"] for name, entry in state.items()} == {"a": True, "b": False}


def test_commands_are_those_of_this_environment(monkeypatch, tmp_path):
    assert resolve_command(["python", "-V"]) == [sys.executable, "-V"]
    monkeypatch.setenv("PATH", "")
    program, option = resolve_command(["pytest", "--version"])
    assert option == "--version"
    assert "pytest" in subprocess.run([program, option], capture_output=True, text=True, check=True).stdout


def test_command_without_script_is_started_from_its_entry_point(monkeypatch, tmp_path):
    interpreter = sys.executable
    monkeypatch.setattr(sys, "executable", str(tmp_path / "python"))
    monkeypatch.setattr(process.sysconfig, "get_path", lambda name: str(tmp_path))
    _, *arguments = resolve_command(["pytest", "--version"])
    result = subprocess.run([interpreter, *arguments], capture_output=True, text=True, check=True)
    assert "pytest" in result.stdout
    with pytest.raises(FileNotFoundError, match="nnUNetv9_train"):
        resolve_command(["nnUNetv9_train"])
