"""The converters' command line: what it prints, exit codes, usage errors."""

from __future__ import annotations

import re

import pytest

from nnunetv2_lightm.dataset_conversion._convert import ConversionOptions
from nnunetv2_lightm.dataset_conversion._errors import ConversionError
from nnunetv2_lightm.dataset_conversion.Dataset801_LiTS import convert_lits, main


def test_main_says_what_comes_next(lits, folders, capsys):
    lits.add(*range(5))
    assert main([str(lits.folder), "--workers", "1", "--id", "77", "--name", "Mine", "--split", "3:1:1"]) == 0
    captured = capsys.readouterr()
    assert "5 converted" in captured.out
    assert "3 train, 1 val, 1 test" in captured.out
    assert "nnUNetv2_plan_and_preprocess -d 77 --verify_dataset_integrity" in captured.out
    assert "5/5" in captured.err
    assert (folders.raw / "Dataset077_Mine" / "dataset.json").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["missing"], "does not exist"),
        ([], "no image with a label.*volume-N"),
        (["--name", "a b"], "letters, digits"),
        (["--name", "Dataset801_LiTS"], "DatasetXXX_"),
    ],
)
def test_main_fails_without_a_traceback(lits, folders, capsys, arguments, message):
    source = [] if arguments and not arguments[0].startswith("-") else [str(lits.folder)]
    assert main([*source, *arguments]) == 1
    error = capsys.readouterr().err
    assert re.search(message, error)
    assert "Traceback" not in error
    assert folders.everything() == []


@pytest.mark.parametrize(
    "arguments",
    [
        ["--split", "7:1"],
        ["--id", "0"],
        ["--resize", "1", "2"],
        ["--workers", "0"],
        ["--copy", "--link"],
        ["--nonsense"],
    ],
)
def test_usage_errors_exit_with_2(lits, folders, capsys, arguments):
    with pytest.raises(SystemExit) as exit_:
        main([str(lits.folder), *arguments])
    assert exit_.value.code == 2
    assert "usage" in capsys.readouterr().err


def test_a_size_that_does_not_fit_into_memory(lits, folders, capsys):
    lits.add(1)
    assert main([str(lits.folder), "--resize", "100000", "100000", "100000"]) == 1
    assert "one image takes 3725290.3 GiB" in capsys.readouterr().err
    assert folders.everything() == []


def test_an_archive_is_to_be_unpacked(lits, folders, capsys):
    (lits.folder / "lits.zip").write_bytes(b"PK")
    assert main([str(lits.folder / "lits.zip")]) == 1
    assert "unpack" in capsys.readouterr().err


@pytest.mark.parametrize("variable", ["nnUNet_raw", "nnUNet_preprocessed"])
def test_unset_folders_are_named(lits, folders, monkeypatch, variable):
    lits.add(1)
    monkeypatch.delenv(variable)
    with pytest.raises(ConversionError, match=f"{variable} must be set.*export {variable}="):
        convert_lits(lits.folder, ConversionOptions(workers=1))
