"""What a killed run leaves in folders that the next run does not have, and on file systems without locks."""

from __future__ import annotations

import errno
import os
import shutil
import signal
from pathlib import Path

import pytest

from nnunetv2_lightm.files import FolderTransaction, LockHeldError, NotOursError, Record, locks, work_folder
from nnunetv2_lightm.files import transaction as folder_transaction
from nnunetv2_lightm.signals import Interrupted, interruptions


class Killed(BaseException):
    """In the place of a signal, which cannot be sent to the test's own process."""


@pytest.fixture
def disks(tmp_path):
    """Three disks, with an old data set in the first two."""
    for name in ("raw", "one", "two"):
        (tmp_path / name).mkdir()
    for name in ("raw", "one"):
        (tmp_path / name / "D").mkdir()
        (tmp_path / name / "D" / "file").write_text("old")
        record = Record(tmp_path / name / "D")
        record.add(tmp_path / name / "D")
        record.write("a test")
    return tmp_path


def transaction(disks, *names, said=None):
    said = [] if said is None else said
    return FolderTransaction([disks / name / "D" for name in names], check=lambda: None, warn=said.append)


def kill(disks, monkeypatch, renames, *names):
    """A run that is killed after so many renames of its commit, and clears nothing up."""
    running = transaction(disks, *names)
    running.__enter__()
    for folder in running.new:
        (folder / "file").write_text("new")
    rename, left = Path.rename, renames

    def rename_or_die(self, target):
        nonlocal left
        if left == 0:
            raise Killed
        left -= 1
        return rename(self, target)

    with monkeypatch.context() as patched:
        patched.setattr(Path, "rename", rename_or_die)
        with pytest.raises(Killed):
            running.commit()
            raise Killed
    running._lock.release()


def run(disks, *names, said=None):
    with transaction(disks, *names, said=said) as made:
        for folder in made.new:
            (folder / "file").write_text("newer")
        made.commit()
    return made


def state(disks):
    return {
        name: (disks / name / "D" / "file").read_text()
        for name in ("raw", "one", "two")
        if (disks / name / "D").exists()
    }


def leftovers(disks):
    return list(disks.rglob(".nnunetv2_lightm_making*"))


@pytest.mark.parametrize("renames", range(5))
def test_the_next_run_has_another_second_folder(disks, monkeypatch, renames):
    kill(disks, monkeypatch, renames, "raw", "one")
    said = []
    made = run(disks, "raw", "two", said=said)
    assert state(disks) == {"raw": "newer", "one": "new" if renames == 4 else "old", "two": "newer"}
    assert leftovers(disks) == [] and said == []
    assert made.kept == ([disks / "raw" / "replaced_D"] if renames == 4 else []), "what no record is in is kept"


@pytest.mark.parametrize("renames", range(5))
def test_the_second_folder_is_not_there(disks, monkeypatch, renames):
    """Its disk is not mounted. That is reported, and nothing is blocked; once it is back, its folder is tidied up."""
    kill(disks, monkeypatch, renames, "raw", "one")
    (disks / "one").rename(disks / "elsewhere")
    said = []
    run(disks, "raw", "two", said=said)
    assert state(disks) == {"raw": "newer", "two": "newer"}
    assert any(str(work_folder(disks / "one" / "D")) in message and "remove" in message for message in said)
    (disks / "elsewhere").rename(disks / "one")
    made = run(disks, "raw", "one")
    assert state(disks) == dict.fromkeys(("raw", "one", "two"), "newer")
    assert leftovers(disks) == []
    texts = {path.read_text() for path in disks.rglob("replaced_D*/file")}
    assert "old" not in texts, "what was recorded as made is replaced"
    assert made.kept or renames < 3


@pytest.mark.parametrize("renames", range(4))
def test_the_first_folder_is_gone_for_good(disks, monkeypatch, renames):
    kill(disks, monkeypatch, renames, "raw", "one")
    shutil.rmtree(disks / "raw")
    run(disks, "two", "one")
    assert state(disks) == {"two": "newer", "one": "newer"}
    assert leftovers(disks) == []


def test_a_run_at_work_in_the_same_second_folder_is_left_alone(disks, monkeypatch):
    with transaction(disks, "raw", "one") as running:
        (running.new[1] / "file").write_text("new")
        monkeypatch.setattr(locks, "_lock_open_file", held)
        with pytest.raises(LockHeldError):
            transaction(disks, "two", "one").__enter__()
        monkeypatch.undo()
        (running.new[0] / "file").write_text("new")
        running.commit()
    assert state(disks) == {"raw": "new", "one": "new"}


def held(stream):
    raise OSError(errno.EAGAIN, "held")


def test_a_folder_of_others_with_such_a_name_is_not_removed(disks):
    work = work_folder(disks / "one" / "D")
    (work / "new").mkdir(parents=True)
    (work / "new" / "precious").write_text("of the user")
    with pytest.raises(NotOursError, match="move it away"):
        run(disks, "raw", "one")
    assert (work / "new" / "precious").exists() and state(disks) == {"raw": "old", "one": "old"}


@pytest.mark.parametrize("number", [errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP])
def test_without_locks_it_warns_and_goes_on(disks, monkeypatch, number):
    def refuse(stream):
        raise OSError(number, "no locks")

    kill(disks, monkeypatch, 2, "raw", "one")
    monkeypatch.setattr(locks, "_lock_open_file", refuse)
    said = []
    run(disks, "raw", "one", said=said)
    assert state(disks) == {"raw": "newer", "one": "newer"}
    assert said and all("the file system does not support locks" in message for message in said)
    assert leftovers(disks) == []


def test_a_failed_removal_of_the_old_is_a_warning(disks, monkeypatch):
    said = []
    with monkeypatch.context() as patched:
        patched.setattr(folder_transaction, "_dispose", denied)
        made = run(disks, "raw", "one", said=said)
    assert made.committed and state(disks)["raw"] == state(disks)["one"] == "newer"
    assert len(said) == 1 and f"{disks / 'raw' / 'D'} is in its place" in said[0] and "Permission denied" in said[0]
    run(disks, "raw", "one", said=said)
    assert len(said) == 1 and not list(disks.glob("*/.nnunetv2_lightm_making_*"))


def denied(*_):
    raise PermissionError(13, "Permission denied")


@pytest.mark.parametrize("moment", ["before", "exchange", "clean"])
def test_an_interruption_knows_what_is_written(disks, monkeypatch, moment):
    def interrupted(call):
        def before(*arguments):
            os.kill(os.getpid(), signal.SIGINT)
            return call(*arguments)

        return before

    if moment != "before":
        place, name = {
            "exchange": (folder_transaction._Work, "exchange"),
            "clean": (folder_transaction._Work, "clean"),
        }[moment]
        monkeypatch.setattr(place, name, interrupted(getattr(place, name)))
    with pytest.raises(Interrupted) as caught, interruptions(lambda: None), transaction(disks, "raw") as made:
        (made.new[0] / "file").write_text("newer")
        if moment == "before":
            os.kill(os.getpid(), signal.SIGINT)
        made.commit()
    written = moment != "before"
    assert getattr(caught.value, "written", None) == (disks / "raw" / "D" if written else None)
    assert state(disks)["raw"] == ("newer" if written else "old")
    assert not list(disks.glob("*/.nnunetv2_lightm_making_*"))
