"""However a run is ended, its commands end too: by signals, by a second signal, by `kill -9`."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

pytestmark = pytest.mark.skipif(os.name != "posix", reason="sends POSIX signals")

# A command with a child, both of which write down their numbers; stubborn ones ignore what asks them to end.
COMMAND = """
import os, signal, subprocess, sys, time
if sys.argv[2] == "stubborn":
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(120)"])
with open(sys.argv[1] + ".partial", "w") as file:
    file.write(f"{os.getpid()} {child.pid}")
os.rename(sys.argv[1] + ".partial", sys.argv[1])
time.sleep(120)
"""
RUN = f"""
import sys
from pathlib import Path
from nnunetv2_lightm.runs.pipeline import Pipeline, Step
from nnunetv2_lightm.runs.process import end_all_by_force
from nnunetv2_lightm.signals import exit_code, interruptions
folder = Path(sys.argv[1])
step = Step("a", ("python", "-c", {COMMAND!r}, str(folder / "pids"), sys.argv[2]), outputs=(folder / "out",))
try:
    with interruptions(end_all_by_force):
        pipeline = Pipeline(folder, [step], environment={{}}, version="1")
        pipeline.run(lambda *_: None, on_skip=print, on_end=print)
except KeyboardInterrupt as error:
    sys.exit(exit_code(error))
"""


def alive(pid: int) -> bool:
    status = subprocess.run(["ps", "-o", "stat=", "-p", str(pid)], capture_output=True, text=True).stdout
    return bool(status.strip()) and not status.startswith("Z")


def wait_for(condition, seconds: float) -> bool:
    deadline = time.monotonic() + seconds
    while not condition() and time.monotonic() < deadline:
        time.sleep(0.05)
    return condition()


@pytest.fixture
def start(tmp_path):
    """Starts a run; returns it and the numbers of its command and that one's child."""
    started: list[subprocess.Popen] = []
    numbers: list[int] = []

    def run(kind: str, *prefix: str) -> tuple[subprocess.Popen, list[int]]:
        command = [*prefix, sys.executable, "-c", RUN, str(tmp_path / "run"), kind]
        started.append(subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL))
        pids = tmp_path / "run" / "pids"
        assert wait_for(pids.exists, 30)
        numbers.extend(map(int, pids.read_text().split()))
        assert all(map(alive, numbers))
        return started[0], numbers

    yield run
    for process in started:
        process.kill()
        process.wait()
    for number in numbers:
        if alive(number):
            os.kill(number, signal.SIGKILL)


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129)])
def test_a_signal_ends_the_command_and_its_children(start, number, code):
    process, pids = start("obedient")
    process.send_signal(number)
    assert process.wait(8) == code
    assert not any(map(alive, pids))


@pytest.mark.parametrize("second", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_second_signal_ends_by_force_what_ignores_the_first(start, second):
    process, pids = start("stubborn")
    process.send_signal(signal.SIGINT)
    time.sleep(0.5)
    assert process.poll() is None and alive(pids[0]), "it is asked first, and has ten seconds"
    process.send_signal(second)
    assert process.wait(5) == 130
    assert not any(map(alive, pids))


def test_many_signals_skip_nothing(start):
    process, pids = start("stubborn")
    for _ in range(20):
        if process.poll() is None:
            process.send_signal(signal.SIGINT)
        time.sleep(0.01)
    # Python's own default is back while it shuts down; a signal that comes so late ends it just as well.
    assert process.wait(8) in (130, -signal.SIGINT)
    assert not any(map(alive, pids))


def test_hangup_is_ignored_where_it_was_ignored_before(start):
    process, pids = start("obedient", "nohup")
    process.send_signal(signal.SIGHUP)
    time.sleep(1)
    assert process.poll() is None and all(map(alive, pids))
    process.send_signal(signal.SIGTERM)
    assert process.wait(8) == 143


def test_kill_9_leaves_no_command_behind(start):
    process, pids = start("obedient")
    process.kill()
    process.wait()
    assert wait_for(lambda: not any(map(alive, pids)), 8)


@pytest.mark.slow
def test_kill_9_ends_stubborn_ones_too(start, tmp_path):
    process, pids = start("stubborn")
    process.kill()
    process.wait()
    assert wait_for(lambda: not any(map(alive, pids)), 15)
    assert Path(tmp_path / "run" / "state.json").exists()
