"""runs/process.py where the system is Windows, as far as that can be made here."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from nnunetv2_lightm.runs import process

pytestmark = pytest.mark.skipif(os.name != "posix", reason="puts a shell script in the place of taskkill")
SLEEPER = [sys.executable, "-c", "import time; time.sleep(600)"]


def taskkill(folder: Path, monkeypatch, does: str) -> Path:
    """A program of that name, which notes its arguments; returns the file with them."""
    script, arguments = folder / "taskkill", folder / "arguments"
    script.write_text(f'#!/bin/sh\necho "$@" > {arguments}\n{does}\n')
    script.chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}{os.pathsep}{os.environ['PATH']}")
    return arguments


def test_windows_ends_a_command_with_its_children(tmp_path, monkeypatch):
    arguments = taskkill(tmp_path, monkeypatch, "kill -9 $4")
    started = subprocess.Popen(SLEEPER)
    process.end_tree(started)
    assert started.returncode == -9
    assert arguments.read_text().split() == ["/T", "/F", "/PID", str(started.pid)]


def test_a_command_that_taskkill_may_not_end_is_ended_all_the_same(tmp_path, monkeypatch):
    taskkill(tmp_path, monkeypatch, "exit 1")
    started = subprocess.Popen(SLEEPER)
    process.end_tree(started)
    assert started.returncode is not None


def test_logs_are_utf8_whatever_the_locale(tmp_path):
    """As on Windows, whose Python writes files in the code page of the country."""
    log = tmp_path / "log"
    said = []
    environment = {**os.environ, "LC_ALL": "C", "PYTHONCOERCECLOCALE": "0", "PYTHONUTF8": "0"}
    command = [sys.executable, "-c", "print('Gr\\xf6\\xdfe \\u6a21\\u578b')"]
    process.run_logged(command, log, environment=environment, on_tick=said.append)
    assert "".join(said) == "Größe 模型\n"
