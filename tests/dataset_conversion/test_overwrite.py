"""`--overwrite` replaces what a conversion made, and nothing else."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from nnunetv2_lightm.dataset_conversion import Dataset801_LiTS
from nnunetv2_lightm.dataset_conversion._convert import ConversionOptions
from nnunetv2_lightm.dataset_conversion._errors import ConversionError
from nnunetv2_lightm.files import Record

DATASET = "Dataset801_LiTS"


def test_overwrite_replaces_what_a_conversion_made(lits, folders):
    lits.add(1, 2)
    Dataset801_LiTS.convert_lits(lits.folder, ConversionOptions(split=(1, 1, 0), workers=1))
    (lits.folder / "volume-2.nii.gz").unlink()
    (lits.folder / "segmentation-2.nii.gz").unlink()
    Dataset801_LiTS.convert_lits(lits.folder, ConversionOptions(split=None, workers=1, overwrite=True))
    assert not (folders.preprocessed / DATASET).exists()
    assert [path.name for path in (folders.raw / DATASET / "imagesTr").iterdir()] == ["LiTS_001_0000.nii.gz"]
    assert [path for path in folders.everything() if "making" in path] == []


def test_overwrite_puts_aside_what_was_preprocessed(lits, folders, capsys):
    """Plans may have been edited, and hours gone into preprocessing."""
    lits.add(1, 2)
    arguments = [str(lits.folder), "--split", "1:1:0", "--workers", "1"]
    assert Dataset801_LiTS.main(arguments) == 0
    plans = folders.preprocessed / DATASET / "nnUNetPlans.json"
    plans.write_text("edited")
    for number, name in enumerate(("replaced_Dataset801_LiTS", "replaced_Dataset801_LiTS-2")):
        assert Dataset801_LiTS.main([*arguments, "--overwrite"]) == 0
        assert (folders.preprocessed / name / "nnUNetPlans.json").read_text() == f"edited{'' if number == 0 else 2}"
        assert str(folders.preprocessed / name) in capsys.readouterr().out
        assert [path.name for path in plans.parent.glob("[!.]*")] == ["splits_final.json"]
        plans.write_text("edited2")


def change_content(raw):
    (raw / "labelsTr" / "LiTS_001.nii.gz").write_text("corrected by hand")
    return "LiTS_001.nii.gz"


def change_time(raw):
    os.utime(raw / "dataset.json", ns=(0, 0))
    return "dataset.json"


def add_a_file(raw):
    (raw / "notes.txt").write_text("of the user")
    return "notes.txt"


def add_a_folder(raw):
    (raw / "source" / "deep").mkdir(parents=True)
    (raw / "source" / "deep" / "precious").write_text("of the user")
    return "precious"


def add_a_link(raw):
    (raw / "more").symlink_to(raw.parent)
    return "more"


def lose_the_record(raw):
    (raw / ".nnunetv2_lightm.json").unlink()
    return "dataset.json"


def damage_the_record(raw):
    (raw / ".nnunetv2_lightm.json").write_text('{"files": [1]}')
    return "dataset.json"


@pytest.mark.parametrize(
    "change",
    [change_content, change_time, add_a_file, add_a_folder, add_a_link, lose_the_record, damage_the_record],
)
def test_what_no_conversion_made_is_not_replaced(lits, folders, capsys, change):
    lits.add(1, 2)
    arguments = [str(lits.folder), "--split", "none", "--workers", "1"]
    assert Dataset801_LiTS.main(arguments) == 0
    name = change(folders.raw / DATASET)
    before = contents(folders)
    for extra in ([], ["--dry-run"]):
        assert Dataset801_LiTS.main([*arguments, "--overwrite", *extra]) == 1
        error = capsys.readouterr().err
        assert name in error and "not made by this command or changed since" in error
    assert contents(folders) == before


def contents(folders) -> dict[str, bytes | None]:
    return {path: Path(path).read_bytes() if Path(path).is_file() else None for path in folders.everything()}


@pytest.mark.parametrize("signed", [False, True])
def test_what_a_link_points_to_is_never_removed(lits, folders, tmp_path, signed):
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "precious").write_text("old")
    if signed:
        record = Record(elsewhere)
        record.add(elsewhere)
        record.write("nnUNetv2_lightm convert")
    for folder in (folders.raw, folders.preprocessed):
        folder.mkdir(parents=True)
    (folders.raw / DATASET).symlink_to(elsewhere)
    lits.add(1, 2)
    with pytest.raises(ConversionError, match="symbolic link"):
        Dataset801_LiTS.convert_lits(lits.folder, ConversionOptions(split=None, workers=1, overwrite=True))
    (folders.raw / DATASET).rename(folders.preprocessed / DATASET)
    Dataset801_LiTS.convert_lits(lits.folder, ConversionOptions(split=None, workers=1, overwrite=True))
    assert (folders.preprocessed / f"replaced_{DATASET}").is_symlink()
    assert (elsewhere / "precious").exists()
