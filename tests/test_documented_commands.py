"""The commands and the Python of the documentation are what the programs take."""

from __future__ import annotations

import argparse
import re
import shlex
from collections.abc import Callable, Iterator
from importlib import import_module
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
DOCUMENTS = [ROOT / "README.md", ROOT / "runtime" / "README.md"]
DOCUMENTS += sorted(path for path in (ROOT / "docs").rglob("*.md") if "_build" not in path.parts)
FENCED = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
SHELLS = {"bash", "sh"}
PROGRAMS = {
    ("nnUNetv2_lightm",): "nnunetv2_lightm.cli",
    ("lightm",): "lightm_runtime.cli",
    ("python", "-m", "nnunetv2_lightm.dataset_conversion.phantoms"): "nnunetv2_lightm.dataset_conversion.phantoms",
}


class Parsed(Exception):
    """The arguments are understood."""


def blocks(document: Path, *languages: str) -> list[str]:
    """What is fenced as code in one of these languages."""
    return [code for language, code in FENCED.findall(document.read_text(encoding="utf-8")) if language in languages]


def simple_commands(code: str) -> Iterator[list[str]]:
    """The words of each command, without comments; of a pipe, a list or a substitution, each command alone."""
    for line in code.replace("\\\n", " ").splitlines():
        lexer = shlex.shlex(line, posix=True, punctuation_chars=True)
        lexer.whitespace_split = True
        command: list[str] = []
        for word in [*lexer, ";"]:
            if set(word) <= set("();<>|&"):
                yield command
                command = []
            else:
                command.append(word)


def ours(code: str) -> list[tuple[str, list[str]]]:
    """The module and the arguments of each command of ours."""
    return [
        (module, command[len(program) :])
        for command in simple_commands(code)
        for program, module in PROGRAMS.items()
        if tuple(command[: len(program)]) == program
    ]


DOCUMENTED = [
    pytest.param(module, arguments, id=f"{document.relative_to(ROOT)}: {shlex.join(arguments)}")
    for document in DOCUMENTS
    for code in blocks(document, *SHELLS)
    for module, arguments in ours(code)
]


@pytest.fixture
def parse(monkeypatch) -> Callable[[str, list[str]], None]:
    """Runs a program up to where all arguments are understood."""
    parse_args = argparse.ArgumentParser.parse_args

    def parse_and_end(parser, *arguments):
        found = parse_args(parser, *arguments)
        if any(action.nargs == argparse.REMAINDER for action in parser._actions):
            return found  # it hands over to the parser of the command
        raise Parsed

    def run(module: str, arguments: list[str]) -> None:
        if module.startswith("lightm_runtime"):
            pytest.importorskip("lightm_runtime", reason="lightm-runtime is not installed: pip install ./runtime")
        with pytest.raises(Parsed):
            import_module(module).main(arguments)

    monkeypatch.setattr(argparse.ArgumentParser, "parse_args", parse_and_end)
    return run


@pytest.mark.parametrize(("module", "arguments"), DOCUMENTED)
def test_commands_are_understood(module, arguments, parse):
    parse(module, arguments)


def test_all_kinds_of_commands_are_found():
    assert {parameter.values[0] for parameter in DOCUMENTED} == set(PROGRAMS.values())
    code = 'export A=$(lightm info M) && B=1 # lightm x\ncd a; nnUNetv2_lightm plan "1 2" \\\n  -p $P | tail\n'
    assert ours(code) == [
        ("lightm_runtime.cli", ["info", "M"]),
        ("nnunetv2_lightm.cli", ["plan", "1 2", "-p", "$P"]),
    ]


@pytest.mark.parametrize("arguments", [["evaluate", "A", "B", "--surfaces"], ["convert", "lits"], ["plans", "123"]])
def test_a_command_that_is_wrong_is_seen(arguments, parse, capsys):
    with pytest.raises(SystemExit):
        parse("nnunetv2_lightm.cli", arguments)
    assert "error:" in capsys.readouterr().err


def test_the_python_of_the_readme_runs():
    (code,) = blocks(ROOT / "README.md", "python")
    names: dict = {}
    exec(code, names)
    shape = tuple(map(int, re.search(r"# \((.*)\)", code)[1].split(",")))
    assert names["logits"].shape == shape
