"""A source is never in reach of what a conversion writes, replaces or removes, however it is spelt."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from nnunetv2_lightm.dataset_conversion import Dataset801_LiTS, Dataset802_MontgomeryShenzhen

LITS, XRAYS = "Dataset801_LiTS", "Dataset802_MontgomeryShenzhen"


def tree(folder: Path) -> dict[str, bytes | str | None]:
    """All below a folder: contents of files, where links lead, None for folders."""
    return {
        str(path.relative_to(folder)): os.readlink(path)
        if path.is_symlink()
        else path.read_bytes()
        if path.is_file()
        else None
        for path in folder.rglob("*")
    }


def refused(main, tmp_path, capsys, source, *options) -> None:
    before = tree(tmp_path)
    for transfer in ("--copy", "--link"):
        for more in ([], ["--overwrite"], ["--overwrite", "--dry-run"]):
            given = [str(source), "--split", "none", "--workers", "1", transfer, *options, *more]
            assert main(given) == 1
            error = capsys.readouterr().err
            assert "lost with it. Nothing was changed" in error
            assert "--overwrite" not in error, "it would cost the source"
    assert tree(tmp_path) == before


@pytest.mark.parametrize("inside", ["raw", "preprocessed"])
@pytest.mark.parametrize("folder", ["source", "a/deep/source", "."])
def test_a_source_in_the_target(lits, folders, tmp_path, capsys, inside, folder):
    lits.add(1, 2)
    source = getattr(folders, inside) / LITS / folder
    shutil.copytree(lits.folder, source)
    refused(Dataset801_LiTS.main, tmp_path, capsys, source)


def test_a_source_in_the_target_by_a_link_to_it(lits, folders, tmp_path, capsys):
    lits.add(1, 2)
    (folders.raw / LITS).mkdir(parents=True)
    lits.folder.rename(folders.raw / LITS / "source")
    (tmp_path / "link").symlink_to(folders.raw / LITS / "source")
    refused(Dataset801_LiTS.main, tmp_path, capsys, tmp_path / "link")


def test_a_source_in_the_target_by_a_link_of_the_target(lits, folders, tmp_path, capsys):
    """nnUNet_raw itself, or the data set in it, is a link to the disk that holds the source."""
    lits.add(1, 2)
    folders.raw.mkdir(parents=True)
    (folders.raw / LITS).symlink_to(tmp_path / "lits")
    refused(Dataset801_LiTS.main, tmp_path, capsys, lits.folder)
    refused(Dataset801_LiTS.main, tmp_path, capsys, tmp_path / "nnunet" / ".." / "lits")


def test_a_source_whose_files_are_links_into_the_target(lits, folders, tmp_path, capsys):
    """As `--link` of a tool of the user's makes it: the originals were moved into nnUNet_raw."""
    lits.add(1, 2)
    originals = folders.raw / LITS / "originals"
    originals.mkdir(parents=True)
    for file in sorted(lits.folder.iterdir()):
        file.rename(originals / file.name)
        file.symlink_to(originals / file.name)
    refused(Dataset801_LiTS.main, tmp_path, capsys, lits.folder)


def test_a_source_that_leads_through_the_target(lits, folders, tmp_path, capsys):
    """The files lie elsewhere, but the link to them lies in the target and would go with it."""
    lits.add(1, 2)
    (folders.raw / LITS).mkdir(parents=True)
    (folders.raw / LITS / "way").symlink_to(lits.folder)
    (tmp_path / "source").mkdir()
    (tmp_path / "source" / "all").symlink_to(folders.raw / LITS / "way")
    refused(Dataset801_LiTS.main, tmp_path, capsys, tmp_path / "source")


def test_one_file_of_many(lits, folders, tmp_path, capsys):
    lits.add(1, 2, 3)
    (folders.raw / LITS).mkdir(parents=True)
    moved = folders.raw / LITS / "label.nii.gz"
    (lits.folder / "segmentation-2.nii.gz").rename(moved)
    (lits.folder / "segmentation-2.nii.gz").symlink_to(os.path.relpath(moved, lits.folder))
    refused(Dataset801_LiTS.main, tmp_path, capsys, lits.folder)


def test_a_data_set_of_msd_in_its_own_place(lits, folders, tmp_path, capsys):
    lits.write(lits.image(1), "imagesTr/liver_1.nii.gz")
    lits.write(lits.label(1), "labelsTr/liver_1.nii.gz")
    folders.raw.mkdir(parents=True)
    lits.folder.rename(folders.raw / LITS)
    refused(Dataset801_LiTS.main, tmp_path, capsys, folders.raw / LITS)
    refused(Dataset801_LiTS.main, tmp_path, capsys, folders.raw)


def test_x_rays_in_the_target(xrays, folders, tmp_path, capsys):
    xrays.add_kaggle(1, 2)
    folders.raw.mkdir(parents=True)
    xrays.folder.rename(folders.raw / XRAYS)
    refused(Dataset802_MontgomeryShenzhen.main, tmp_path, capsys, folders.raw / XRAYS)
    refused(Dataset802_MontgomeryShenzhen.main, tmp_path, capsys, folders.raw / XRAYS, "--resize", "8", "8")


@pytest.mark.parametrize("name", ["preprocessed", "results"])
def test_a_folder_of_nnunets_in_the_target(lits, folders, tmp_path, capsys, monkeypatch, name):
    lits.add(1, 2)
    inside = folders.raw / LITS / name
    inside.mkdir(parents=True)
    (inside / "precious").write_text("of the user")
    monkeypatch.setenv(f"nnUNet_{name}", str(inside))
    refused(Dataset801_LiTS.main, tmp_path, capsys, lits.folder)


def test_a_source_around_the_target_is_converted_and_stays(lits, folders, monkeypatch):
    """`convert lits .` with nnU-Net's folders below: again and again, and the result is no source."""
    lits.add(1, 2)
    before = tree(lits.folder)
    for name in ("raw", "preprocessed"):
        monkeypatch.setenv(f"nnUNet_{name}", str(lits.folder / name))
    for more in ([], ["--overwrite"]):
        assert Dataset801_LiTS.main([str(lits.folder), "--split", "none", "--workers", "1", "--link", *more]) == 0
    after = tree(lits.folder)
    assert {name: after[name] for name in before} == before
    images = lits.folder / "raw" / LITS / "imagesTr"
    assert sorted(path.resolve() for path in images.iterdir()) == sorted(lits.folder.glob("volume*"))
