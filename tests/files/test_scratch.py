"""A temporary folder is removed whenever the process that made it was killed, and nothing else is."""

from __future__ import annotations

import contextlib
import os

import pytest

from nnunetv2_lightm.files import NotOursError, partial_path, scratch_folder
from nnunetv2_lightm.files.scratch import SIGNATURE_FILE


def fill(folder):
    for trainer in "AB":
        (folder / trainer / "fold_0").mkdir(parents=True)
        for name in ("checkpoint_final.pth", "progress.png"):
            (folder / trainer / "fold_0" / name).touch()
    (folder / "notes").touch()
    (folder / "link").symlink_to(folder)


def test_it_is_there_for_the_work_and_gone_after_it(tmp_path):
    with pytest.raises(KeyError), scratch_folder(tmp_path / "new" / "scratch") as folder:
        fill(folder)
        raise KeyError
    assert not folder.exists()


def signature_first(scandir):
    """The worst order to remove things in; no system promises one."""

    @contextlib.contextmanager
    def scan(path):
        with scandir(path) as entries:
            yield iter(sorted(entries, key=lambda entry: entry.name != SIGNATURE_FILE))

    return scan


@pytest.mark.parametrize("removed", range(12))
def test_a_kill_while_it_is_removed_leaves_a_folder_that_is_known(tmp_path, monkeypatch, removed):
    left = removed

    def until_killed(function):
        def remove(*arguments, **options):
            nonlocal left
            if not left:
                raise KeyboardInterrupt
            left -= 1
            return function(*arguments, **options)

        return remove

    with monkeypatch.context() as killed, pytest.raises(KeyboardInterrupt), scratch_folder(tmp_path / "scratch") as one:
        fill(one)
        for name in ("unlink", "rmdir", "remove"):
            killed.setattr(os, name, until_killed(getattr(os, name)))
        killed.setattr(os, "scandir", signature_first(os.scandir))
    with scratch_folder(one) as another:
        assert [path.name for path in another.iterdir()] == [SIGNATURE_FILE]
    assert not one.exists()


def test_a_kill_before_it_is_signed_does_no_harm(tmp_path):
    folder = tmp_path / "scratch"
    folder.mkdir()
    partial_path(folder / SIGNATURE_FILE).touch()
    with scratch_folder(folder):
        pass
    assert not folder.exists()


def test_a_folder_of_the_users_stays(tmp_path):
    (tmp_path / "mine").touch()
    with pytest.raises(NotOursError, match="was not made here"), scratch_folder(tmp_path):
        pass
    assert (tmp_path / "mine").exists()
