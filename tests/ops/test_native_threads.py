"""The compiled backend among threads and processes: forks in the middle of a scan, no more threads than asked for."""

from __future__ import annotations

import subprocess
import sys
import threading

import pytest
import torch

from nnunetv2_lightm.ops import selective_scan
from nnunetv2_lightm.ops.backends import cpu_native, native_library

REASON = cpu_native.not_supported_reason("cpu")
pytestmark = pytest.mark.skipif(REASON is not None, reason=f"cpu_native {REASON}")

PRELUDE = """
import os, signal, sys, threading, torch
from nnunetv2_lightm.ops import selective_scan
torch.set_num_threads(2)
signal.alarm(120)  # whoever waits for ever ends with a signal
# So small that PyTorch's own operators keep to one thread, as its OpenMP pool does not survive a fork; scans use two.
u, B = torch.randn(1, 1500, 20), torch.randn(1, 1500, 16)
A = -torch.rand(20, 16)
def step():
    x = u.clone().requires_grad_()
    y = selective_scan(x, x, A, B, B, delta_softplus=True, backend="cpu_native")
    return y.detach(), torch.autograd.grad(y.sum(), x)[0]
def same(a, b):
    return all(torch.equal(*pair) for pair in zip(a, b))
def successful(child):
    return os.waitpid(child, 0)[1] == 0
"""


def python(script):
    """Run a script in a process of its own, which has to end by itself with success."""
    command = [sys.executable, "-c", PRELUDE + script]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout.split()


def test_forked_processes_train():
    """Forward and backward, in a child and in a child's child, and in the parent as if nothing had been."""
    python(
        """
expected = step()
child = os.fork()
if child == 0:
    signal.alarm(120)
    right = same(step(), expected)
    grandchild = os.fork()
    if grandchild == 0:
        signal.alarm(120)
        os._exit(0 if same(step(), expected) else 1)
    os._exit(0 if right and successful(grandchild) else 1)
assert successful(child)
assert same(step(), expected)
"""
    )


def test_forks_while_other_threads_scan():
    """As when nnU-Net restarts its workers. The child has one thread and must find no lock held by another."""
    python(
        """
expected = step()
going, wrong = True, []
def work():
    while going:
        if not same(step(), expected):
            wrong.append(1)
threads = [threading.Thread(target=work) for _ in range(2)]
for thread in threads:
    thread.start()
for _ in range(5):
    child = os.fork()
    if child == 0:
        signal.alarm(60)
        # Not autograd, whose own threads do not live on in a child either.
        with torch.no_grad():
            y = selective_scan(u, u, A, B, B, delta_softplus=True, backend="cpu_native")
        os._exit(0 if torch.equal(y, expected[0]) else 1)
    if not successful(child):
        wrong.append(2)
going = False
for thread in threads:
    thread.join()
assert not wrong, wrong
"""
    )


@pytest.mark.skipif(sys.platform != "linux", reason="counts threads in /proc, which only Linux has")
def test_starts_no_threads_beyond_pytorchs():
    """A scan after PyTorch's own work adds none, however often (OpenMP may end some), and one with one thread none."""
    before, torchs, after = python(
        """
def threads():
    return len(os.listdir("/proc/self/task"))
torch.set_num_threads(1)
alone = threads()
with torch.no_grad():
    selective_scan(u, u, A, B, B, delta_softplus=True, backend="cpu_native")
assert threads() == alone, (threads(), alone)
torch.set_num_threads(3)
torch.randn(4_000_000).sin().sum()
torchs = threads()
for _ in range(20):
    with torch.no_grad():
        selective_scan(u, u, A, B, B, delta_softplus=True, backend="cpu_native")
print(alone, torchs, threads())
"""
    )
    assert int(torchs) == int(before) + 2, "PyTorch has threads of its own, so that there is something to share"
    assert int(after) <= int(torchs)


@pytest.fixture
def calls(monkeypatch):
    """Lets a function stand between Python and the library's scan: it gets the scan and its arguments."""

    def intercept(function):
        library = native_library.library()

        class Library:
            def __getattr__(self, name):
                return getattr(library, name)

            def nnunetv2_lightm_scan(self, *arguments):
                return function(library.nnunetv2_lightm_scan, *arguments)

        monkeypatch.setattr(native_library, "library", Library)

    return intercept


def scan(length, d_inner, d_state):
    u, B = torch.randn(1, length, d_inner), torch.randn(1, length, d_state)
    return selective_scan(u, u, -torch.ones(d_inner, d_state), B, B, delta_softplus=True, backend="cpu_native")


def test_number_of_threads_is_read_at_every_call(calls):
    """torch.set_num_threads counts at once; what OMP_NUM_THREADS says is what PyTorch starts with."""
    asked = []

    def listen(run, problem, instruction_set, threads, backward):
        asked.append(threads)
        return run(problem, instruction_set, threads, backward)

    calls(listen)
    before = torch.get_num_threads()
    try:
        for count in (1, 3, 2):
            torch.set_num_threads(count)
            scan(70, 4, 2)
    finally:
        torch.set_num_threads(before)
    assert asked == [1, 3, 2]


def test_other_python_threads_run_meanwhile(calls):
    """The interpreter's lock is released: another thread runs while this one is in the library."""
    counted, going = [0], True

    def count():
        while going:
            counted[0] += 1

    def listen(run, *arguments):
        before = counted[0]
        code = run(*arguments)
        counts.append(counted[0] - before)
        return code

    counts = []
    calls(listen)
    thread = threading.Thread(target=count)
    thread.start()
    try:
        scan(60_000, 64, 16)
    finally:
        going = False
        thread.join()
    assert counts[0] > 1000
