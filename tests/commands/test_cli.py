"""cli.py and the commands that only hand over: what is said, what is passed on, and the exit codes."""

from __future__ import annotations

import os
import subprocess
import sys
import types
from importlib.metadata import version

import pytest

from nnunetv2_lightm import cli
from nnunetv2_lightm.autoload import shim_directory

LITS = "nnunetv2_lightm.dataset_conversion.Dataset801_LiTS"


@pytest.fixture
def stand_in(monkeypatch):
    """Puts a module with a main() in the place of a command, and returns the list of what main() was called with."""

    def put(module_name: str, outcome: int | BaseException = 0) -> list[list[str]]:
        calls = []

        def main(argv):
            calls.append(argv)
            if isinstance(outcome, BaseException):
                raise outcome
            return outcome

        module = types.ModuleType(module_name)
        module.main = main
        monkeypatch.setitem(sys.modules, module_name, module)
        return calls

    return put


def exit_code_of(*argv: str) -> int:
    with pytest.raises(SystemExit) as stopped:
        cli.main(list(argv))
    return stopped.value.code


def test_help_names_every_command(capsys):
    assert exit_code_of("--help") == 0
    printed = capsys.readouterr().out
    for command, (_, summary) in cli.COMMANDS.items():
        assert f"{command} " in printed
        assert summary in printed


def test_version(capsys):
    assert exit_code_of("--version") == 0
    assert capsys.readouterr().out == f"nnunetv2-lightm {version('nnunetv2-lightm')}\n"


def test_no_command_is_a_wrong_call(capsys):
    assert exit_code_of() == 2
    assert "usage: nnUNetv2_lightm" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("argv", "suggestion"),
    [(["docter"], "doctor"), (["Convert", "lits"], "convert"), (["convert", "LiTS"], "lits")],
)
def test_mistyped_word_gets_the_nearest_one(argv, suggestion, capsys):
    assert exit_code_of(*argv) == 2
    assert f"did you mean {suggestion!r}?" in capsys.readouterr().err


def test_word_unlike_all_commands_gets_the_list(capsys):
    assert exit_code_of("xyz") == 2
    error = capsys.readouterr().err
    assert "did you mean" not in error
    assert "There are: doctor, backends" in error


@pytest.mark.parametrize("arguments", [[], ["--help"], ["-h", "x"], ["SOURCE", "--resize", "1", "2", "--", "-x"]])
def test_converter_gets_its_arguments_untouched(stand_in, arguments):
    calls = stand_in(LITS, outcome=1)
    assert cli.main(["convert", "lits", *arguments]) == 1
    assert calls == [arguments]


@pytest.mark.parametrize("command", ["demo", "evaluate"])
@pytest.mark.parametrize("arguments", [["--help"], ["--seed", "3", "out"]])
def test_study_commands_get_their_arguments_untouched(stand_in, command, arguments):
    calls = stand_in(f"nnunetv2_lightm.{cli.COMMANDS[command][0]}")
    assert cli.main([command, *arguments]) == 0
    assert calls == [arguments]


def test_interrupt_is_quiet(stand_in, capsys):
    stand_in(LITS, outcome=KeyboardInterrupt())
    assert cli.main(["convert", "lits"]) == 130
    assert capsys.readouterr() == ("", "")


def test_file_that_cannot_be_read_is_one_line(stand_in, capsys):
    stand_in(LITS, outcome=FileNotFoundError(2, "No such file or directory", "volume-3.nii"))
    assert cli.main(["convert", "lits"]) == 1
    lines = capsys.readouterr().err.splitlines()
    assert lines == ["nnUNetv2_lightm convert: [Errno 2] No such file or directory: 'volume-3.nii'"]


def test_error_of_our_own_keeps_its_traceback(stand_in):
    stand_in(LITS, outcome=RuntimeError("a defect"))
    with pytest.raises(RuntimeError, match="a defect"):
        cli.main(["convert", "lits"])


@pytest.mark.parametrize(
    ("argv", "module"), [(["demo"], "nnunetv2_lightm.commands.demo.command"), (["convert", "lits"], LITS)]
)
def test_command_that_cannot_be_imported_leads_to_the_doctor(argv, module, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, module, None)
    assert cli.main(argv) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert module in line
    assert "Run `nnUNetv2_lightm doctor`" in line


@pytest.mark.parametrize("argv", [["--help"], ["--version"], ["doctor", "--print-trainer-path"]])
def test_works_without_torch_and_nnunetv2(argv, tmp_path):
    for library in ("torch", "nnunetv2", "numpy"):
        (tmp_path / f"{library}.py").write_text("raise RuntimeError('broken')\n")
    environment = os.environ | {"PYTHONPATH": str(tmp_path)}
    command = [sys.executable, "-m", "nnunetv2_lightm.cli", *argv]
    finished = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert (finished.returncode, finished.stderr) == (0, "")
    if "--print-trainer-path" in argv:
        assert finished.stdout == f"{shim_directory()}\n"


@pytest.mark.slow
def test_reader_that_has_seen_enough_is_no_error():
    """`nnUNetv2_lightm backends | head -0`."""
    command = [sys.executable, "-m", "nnunetv2_lightm.cli", "backends"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        process.stdout.close()
        error = process.stderr.read()
    assert error == b""


def test_backends_marks_one_default_for_the_cpu(capsys):
    assert cli.main(["backends"]) == 0
    header, *rows = capsys.readouterr().out.splitlines()
    assert header.split()[:3] == ["BACKEND", "DEVICE", "USABLE"]
    defaults = [row.split() for row in rows if row.startswith("*")]
    assert [row[2:4] for row in defaults if row[2] == "cpu"] == [["cpu", "yes"]]


def test_backends_says_that_one_is_forced(capsys, monkeypatch):
    monkeypatch.setenv("NNUNETV2_LIGHTM_BACKEND", "torch_chunked")
    assert cli.main(["backends"]) == 0
    output = capsys.readouterr().out
    assert [row.split()[1] for row in output.splitlines() if row.startswith("*")][0] == "torch_chunked"
    assert "NNUNETV2_LIGHTM_BACKEND=torch_chunked" in output


@pytest.mark.parametrize(
    ("name", "message"), [("mamba_ssm_cuda", "runs on no device"), ("warp_drive", "no scan backend")]
)
def test_backends_fails_if_the_forced_one_cannot_run(capsys, monkeypatch, name, message):
    monkeypatch.setenv("NNUNETV2_LIGHTM_BACKEND", name)
    monkeypatch.setattr("torch.accelerator.is_available", lambda: False)
    assert cli.main(["backends"]) == 1
    error = capsys.readouterr().err
    assert "NNUNETV2_LIGHTM_BACKEND" in error and message in error
