"""One process at a time, also where the file system does not support locks."""

from __future__ import annotations

import errno
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from nnunetv2_lightm.files import FileLock, LockHeldError, locks

HOLD = """
import sys
from pathlib import Path
from nnunetv2_lightm.files import FileLock
lock = FileLock(Path(sys.argv[1]), inherited=sys.argv[2] == "True")
lock.acquire(print)
print("held", flush=True)
sys.stdin.readline()
"""
both = pytest.mark.parametrize("inherited", [False, True])


@pytest.fixture
def holder():
    """Start a process that holds a lock."""
    started = []

    def start(path: Path, inherited: bool) -> subprocess.Popen:
        command = [sys.executable, "-c", HOLD, str(path), str(inherited)]
        process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        started.append(process)
        assert process.stdout.readline() == "held\n"
        return process

    yield start
    for process in started:
        process.kill()
        process.communicate()


@both
def test_another_process_is_named(tmp_path, holder, inherited):
    path = tmp_path / "lock"
    process = holder(path, inherited)
    with pytest.raises(LockHeldError, match=f"process {process.pid} on {socket.gethostname()} since 20"):
        FileLock(path, inherited=inherited).acquire(pytest.fail)
    process.kill()
    process.wait()
    lock = FileLock(path, inherited=inherited)
    lock.acquire(pytest.fail)
    assert path.read_text().startswith(f"process {os.getpid()} on")
    lock.release()
    assert path.read_text() == ""
    lock.release()


def test_the_name_can_be_that_of_a_command(tmp_path):
    lock = FileLock(tmp_path / "lock", inherited=True)
    lock.acquire(pytest.fail)
    lock.name_holder("process 4711")
    assert (tmp_path / "lock").read_text().startswith("process 4711 on ")
    lock.remove()
    assert list(tmp_path.iterdir()) == []


def test_a_lock_that_its_last_holder_removes_meanwhile_is_taken_anew(tmp_path, monkeypatch):
    path = tmp_path / "lock"
    lock_file, calls = locks._lock_open_file, []

    def removed_before(stream):
        calls.append(stream)
        if len(calls) == 1:
            path.unlink()
        lock_file(stream)

    monkeypatch.setattr(locks, "_lock_open_file", removed_before)
    FileLock(path, inherited=True).acquire(pytest.fail)
    assert len(calls) == 2 and path.read_text()


@pytest.fixture(params=[errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP, errno.EINVAL], ids=errno.errorcode.get)
def without_locks(request, monkeypatch):
    def refuse(stream):
        raise OSError(request.param, os.strerror(request.param))

    monkeypatch.setattr(locks, "_lock_open_file", refuse)
    monkeypatch.setattr(locks, "_lock_for_process", refuse)


@both
@pytest.mark.parametrize("before", ["", "process 4711 on another-host since 2020-01-01 00:00:00\n", "nonsense"])
def test_a_file_system_without_locks_is_worked_on(tmp_path, without_locks, inherited, before):
    (tmp_path / "lock").write_text(before)
    said = []
    lock = FileLock(tmp_path / "lock", inherited=inherited)
    lock.acquire(said.append)
    assert len(said) == 1 and "the file system does not support locks" in said[0]
    lock.release()
    lock.acquire(said.append)


@both
@pytest.mark.skipif(os.name == "nt", reason="there all file systems know locks")
def test_there_a_living_holder_is_known_by_its_name(tmp_path, holder, without_locks, inherited):
    path = tmp_path / "lock"
    process = holder(path, inherited)
    with pytest.raises(LockHeldError, match=f"process {process.pid} .* remove {path}"):
        FileLock(path, inherited=inherited).acquire(pytest.fail)
    process.kill()
    process.wait()
    FileLock(path, inherited=inherited).acquire(lambda message: None)


@both
@pytest.mark.parametrize("number", [errno.EIO, errno.EROFS])
def test_other_errors_are_not_hidden(tmp_path, monkeypatch, inherited, number):
    def fail(stream):
        raise OSError(number, "broken")

    for name in ("_lock_open_file", "_lock_for_process"):
        monkeypatch.setattr(locks, name, fail)
    with pytest.raises(OSError, match="broken"):
        FileLock(tmp_path / "lock", inherited=inherited).acquire(print)


# The branch for Windows, with the system's locks of bytes in the place of Windows' own.
WINDOWS = """
import fcntl, importlib, os, pathlib, sys, types
from nnunetv2_lightm.files import locks

def locking(descriptor, mode, count):
    assert os.lseek(descriptor, 0, os.SEEK_CUR) > 1000, "nobody could read the name"
    fcntl.lockf(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB, count, 0, os.SEEK_CUR)

sys.modules["msvcrt"] = types.SimpleNamespace(locking=locking, LK_NBLCK=2)
path = pathlib.Path(sys.argv[1])
os.name = "nt"
importlib.reload(locks)
unlink = pathlib.Path.unlink

def unlink_unless_open(self, missing_ok=False):
    if any(os.path.realpath(f"/proc/self/fd/{number}") == str(self) for number in os.listdir("/proc/self/fd")):
        raise PermissionError(13, "is being used by another process")
    unlink(self, missing_ok)

pathlib.Path.unlink = unlink_unless_open
lock = locks.FileLock(path, inherited=sys.argv[2] == "True")
try:
    lock.acquire(print)
except locks.LockHeldError as error:
    sys.exit(error.holder)
print("held", flush=True)
sys.stdin.readline()
if sys.argv[3] == "taken":
    other = path.open("a+")
lock.remove()
"""


@pytest.mark.skipif(sys.platform != "linux", reason="asks Linux which files are open")
@both
@pytest.mark.parametrize("meanwhile", ["free", "taken"])
def test_on_windows_a_lock_is_held_named_and_removed(tmp_path, inherited, meanwhile):
    path = tmp_path / "lock"
    command = [sys.executable, "-c", WINDOWS, str(path), str(inherited), meanwhile]
    first = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert first.stdout.readline() == "held\n"
    second = subprocess.run(command, capture_output=True, text=True, stdin=subprocess.DEVNULL, check=False)
    assert f"process {first.pid} on {socket.gethostname()}" in second.stderr
    assert first.communicate("\n")[0] == "" and first.returncode == 0
    assert path.exists() is (meanwhile == "taken")
