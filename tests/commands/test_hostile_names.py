"""Names of files, classes and data sets that act on a terminal, a spreadsheet or a shell, through the commands."""

from __future__ import annotations

import csv
import json
import os
import shlex
import subprocess

import numpy as np
import pytest
from PIL import Image

from nnunetv2_lightm.cli import main as cli
from nnunetv2_lightm.commands.doctor.finding import fail, note, set_variable
from nnunetv2_lightm.commands.doctor.render import as_json, as_text
from nnunetv2_lightm.nnunet_faults import faults_of_file_ending, faults_of_labels, faults_of_splits, plan_again

ANSI = "\x1b]0;title\x07\x1b[31m\x9b1m"
CASES = ("=cmd|' calc'!A0", "+1", "-left", "@SUM(A1)", "plain")
CLASSES = {"background": 0, "=HYPERLINK(1)": 1, f"<b>|{ANSI}": 2}


def write_case(folder, case, values):
    folder.mkdir(exist_ok=True)
    Image.fromarray(np.asarray(values, np.uint8)).save(folder / f"{case}.png")


@pytest.fixture
def folders(tmp_path):
    for case in CASES:
        for folder in ("predictions", "labelsTs"):
            write_case(tmp_path / folder, case, [[0, 1, 2], [2, 1, 0]])
    (tmp_path / "dataset.json").write_text(json.dumps({"labels": CLASSES, "file_ending": ".png"}))
    return tmp_path


def test_no_cell_of_a_csv_file_is_a_formula(folders, capsys):
    table = folders / "scores.csv"
    assert cli(["evaluate", str(folders / "predictions"), str(folders / "labelsTs"), "--csv", str(table)]) == 0
    header, *rows = csv.reader(table.open(newline=""))
    assert header == ["case", "class", "DSC", "IoU"] and len(rows) == 10
    assert {row[0] for row in rows} == {"'=cmd|' calc'!A0", "+1", "'-left", "'@SUM(A1)", "plain"}
    assert {row[1] for row in rows} == {"'=HYPERLINK(1)", r"<b>|\x1b]0;title\x07\x1b[31m\x9b1m"}
    assert all(float(row[2]) == 1 for row in rows)
    printed = capsys.readouterr().out
    assert "\x1b" not in printed and "\x9b" not in printed
    assert all(line.count(" | ") == 3 for line in printed.splitlines() if line.startswith("|"))


def test_an_error_does_not_act_on_the_terminal(folders, capsys):
    write_case(folders / "predictions", f"odd{ANSI}", [[0]])
    assert cli(["evaluate", str(folders / "predictions"), str(folders / "labelsTs")]) == 1
    message = capsys.readouterr().err
    assert r"odd\x1b]0;title\x07" in message and not {"\x1b", "\x07", "\x9b"} & set(message)


def test_a_conversion_does_not_either(folders, tmp_path, monkeypatch, capsys):
    for name in ("nnUNet_raw", "nnUNet_preprocessed"):
        monkeypatch.setenv(name, str(tmp_path / name))
    source = tmp_path / f"source{ANSI}\n[OK] forged"
    source.mkdir()
    assert cli(["convert", "lits", str(source)]) == 1
    message = capsys.readouterr().err
    assert r"source\x1b]0;title\x07" in message and not {"\x1b", "\x07", "\x9b"} & set(message)
    assert cli(["convert", "lits", f"{source}/missing"]) == 1
    assert len(capsys.readouterr().err.splitlines()) == 1


@pytest.mark.parametrize(
    "labels",
    [[], 5, {"liver": "1"}, {"liver": [1, "2"]}, {"liver": []}, {"liver": -1}, {"liver": True}, {"liver": 1.5}],
)
def test_labels_of_another_type_are_refused_by_name(folders, labels, capsys):
    file = folders / "dataset.json"
    file.write_text(json.dumps({"labels": labels, "file_ending": ".png"}))
    assert cli(["evaluate", str(folders / "predictions"), str(folders / "labelsTs")]) == 1
    message = capsys.readouterr().err
    assert str(file) in message and "labels" in message and "Traceback" not in message


@pytest.mark.parametrize("content", ["[" * 10**5, '{"labels": {"a": 1}, "file_ending": "/../x"}', "[]", "NaN"])
def test_a_dataset_json_of_unknown_origin_is_refused(folders, content, capsys):
    (folders / "dataset.json").write_text(content)
    assert cli(["evaluate", str(folders / "predictions"), str(folders / "labelsTs")]) == 1
    assert str(folders / "dataset.json") in capsys.readouterr().err


def test_the_doctor_shows_names_as_text():
    findings = [
        note(f"raw Dataset001_{ANSI}", f"{ANSI} has no label"),
        fail("x", ANSI, f"remove {ANSI}"),
        fail("y", ANSI),
    ]
    for shown in (as_text(findings), as_json(findings)):
        assert not {"\x07", "\x9b"} & set(shown) and "\x1b]" not in shown
    assert json.loads(as_json(findings))["findings"][1]["message"] == ANSI


@pytest.mark.skipif(os.name == "nt", reason="a line of sh")
@pytest.mark.parametrize(
    "value", ["/a b/$(touch pwned)", 'a";touch pwned;"', "a`touch pwned`", "a\\b'c", "/plain", "~/x"]
)
def test_a_variable_gets_the_value_and_nothing_else(value, tmp_path):
    line = set_variable("NAME", value)
    done = subprocess.run(["bash", "-c", f'{line}; printf %s "$NAME"'], cwd=tmp_path, capture_output=True, text=True)
    assert (done.stdout, done.stderr) == (value, "") and list(tmp_path.iterdir()) == []


@pytest.mark.skipif(os.name == "nt", reason="a line of sh")
def test_home_is_left_to_the_shell():
    assert set_variable("NAME", "$HOME/nnUNet/raw") == 'export NAME="$HOME/nnUNet/raw"'


def test_a_configuration_is_one_word_of_the_command():
    assert shlex.split(plan_again("Dataset004_X; rm", "2d; rm -rf x"))[-2:] == ["-c", "2d; rm -rf x"]
    assert plan_again("Dataset004_X", "2d") == "nnUNetv2_plan_and_preprocess -d 4 --verify_dataset_integrity -c 2d"


@pytest.mark.parametrize(
    "splits", [{}, "x", [5], [{}], [{"train": ["a"]}], [{"train": ["a"], "val": "b"}], [{"train": [1], "val": []}]]
)
def test_faults_of_splits(splits):
    assert faults_of_splits(splits)
    assert faults_of_splits([{"train": ["a"], "val": ["b"]}, {"train": [], "val": []}]) == []


def test_faults_of_labels_and_file_ending():
    assert faults_of_labels({"background": 0, "whole": [1, 2], "ignore": 3}) == []
    for ending in ("nii.gz", ".", "..", "./x", ".a\\b", ".a\0", 5, None, "." + "a" * 99):
        assert faults_of_file_ending(ending)
    assert faults_of_file_ending(".nii.gz") == []
