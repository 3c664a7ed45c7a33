"""All or nothing: failures, kills at every moment, two runs at once."""

from __future__ import annotations

import os
import shutil
import signal
import sys
import time
from pathlib import Path

import pytest

from nnunetv2_lightm.dataset_conversion import Dataset801_LiTS, _convert
from nnunetv2_lightm.dataset_conversion._convert import ConversionOptions
from nnunetv2_lightm.dataset_conversion._errors import ConversionError
from nnunetv2_lightm.files import Record
from nnunetv2_lightm.files.transaction import WORK_PREFIX, FolderTransaction

DATASET = "Dataset801_LiTS"

# Argument 1: after how many renames the process is killed; 2: "split" or "".
KILLED_IN_COMMIT = """
import os, pathlib, sys
from nnunetv2_lightm.files.transaction import FolderTransaction

left, rename = int(sys.argv[1]), pathlib.Path.rename

def rename_or_die(self, target):
    global left
    if left == 0:
        os._exit(9)
    left -= 1
    return rename(self, target)

targets = [pathlib.Path(os.environ[name], "Dataset801_LiTS") for name in ("nnUNet_raw", "nnUNet_preprocessed")]
with FolderTransaction(targets, check=lambda: None, warn=print) as new:
    (new.new[0] / "dataset.json").write_text("new")
    if sys.argv[2]:
        (new.new[1] / "splits_final.json").write_text("new")
    pathlib.Path.rename = rename_or_die
    new.commit()
    os._exit(9)
"""


def write_old(folders) -> None:
    for folder, name in ((folders.raw, "dataset.json"), (folders.preprocessed, "splits_final.json")):
        (folder / DATASET).mkdir(parents=True)
        (folder / DATASET / name).write_text("old")
        sign(folder / DATASET)


def sign(folder) -> None:
    """As a conversion signs what it has made."""
    record = Record(folder)
    record.add(folder)
    record.write("nnUNetv2_lightm convert")


def state(folders) -> tuple[str | None, str | None]:
    """What is in the two targets."""
    files = (folders.raw / DATASET / "dataset.json", folders.preprocessed / DATASET / "splits_final.json")
    return tuple(file.read_text() if file.exists() else None for file in files)


def leftovers(folders) -> list[str]:
    return [path for path in folders.everything() if WORK_PREFIX in path]


def transaction(folders) -> FolderTransaction:
    targets = [folders.raw / DATASET, folders.preprocessed / DATASET]
    return FolderTransaction(targets, check=lambda: None, warn=print)


def settle(folders) -> None:
    """Begin a run that fails at once: all it does is to clear up behind the killed one."""
    with pytest.raises(RuntimeError, match="give up"), transaction(folders):
        raise RuntimeError("give up")


@pytest.mark.parametrize("split", ["split", ""])
@pytest.mark.parametrize("overwrite", ["overwrite", ""])
def test_a_kill_at_any_moment_leaves_the_old_or_the_new(folders, start_python, overwrite, split):
    old = ("old", "old") if overwrite else (None, None)
    new = ("new", "new" if split else None)
    renames = (2 if overwrite else 0) + (1 if split else 0) + 1
    for left in range(renames + 1):
        if overwrite:
            write_old(folders)
        process = start_python(KILLED_IN_COMMIT, left, split)
        process.wait(30)
        assert process.returncode == 9, process.stderr.read()
        assert leftovers(folders)
        settle(folders)
        assert state(folders) == (old if left < renames else new), f"killed after {left} of {renames} renames"
        assert leftovers(folders) == []
        for folder in (folders.raw, folders.preprocessed):
            shutil.rmtree(folder / DATASET, ignore_errors=True)


@pytest.mark.parametrize("failing", [1, 2, 3, 4])
def test_a_failing_rename_brings_the_old_back(folders, monkeypatch, failing):
    write_old(folders)
    rename, calls = os.rename, []

    def fail_once(source, target, **kwargs):
        calls.append(source)
        if len(calls) == failing:
            raise OSError(28, "no space left on device")
        rename(source, target, **kwargs)

    with pytest.raises(OSError, match=f"{DATASET} in its place: no space left"), transaction(folders) as made:
        (made.new[0] / "dataset.json").write_text("new")
        (made.new[1] / "splits_final.json").write_text("new")
        monkeypatch.setattr(os, "rename", fail_once)
        made.commit()
    assert state(folders) == ("old", "old")
    assert leftovers(folders) == []


def test_a_failing_conversion_leaves_nothing(lits, folders, monkeypatch):
    lits.add(1, 2)

    def fail(content, file):
        raise OSError(28, "no space left on device", str(file))

    monkeypatch.setattr(_convert, "write_json", fail)
    assert Dataset801_LiTS.main([str(lits.folder), "--split", "none", "--workers", "1"]) == 1
    assert folders.everything() == []
    assert not folders.raw.parent.exists()


