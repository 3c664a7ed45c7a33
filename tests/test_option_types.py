"""Numeric options: what no option means is refused where it is given, by every parser."""

from __future__ import annotations

import argparse
import ast

import pytest

from nnunetv2_lightm.benchmark.settings import SettingsError, parse_budget, parse_wall_clock
from nnunetv2_lightm.cli import main
from nnunetv2_lightm.option_types import finite_number, whole_number

from .test_layering import modules

NOT_FINITE = ["inf", "-inf", "nan", "infinity", "1e400", "1_0", "", "x", " 1", "０"]


@pytest.mark.parametrize("text", [*NOT_FINITE, "-1", "-0.5"])
def test_not_a_finite_number(text):
    with pytest.raises(argparse.ArgumentTypeError, match="expected a finite number of mm, 0 or more"):
        finite_number("mm", at_least=0)(text)


@pytest.mark.parametrize("text", ["0", "-0", "0.0", "1e-400"])
def test_a_bound_that_does_not_belong_to_it(text):
    assert finite_number("GB", at_least=0)(text) == 0
    with pytest.raises(argparse.ArgumentTypeError, match="GB, above 0"):
        finite_number("GB", above=0)(text)


@pytest.mark.parametrize(("text", "number"), [("8", 8), ("0.5", 0.5), (".5", 0.5), ("2.", 2), ("+1.5E-2", 0.015)])
def test_finite_numbers(text, number):
    assert finite_number("mm", above=0)(text) == number


@pytest.mark.parametrize("text", [*NOT_FINITE, "-1", "0", "10", "1.0", "9" * 5000])
def test_not_a_whole_number(text):
    with pytest.raises(argparse.ArgumentTypeError, match="expected a whole number from 1 to 9"):
        whole_number(at_least=1, at_most=9)(text)


@pytest.mark.parametrize("text", ["1", "+9", "007"])
def test_whole_numbers(text):
    assert whole_number(at_least=1, at_most=9)(text) == int(text)


def test_every_parser_takes_these():
    """int and float are no types of an option, anywhere in the package."""
    found = [
        f"{module}:{keyword.value.lineno}"
        for module, path in modules().items()
        for call in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(call, ast.Call) and getattr(call.func, "attr", "") == "add_argument"
        for keyword in call.keywords
        if keyword.arg == "type" and getattr(keyword.value, "id", "") in ("int", "float")
    ]
    assert found == []


COMPARISON = ("benchmark", "-d", "1", "-c", "2d", "-tr", "nnUNetTrainer", "-o", "x", "--budget", "1epochs_1iters")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        *(((*COMPARISON, "--surface", "--nsd-tolerance-mm", text), "finite number of mm") for text in ("inf", "nan")),
        ((*COMPARISON, "--surface", "--nsd-tolerance-mm=-1"), "finite number of mm"),
        ((*COMPARISON, "--seeds=-1"), "whole number from 0 to 999999999"),
        ((*COMPARISON, "--folds=-1"), "whole number, 0 or more"),
        (("evaluate", "a", "b", "--surface", "--nsd-tolerance-mm", "inf"), "finite number of mm"),
        (("evaluate", "a", "b", "--workers", "0"), "whole number, 1 or more"),
        (("plan", "1", "--gpu-memory-gb", "nan"), "finite number of GB, above 0"),
        (("plan", "1", "--batch-size", "0"), "whole number, 1 or more"),
        (("demo", "--num-cases", "0"), "whole number, 1 or more"),
        (("demo", "--shape", "40", "96", "1"), "whole number, 16 or more"),
        (("convert", "lits", "x", "--id", "0"), "whole number from 1 to 999"),
        (("convert", "lits", "x", "--resize", "1", "1", "0"), "whole number, 1 or more"),
        (("convert", "lits", "x", "--split", "nan:1:1"), "three numbers"),
        (("convert", "lits", "x", "--split", "7:inf:1"), "three numbers"),
    ],
)
def test_options_that_mean_nothing(arguments, words, capsys):
    with pytest.raises(SystemExit) as ended:
        main(list(arguments))
    assert ended.value.code in (1, 2)
    assert words in capsys.readouterr().err


@pytest.mark.parametrize("text", ["0s", "0.0h", "-1s", "inf", "infs", "nans", "9" * 400 + "s", "300000h", "1e3s"])
def test_times_that_are_none(text):
    with pytest.raises(SettingsError, match="expected a number above 0 with its unit"):
        parse_wall_clock(text)


@pytest.mark.parametrize("text", ["0epochs", "-1epochs", "infepochs", "1epochs_0iters", "9" * 5000 + "epochs"])
def test_budgets_that_are_none(text):
    with pytest.raises(SettingsError, match="expected e.g. 20epochs_100iters"):
        parse_budget(text)
