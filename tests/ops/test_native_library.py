"""Whether a compiled library fits this package, and what is said of one that does not."""

from __future__ import annotations

import ctypes
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from nnunetv2_lightm import installation
from nnunetv2_lightm.ops.backends import cpu_native, native_interface, native_library

REASON = cpu_native.not_supported_reason("cpu")
needs_library = pytest.mark.skipif(REASON is not None, reason=f"cpu_native {REASON}")
COMPILER = shutil.which("g++") or shutil.which("clang++")
ROOT = Path(__file__).resolve().parents[2]


def loaded() -> ctypes.CDLL | str:
    return native_library.library_or_reason.__wrapped__()


@needs_library
def test_a_library_of_another_layout_is_refused_by_name(monkeypatch):
    """Two fields change places: as many bytes, but other ones."""
    first, second, *others = native_interface.ScanProblem._fields_

    class ScanProblem(ctypes.Structure):
        _fields_ = [second, first, *others]

    assert ctypes.sizeof(ScanProblem) == ctypes.sizeof(native_interface.ScanProblem)
    monkeypatch.setattr(native_interface, "STRUCTURES", (native_interface.Rows, ScanProblem))
    reason = loaded()
    assert f"{native_library.path()} was built from another version of this package (ScanProblem)" in reason
    assert reason.endswith(installation.reinstall_command()) or native_library.VARIABLE in reason


@needs_library
def test_a_library_with_other_enumerations_is_refused(monkeypatch):
    swapped = ("norm_in_bias", "norm_in_weight", *native_interface.RVM_PARAMETERS[2:])
    monkeypatch.setattr(native_interface, "RVM_PARAMETERS", swapped)
    assert "another version of this package (enumerations)" in loaded()


@pytest.mark.skipif(sys.platform != "linux", reason="loads libm by the name that Linux gives it")
def test_a_library_without_a_fingerprint_is_refused(monkeypatch, tmp_path):
    """As every build of a version before the fingerprint; here some other library."""
    with Path("/proc/self/maps").open() as maps:
        libm = next(line.split()[-1] for line in maps if "/libm" in line and line.rstrip().endswith((".so", ".so.6")))
    shutil.copy(libm, tmp_path / "stale.so")
    monkeypatch.setenv(native_library.VARIABLE, str(tmp_path / "stale.so"))
    assert f"{tmp_path / 'stale.so'} was built from another version of this package" in loaded()


@pytest.mark.parametrize(
    ("content", "message"),
    [(None, "was not compiled at installation"), (b"not a library", "does not load")],
)
def test_a_missing_or_broken_library_says_what_to_do(monkeypatch, tmp_path, content, message):
    path = tmp_path / "_native.so"
    if content is not None:
        path.write_bytes(content)
    monkeypatch.delenv(native_library.VARIABLE, raising=False)
    monkeypatch.setattr(native_library, "LIBRARY", path)
    reason = loaded()
    assert message in reason and "pip install" in reason


def test_a_path_from_the_environment_that_is_wrong_is_named(monkeypatch, tmp_path):
    monkeypatch.setenv(native_library.VARIABLE, str(tmp_path / "absent.so"))
    assert f"is not where {native_library.VARIABLE} says: there is no file {tmp_path / 'absent.so'}" in loaded()


@needs_library
def test_a_library_in_a_folder_with_a_long_name_in_another_alphabet(monkeypatch, tmp_path):
    folder = tmp_path / "Größe und 模型" / ("long " * 40) / ("name " * 40)
    folder.mkdir(parents=True)
    copy = Path(shutil.copy(native_library.path(), folder))
    monkeypatch.setenv(native_library.VARIABLE, str(copy))
    found = loaded()
    assert not isinstance(found, str), found
    assert found.nnunetv2_lightm_chunk_length() == native_library.library().nnunetv2_lightm_chunk_length()


def compile_interface(folder: Path, header: str, before: str, after: str) -> subprocess.CompletedProcess[str]:
    """Check the C++ structures against Python's, with a change to a header."""
    csrc = folder / "csrc"
    shutil.copytree(ROOT / "nnunetv2_lightm" / "ops" / "csrc", csrc)
    text = (csrc / header).read_text(encoding="utf-8")
    assert text.count(before) == 1
    (csrc / header).write_text(text.replace(before, after), encoding="utf-8")
    (csrc / "native_layout.hpp").write_text(native_interface.layout_assertions(), encoding="utf-8")
    command = [COMPILER, "-std=c++17", "-fsyntax-only", csrc / "interface.cpp"]
    return subprocess.run(command, capture_output=True, text=True, check=False)


@pytest.mark.skipif(COMPILER is None, reason="compiles C++: needs g++ or clang++")
@pytest.mark.parametrize(
    ("header", "before", "after", "said"),
    [
        ("scan.hpp", "int64_t batch, length,", "int64_t length, batch,", "ScanProblem differs between csrc and"),
        ("scan.hpp", "int64_t batch_stride;", "double batch_stride;", "Rows differs between csrc and"),
        ("rvm.hpp", "NORM_IN_WEIGHT, NORM_IN_BIAS,", "NORM_IN_BIAS, NORM_IN_WEIGHT,", "Parameter differs from"),
        (
            "depthwise_problem.hpp",
            "*in, *grad_out;\n    void *out",
            "*grad_out, *in;\n    void *out",
            "DepthwiseProblem",
        ),
    ],
)
def test_csrc_that_disagrees_with_python_does_not_compile(tmp_path, header, before, after, said):
    (tmp_path / "as_it_is").mkdir()
    assert compile_interface(tmp_path / "as_it_is", header, before, before).returncode == 0
    (tmp_path / "changed").mkdir()
    finished = compile_interface(tmp_path / "changed", header, before, after)
    assert finished.returncode != 0
    assert said in finished.stderr
