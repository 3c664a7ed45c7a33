"""Sources out of reach of targets, outputs that may be replaced, and what is in the way renamed."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from nnunetv2_lightm.files import NotOursError, check_free, check_output, guard, keep_apart, set_aside


@pytest.fixture
def place(tmp_path, monkeypatch):
    """source/file, target/ and free links to make; the working directory is there."""
    monkeypatch.chdir(tmp_path)
    for folder in ("source", "target/deep"):
        Path(folder).mkdir(parents=True)
    for file in ("source/file", "target/file", "target/deep/file"):
        Path(file).write_text(file)
    return tmp_path


@pytest.mark.parametrize(
    ("links", "source", "target"),
    [
        ({}, "target", "target"),
        ({}, "target/file", "target"),
        ({}, "target/deep/file", "target"),
        ({}, "target/file", "target/file"),
        ({}, "source/../target/file", "target"),
        ({}, "target/not/there/yet", "target"),
        ({}, "target/file", "./target/"),
        ({"a": "target"}, "a/file", "target"),
        ({"a": "target"}, "target/file", "a"),
        ({"a": "target", "b": "a"}, "b/deep/file", "target"),
        ({"a": "target/deep"}, "a/../file", "target"),
        ({"a": "source", "target/b": "../a"}, "target/b/file", "target"),
        ({"target/way": "../source", "a": "target/way"}, "a/file", "target"),
        ({"target/way": "../source/file", "a": "target/way"}, "a", "target"),
        ({"a": "target/file"}, "target/file", "a"),
        ({"a": "source/file"}, "source/file", "a"),
        ({"target/loop": "."}, "target/loop/loop/file", "target"),
    ],
)
def test_a_source_in_reach_is_refused(place, links, source, target):
    for name, to in links.items():
        Path(name).symlink_to(to)
    for made in (source, place / source):
        with pytest.raises(NotOursError, match="lost with it"):
            keep_apart([Path("source/file"), Path(made)], [Path("not there"), Path(target)])


@pytest.mark.parametrize(
    ("links", "source", "target"),
    [
        ({}, "source", "target"),
        ({}, "source/file", "source/other"),
        ({}, "target", "target/deep"),
        ({}, "target-2/file", "target"),
        ({"target/b": "../source"}, "source/file", "target"),
        ({"loop": "loop"}, "loop", "target"),
    ],
)
def test_others_are_not(place, links, source, target):
    for name, to in links.items():
        Path(name).symlink_to(to)
    keep_apart([Path(source)], [Path(target)])


def test_another_spelling_of_a_folder_is_seen(place, monkeypatch):
    """A bind mount, or a file system that takes no notice of upper case: the same numbers under another path."""
    stat = os.stat

    def stat_of_mount(path, *args, **kwargs):
        if str(path) == str(place / "source"):
            path = place / "target" / "deep"
        return stat(path, *args, **kwargs)

    monkeypatch.setattr(os, "stat", stat_of_mount)
    with pytest.raises(NotOursError):
        keep_apart([place / "source" / "file"], [place / "target"])


def test_a_file_system_that_numbers_nothing_makes_nothing_one(place, monkeypatch):
    """Some that Windows reaches over the network."""
    stat = os.stat

    def without_number(path, *args, **kwargs):
        found = list(stat(path, *args, **kwargs))
        found[1] = 0
        return os.stat_result(found)

    monkeypatch.setattr(os, "stat", without_number)
    keep_apart([place / "source" / "file"], [place / "target"])
    with pytest.raises(NotOursError):
        keep_apart([place / "target" / "deep"], [place / "target"])


def ours(begin: bytes) -> bool:
    return begin.startswith(b"ours")


def test_an_output_of_ours_may_be_written_again(place):
    for content in (None, "", "ours, and more"):
        if content is not None:
            Path("out").write_text(content)
        check_output(Path("out"), inputs=[Path("source/file")], ours=ours)
    check_output(Path("/dev/null"), ours=ours)


def test_other_outputs_are_refused(place):
    with pytest.raises(NotOursError, match="target/file already exists and was not written by this command"):
        check_output(Path("target/file"), ours=ours)
    with pytest.raises(IsADirectoryError):
        check_output(Path("target"), ours=ours)
    Path("source/file").write_text("ours")
    Path("link").symlink_to("source/file")
    for output in ("source/file", "link"):
        with pytest.raises(NotOursError, match="lost with it"):
            check_output(Path(output), inputs=[Path("source/file")], ours=ours)


def test_an_output_that_exists_is_replaced_on_request_alone(place):
    for path in ("out", "/dev/null"):
        check_free(Path(path), inputs=[Path("source/file")], overwrite=False)
    Path("out").touch()
    with pytest.raises(NotOursError, match="out already exists; give another name, or --overwrite"):
        check_free(Path("out"), overwrite=False)
    check_free(Path("out"), overwrite=True)
    Path("link").symlink_to("source/file")
    for output in ("source/file", "link"):
        with pytest.raises(NotOursError, match="lost with it"):
            check_free(Path(output), inputs=[Path("source/file")], overwrite=True)
    with pytest.raises(IsADirectoryError):
        check_free(Path("target"), overwrite=True)


def test_what_is_in_the_way_gets_a_free_name(place):
    Path("dangling").symlink_to("nowhere")
    assert set_aside(Path("target/file")) == Path("target/kept_file")
    Path("target/file").write_text("again")
    assert set_aside(Path("target/file")) == Path("target/kept_file-2")
    assert set_aside(Path("target"), Path("dangling")) == Path("dangling-2")
    assert (Path("dangling-2/kept_file").read_text(), Path("dangling-2/kept_file-2").read_text()) == (
        "target/file",
        "again",
    )


@pytest.mark.parametrize(
    ("link", "target"),
    [
        (r"\\?\C:\data\raw", r"C:\data\raw"),
        (r"\\?\UNC\server\share\raw", r"\\server\share\raw"),
        (r"..\raw", r"..\raw"),
        ("C:/data/raw", r"C:\data\raw"),
    ],
)
def test_links_on_windows(link, target):
    assert guard._plain(link) == target
