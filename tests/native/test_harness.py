"""The recorded calls, and the harness that repeats them on other platforms, are of use: they pass on this one."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from nnunetv2_lightm.ops.backends import native_library

HERE = Path(__file__).resolve().parent
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(isinstance(native_library.library_or_reason(), str), reason="needs the compiled library"),
    pytest.mark.skipif(os.name == "nt", reason="`python -m release.prove win_amd64` does this on Windows"),
]


@pytest.fixture(scope="module")
def harness(tmp_path_factory):
    compiler = shutil.which("c++")
    if compiler is None:
        pytest.skip("needs a C++ compiler")
    program = tmp_path_factory.mktemp("harness") / "harness"
    subprocess.run([compiler, "-std=c++17", "-O1", HERE / "harness.cpp", "-ldl", "-o", program], check=True)
    return program


@pytest.fixture(scope="module")
def cases(tmp_path_factory):
    file = tmp_path_factory.mktemp("cases") / "cases.bin"
    subprocess.run([sys.executable, HERE / "cases.py", file], check=True)
    return file


def run(harness: Path, cases: Path) -> subprocess.CompletedProcess:
    return subprocess.run([harness, native_library.path(), cases], capture_output=True, text=True, check=False)


def test_every_call_passes_on_every_instruction_set(harness, cases):
    finished = run(harness, cases)
    assert finished.returncode == 0, finished.stdout
    sets, counted = finished.stdout.splitlines()
    names = native_library.instruction_sets()
    assert sets.split(": ")[1].split() == names
    calls = int.from_bytes(cases.read_bytes()[:8], "little")
    assert counted == f"{calls * len(names) * 2} passed, 0 failed"


def test_another_result_fails(harness, cases, tmp_path):
    """The last bytes of the file are the last output of the last call."""
    changed = tmp_path / "cases.bin"
    content = bytearray(cases.read_bytes())
    content[-2] ^= 0x40
    changed.write_bytes(content)
    finished = run(harness, changed)
    assert finished.returncode == 1 and "FAILED: head" in finished.stdout
