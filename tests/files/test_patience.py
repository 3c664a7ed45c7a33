"""Files that another program has open for a moment, which Windows neither moves nor removes."""

from __future__ import annotations

import errno
import os
import shutil
from pathlib import Path

import pytest

from nnunetv2_lightm.files import FolderTransaction, patience, set_aside, whole_file

SHARING_VIOLATION = 32


def refusal(winerror: int) -> PermissionError:
    error = PermissionError(errno.EACCES, "The process cannot access the file because it is being used")
    error.winerror = winerror
    return error


@pytest.fixture
def held(monkeypatch):
    """Each file is held by another program the first ``times`` that it is to be moved or removed."""

    class Held:
        times, winerror = 2, SHARING_VIOLATION
        refused: dict[tuple[str, str], int] = {}

    held = Held()
    held.refused = {}

    def wrapped(name, action):
        def attempt(path, *arguments, **named):
            key = name, os.fspath(path)
            count = held.refused.get(key, 0)
            if count < held.times and os.path.lexists(path):
                held.refused[key] = count + 1
                raise refusal(held.winerror)
            return action(path, *arguments, **named)

        return attempt

    for name in ("replace", "rename", "unlink", "rmdir"):
        monkeypatch.setattr(Path, name, wrapped(name, getattr(Path, name)))
    monkeypatch.setattr(shutil, "rmtree", wrapped("rmtree", shutil.rmtree))
    return held


def test_a_file_takes_its_place_when_the_other_program_lets_go(tmp_path, held):
    path = tmp_path / "report.json"
    path.write_text("old")
    with whole_file(path) as partial:
        partial.write_text("new")
    assert path.read_text() == "new" and sorted(os.listdir(tmp_path)) == ["report.json"]
    assert sum(held.refused.values()) >= 2


def test_folders_are_exchanged_when_the_other_program_lets_go(tmp_path, held):
    target = tmp_path / "Dataset801_LiTS"
    target.mkdir()
    (target / "old.txt").write_text("of the user")
    with FolderTransaction([target], check=lambda: None, warn=pytest.fail) as transaction:
        (transaction.new[0] / "new.txt").write_text("new")
        transaction.commit()
    assert [path.name for path in target.iterdir()] == ["new.txt"]
    (kept,) = transaction.kept
    assert (kept / "old.txt").read_text() == "of the user"
    assert sorted(os.listdir(tmp_path)) == sorted([target.name, kept.name])


def test_what_is_held_for_good_is_said_and_loses_nothing(tmp_path, held, monkeypatch):
    held.times = 10**9
    monkeypatch.setattr(patience, "PATIENCE_SECONDS", 0.1)
    path = tmp_path / "report.json"
    path.write_text("old")
    with pytest.raises(PermissionError, match="being used"):
        set_aside(path)
    assert path.read_text() == "old" and held.refused["rename", str(path)] > 2


@pytest.mark.parametrize("winerror", [None, 2, 112])
def test_other_errors_are_raised_at_once(tmp_path, held, winerror):
    held.times, held.winerror = 1, winerror
    path = tmp_path / "report.json"
    path.write_text("old")
    with pytest.raises(PermissionError):
        set_aside(path)
    assert held.refused == {("rename", str(path)): 1}
