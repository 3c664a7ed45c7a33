"""Only what was recorded and is unchanged is removed; the rest is renamed, never lost."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from nnunetv2_lightm.files import RECORD_FILE, NotOursError, Record


@pytest.fixture
def signed(tmp_path):
    """A folder with some files and its record."""
    folder = tmp_path / "folder"
    for name in ("a", "deep/b", "deep/deeper/c"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(name)
    (folder / "link").symlink_to("nowhere")
    (folder / "to a folder").symlink_to(tmp_path)
    record = Record(folder)
    record.add(folder)
    record.write("a test")
    return folder


def names(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*"))


def test_what_is_recorded_is_removed_whole(signed, tmp_path):
    (signed / "deep" / ".DS_Store").touch()
    (signed / "empty").mkdir()
    record = Record.read(signed)
    record.check_only_ours()
    assert record.remove(signed) is None
    assert names(tmp_path) == []


def edit(folder):
    (folder / "a").write_text("edited")
    return "a"


def edit_with_the_same_size(folder):
    (folder / "deep" / "b").write_text("deep/B")
    os.utime(folder / "deep" / "b", (2e9, 2e9))
    return "deep/b"


def add(folder):
    (folder / "deep" / "mine").write_text("mine")
    return "deep/mine"


def replace_a_file_by_a_link(folder):
    (folder / "a").unlink()
    (folder / "a").symlink_to("elsewhere")
    return "a"


def point_a_link_elsewhere(folder):
    (folder / "link").unlink()
    (folder / "link").symlink_to("somewhere else")
    return "link"


@pytest.mark.parametrize(
    "change", [edit, edit_with_the_same_size, add, replace_a_file_by_a_link, point_a_link_elsewhere]
)
def test_what_is_not_stays(signed, tmp_path, change):
    name = change(signed)
    record = Record.read(signed)
    assert record.not_ours() == [signed / name]
    with pytest.raises(NotOursError, match=name):
        record.check_only_ours()
    assert record.remove(signed) == tmp_path / "kept_folder"
    kept = [path for path in (tmp_path / "kept_folder").rglob("*") if path.is_symlink() or path.is_file()]
    assert [path for path in kept if path.name != RECORD_FILE] == [tmp_path / "kept_folder" / name]


def test_a_copy_of_the_folder_is_still_known(signed, tmp_path):
    shutil.copytree(signed, tmp_path / "copy", symlinks=True)
    Record.read(tmp_path / "copy").check_only_ours()


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", '{"files": 3}', '{"files": {"a": 1}}', '{"files": {"a": [1]}}'])
def test_a_damaged_record_makes_nothing_ours(signed, text):
    (signed / RECORD_FILE).write_text(text)
    record = Record.read(signed) or Record(signed)
    assert len(record.not_ours()) == 5


def test_a_single_file_and_one_outside_of_the_folder(tmp_path):
    record = Record(tmp_path / "state")
    for name in ("ours", "edited"):
        (tmp_path / name).write_text(name)
        record.add(tmp_path / name)
    (tmp_path / "edited").write_text("by hand")
    assert record.remove(tmp_path / "ours") is None
    assert record.remove(tmp_path / "edited") == tmp_path / "kept_edited"
    assert names(tmp_path) == ["kept_edited"]
    assert record.files == {}
    assert record.remove(tmp_path / "not there") is None


def test_what_a_file_replaces_stays_until_it_is_recorded(tmp_path, monkeypatch):
    """A full disk, on which the record cannot be written, costs neither the old file nor its record."""
    file, record = tmp_path / "file", Record(tmp_path)

    def write(text):
        with record.writing(file, "a test") as partial:
            partial.write_text(text)

    write("old")
    with monkeypatch.context() as full, pytest.raises(OSError, match="full"):
        full.setattr(record, "write", lambda made_by: (_ for _ in ()).throw(OSError("the disk is full")))
        write("new")
    assert names(tmp_path) == [RECORD_FILE, "file"] and file.read_text() == "old"
    assert not Record.read(tmp_path).not_ours()
    write("new")
    assert file.read_text() == "new" and not Record.read(tmp_path).not_ours()