def test_a_failing_overwrite_keeps_the_old(lits, folders, monkeypatch, capsys):
    write_old(folders)
    lits.add(1, 2)
    monkeypatch.setattr(_convert, "write_json", lambda content, file: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        Dataset801_LiTS.main([str(lits.folder), "--split", "none", "--workers", "1", "--overwrite"])
    assert state(folders) == ("old", "old")
    assert leftovers(folders) == []


def test_an_existing_data_set_is_refused(lits, folders, capsys):
    lits.add(1, 2)
    arguments = [str(lits.folder), "--split", "none", "--workers", "1"]
    for folder in (folders.raw, folders.preprocessed):
        (folder / DATASET).mkdir(parents=True)
        before = folders.everything()
        for extra in ([], ["--dry-run"]):
            assert Dataset801_LiTS.main([*arguments, *extra]) == 1
            error = capsys.readouterr().err
            assert str(folder / DATASET) in error
            assert "--overwrite" in error
        assert folders.everything() == before
        (folder / DATASET).rmdir()


@pytest.mark.parametrize("where", ["raw", "preprocessed", "results"])
def test_an_id_under_another_name_is_refused_and_named(lits, folders, where):
    lits.add(1, 2)
    other = getattr(folders, where) / "Dataset801_Other"
    other.mkdir(parents=True)
    with pytest.raises(ConversionError, match="id of Dataset801_LiTS is taken: .*Dataset801_Other"):
        Dataset801_LiTS.convert_lits(lits.folder, ConversionOptions(split=None, workers=1, overwrite=True))
    assert folders.everything() == [str(other)]


def test_one_folder_for_both_is_refused(lits, folders, monkeypatch):
    monkeypatch.setenv("nnUNet_preprocessed", str(folders.raw))
    with pytest.raises(ConversionError, match="are the same folder"):
        Dataset801_LiTS.convert_lits(lits.folder)


CONVERT = """
import sys
from nnunetv2_lightm.dataset_conversion.Dataset801_LiTS import main
sys.exit(main(sys.argv[1:]))
"""


@pytest.fixture
def running(lits, folders, start_python):
    """A conversion with two workers, in the middle of its work."""
    lits.add(*range(300), ending=".nii")
    process = start_python(CONVERT, lits.folder, "--split", "none", "--workers", 2)
    images = folders.raw / (WORK_PREFIX + DATASET) / "new" / "imagesTr"
    deadline = time.monotonic() + 30
    while not (images.exists() and any(images.iterdir())):
        assert process.poll() is None, process.stderr.read()
        assert time.monotonic() < deadline
        time.sleep(0.01)
    return process


def children(pid: int) -> list[int]:
    with open(f"/proc/{pid}/task/{pid}/children") as file:
        return [int(number) for number in file.read().split()]


def alive(pid: int) -> bool:
    try:
        with open(f"/proc/{pid}/stat") as file:
            return file.read().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


@pytest.mark.skipif(sys.platform != "linux", reason="looks at processes in /proc")
def test_a_killed_run_leaves_no_half_data_set(lits, folders, running):
    workers = children(running.pid)
    assert len(workers) >= 2
    running.send_signal(signal.SIGKILL)
    running.wait()
    deadline = time.monotonic() + 20
    while any(map(alive, workers)):
        assert time.monotonic() < deadline, "workers outlive their parent"
        time.sleep(0.01)
    assert not (folders.raw / DATASET).exists()
    assert not (folders.preprocessed / DATASET).exists()
    assert leftovers(folders)
    for name in [path.name for path in lits.folder.iterdir() if not path.name.endswith(("-1.nii", "-2.nii"))]:
        (lits.folder / name).unlink()
    Dataset801_LiTS.convert_lits(lits.folder, ConversionOptions(split=None, workers=1))
    assert len(list((folders.raw / DATASET / "imagesTr").iterdir())) == 2
    assert leftovers(folders) == []


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no such signals")
@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129)])
def test_an_interrupted_run_leaves_nothing(folders, running, number, code):
    running.send_signal(number)
    output, error = running.communicate(timeout=30)
    assert running.returncode == code, error
    assert "nothing was written" in error
    assert "Traceback" not in error
    assert folders.everything() == []


@pytest.mark.skipif(sys.platform != "linux", reason="looks at processes in /proc")
def test_a_second_signal_ends_workers_that_hang(folders, running):
    workers = [pid for pid in children(running.pid) if b"spawn_main" in Path(f"/proc/{pid}/cmdline").read_bytes()]
    assert len(workers) == 2
    try:
        for worker in workers:
            os.kill(worker, signal.SIGSTOP)
        running.send_signal(signal.SIGINT)
        time.sleep(1)
        assert running.poll() is None, "it waits for them"
        running.send_signal(signal.SIGHUP)
        output, error = running.communicate(timeout=20)
        assert running.returncode == 130, error
        assert "Traceback" not in error
        assert folders.everything() == [] and not any(map(alive, workers))
    finally:
        for worker in filter(alive, workers):
            os.kill(worker, signal.SIGKILL)


@pytest.mark.skipif(sys.platform == "win32", reason="stops a process by a signal")
def test_a_second_run_at_the_same_time_is_refused(lits, folders, running):
    running.send_signal(signal.SIGSTOP)
    try:
        for name in ("LiTS", "Other"):
            with pytest.raises(ConversionError, match=f"with the id of Dataset801_{name} seems to be"):
                Dataset801_LiTS.convert_lits(lits.folder, ConversionOptions(split=None, workers=1, dataset_name=name))
    finally:
        running.send_signal(signal.SIGCONT)
    running.communicate(timeout=60)
    assert running.returncode == 0
    assert len(list((folders.raw / DATASET / "imagesTr").iterdir())) == 300
