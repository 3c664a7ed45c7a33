"""Names of files and folders that are not UTF-8: one sentence at the start, and no abort."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

from nnunetv2_lightm import cli
from nnunetv2_lightm.dataset_conversion import Dataset801_LiTS, Dataset802_MontgomeryShenzhen

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="other systems refuse such names themselves")
LATIN = os.fsdecode(b"Leber\xfc")


def add_in_folder_of_such_a_name(lits) -> None:
    lits.add(1, folder="x")  # ITK aborts if it is told to write there
    (lits.folder / "x").rename(lits.folder / LATIN)


def test_a_folder_of_such_a_name_ends_the_conversion_at_its_start(lits, folders, capsys):
    add_in_folder_of_such_a_name(lits)
    lits.add(2)
    assert Dataset801_LiTS.main([str(lits.folder), "--split", "none"]) == 1
    error = capsys.readouterr().err
    assert f"{lits.folder}/Leber\\xfc/segmentation-1.nii.gz is not UTF-8" in error and error.count("\n") == 1
    assert folders.everything() == []


@pytest.mark.parametrize("main", [Dataset801_LiTS.main, Dataset802_MontgomeryShenzhen.main])
def test_a_source_of_such_a_name(tmp_path, folders, capsys, main):
    (tmp_path / LATIN).mkdir()
    assert main([str(tmp_path / LATIN)]) == 1
    assert f"{tmp_path}/Leber\\xfc is not UTF-8" in capsys.readouterr().err


def test_an_image_of_such_a_name(xrays, folders, capsys):
    xrays.add_kaggle(1)
    xrays.write(xrays.pixels(2), "CXR_png/x.png").rename(xrays.folder / "CXR_png" / f"{LATIN}.png")
    assert Dataset802_MontgomeryShenzhen.main([str(xrays.folder), "--split", "none"]) == 1
    assert "Leber\\xfc.png is not UTF-8" in capsys.readouterr().err


@pytest.mark.parametrize("variable", ["nnUNet_raw", "nnUNet_preprocessed"])
def test_a_folder_of_nnunet_of_such_a_name(lits, folders, monkeypatch, tmp_path, capsys, variable):
    lits.add(1)
    monkeypatch.setenv(variable, str(tmp_path / LATIN))
    assert Dataset801_LiTS.main([str(lits.folder), "--split", "none"]) == 1
    assert f"{tmp_path}/Leber\\xfc is not UTF-8" in capsys.readouterr().err


def test_a_file_that_is_none_of_ours_does_not_matter(lits, folders, capsys):
    lits.add(1)
    (lits.folder / f"{LATIN}.txt").write_text("")
    assert Dataset801_LiTS.main([str(lits.folder), "--split", "none", "--workers", "1"]) == 0
    assert "Leber\\xfc.txt" in capsys.readouterr().out
    report = json.loads((folders.raw / "Dataset801_LiTS/conversion_report.json").read_text())
    assert report["ignored_files"] == ["Leber\\xfc.txt"]


def test_the_process_ends_with_1_whatever_the_encoding_of_its_output(lits, folders):
    add_in_folder_of_such_a_name(lits)
    process = subprocess.run(
        [sys.executable, "-m", "nnunetv2_lightm.cli", "convert", "lits", str(lits.folder)],
        capture_output=True,
        env=os.environ | {"PYTHONIOENCODING": "ascii"},
        timeout=60,
    )
    assert process.returncode == 1
    assert b"Leber\\xfc" in process.stderr and b"Traceback" not in process.stderr


@pytest.mark.parametrize("command", ["convert", "evaluate", "doctor", "benchmark", "demo"])
@pytest.mark.parametrize("variable", [None, "nnUNet_raw", "nnUNet_results"])
def test_every_command_says_so_at_its_start(tmp_path, monkeypatch, capsys, command, variable):
    if variable is not None:
        monkeypatch.setenv(variable, str(tmp_path / LATIN))
    assert cli.main([command, "--help" if variable else str(tmp_path / LATIN)]) == 1
    captured = capsys.readouterr()
    assert captured.err.startswith(f"nnUNetv2_lightm: the name of {tmp_path}/Leber\\xfc is not UTF-8")
    assert captured.err.count("\n") == 1 and captured.out == ""
