"""Files are written whole, and are the same on every system."""

from __future__ import annotations

from pathlib import Path

import pytest

from nnunetv2_lightm.files import write_text


@pytest.fixture
def on_windows(monkeypatch):
    """Text files get Windows' line ends unless the caller says otherwise."""
    original = Path.write_text

    def write(path, text, encoding=None, errors=None, newline=None):
        return original(path, text, encoding, errors, newline="\r\n" if newline is None else newline)

    monkeypatch.setattr(Path, "write_text", write)


def test_lines_end_the_same_on_windows(on_windows, tmp_path):
    """Commands know their own files by the first bytes."""
    Path(tmp_path / "other").write_text("{\n}\n")
    write_text(tmp_path / "ours", "{\n}\n")
    assert (tmp_path / "other").read_bytes() == b"{\r\n}\r\n"
    assert (tmp_path / "ours").read_bytes() == b"{\n}\n"
