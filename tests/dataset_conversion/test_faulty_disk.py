"""Disks that are full or cannot be written to: exit code 1, the file is named, and nothing is lost or left behind."""

from __future__ import annotations

import os
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest

from nnunetv2_lightm.dataset_conversion import Dataset801_LiTS, Dataset802_MontgomeryShenzhen, phantoms
from nnunetv2_lightm.dataset_conversion._nifti import write_volume

DATASET = "Dataset801_LiTS"
# (z, y, x); compressed, an image takes about 40 KiB and a label 6 KiB.
SHAPE = (18, 36, 40)
DISK_KIB = 32


@contextmanager
def no_file_longer_than(size: int):
    """The system cuts each file off at this many bytes, as a full disk does; shorter files can still be written."""
    resource = pytest.importorskip("resource", reason="Windows has no limit on the length of files")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.fixture
def small_disk(tmp_path, monkeypatch):
    """nnUNet_raw and nnUNet_preprocessed on a disk of DISK_KIB; skips where the user may not mount one."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={DISK_KIB}k", "tmpfs", str(folder)]
    if sys.platform != "linux" or subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("this user may not mount a small disk")
    for name in ("raw", "preprocessed"):
        monkeypatch.setenv(f"nnUNet_{name}", str(folder / name))
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


@pytest.fixture
def read_only_folder(tmp_path):
    """A folder that nothing can be written into, also not by root."""
    if os.geteuid() == 0:
        return Path("/sys/kernel")
    folder = tmp_path / "read_only"
    folder.mkdir(mode=0o555)
    return folder


def add_large_cases(lits, *numbers: int) -> None:
    for number in numbers:
        random = np.random.default_rng(number)
        lits.write(lits.as_volume(random.integers(-1000, 1000, SHAPE).astype(np.int16)), f"volume-{number}.nii.gz")
        label = lits.as_volume(random.integers(0, 3, SHAPE).astype(np.uint8))
        lits.write(label, f"segmentation-{number}.nii.gz")


@pytest.mark.parametrize("resize", [[], ["--resize", "18", "34", "38"]], ids=["copied", "resampled"])
@pytest.mark.parametrize("workers", ["1", "2"])
def test_a_full_disk_ends_the_conversion(lits, small_disk, capsys, resize, workers):
    add_large_cases(lits, 1, 2)
    assert Dataset801_LiTS.main([str(lits.folder), "--split", "none", "--workers", workers, *resize]) == 1
    error = capsys.readouterr().err
    assert str(small_disk / "raw") in error and f"LiTS_00{1 if workers == '1' else ''}" in error
    assert "Traceback" not in error
    assert list(small_disk.iterdir()) == []


def test_a_volume_that_itk_leaves_cut_off_is_no_data_set(lits, folders, capsys):
    """What follows the volume, dataset.json, is short enough to be written: without a check the exit code was 0."""
    add_large_cases(lits, 1)
    with no_file_longer_than(20_000):
        arguments = [str(lits.folder), "--split", "none", "--workers", "1", "--resize", "18", "34", "38"]
        assert Dataset801_LiTS.main(arguments) == 1
    error = capsys.readouterr().err
    assert "LiTS_001_0000.nii.gz whole (" in error and "MiB are free there" in error
    assert folders.everything() == []


def test_a_full_disk_leaves_the_old_data_set(lits, folders, capsys):
    lits.add(1)
    arguments = [str(lits.folder), "--split", "none", "--workers", "1"]
    assert Dataset801_LiTS.main(arguments) == 0
    before = {path: Path(path).read_bytes() for path in folders.everything() if Path(path).is_file()}
    add_large_cases(lits, 2)
    with no_file_longer_than(20_000):
        assert Dataset801_LiTS.main([*arguments, "--overwrite"]) == 1
    assert {path: Path(path).read_bytes() for path in folders.everything() if Path(path).is_file()} == before


def test_a_full_disk_ends_the_conversion_of_x_rays(xrays, folders, capsys):
    xrays.shape = (160, 160)
    xrays.add_kaggle(1, 2)
    with no_file_longer_than(20_000):
        arguments = [str(xrays.folder), "--split", "none", "--workers", "1", "--resize", "150", "150"]
        assert Dataset802_MontgomeryShenzhen.main(arguments) == 1
    error = capsys.readouterr().err
    assert "MCUCXR_0001_0_0000.png: " in error and "File too large" in error
    assert folders.everything() == []


def test_a_full_disk_names_the_json_file(lits, folders, capsys):
    lits.add(*range(12))
    with no_file_longer_than(2_000):  # the report of twelve cases is longer than any of their small volumes
        assert Dataset801_LiTS.main([str(lits.folder), "--split", "none", "--workers", "1"]) == 1
    assert "conversion_report.json" in capsys.readouterr().err
    assert folders.everything() == []


@pytest.mark.parametrize("variable", ["nnUNet_raw", "nnUNet_preprocessed"])
def test_a_read_only_folder_is_named(lits, folders, read_only_folder, monkeypatch, capsys, variable):
    lits.add(1)
    before = sorted(read_only_folder.iterdir())
    for folder in (read_only_folder, read_only_folder / "below"):
        monkeypatch.setenv(variable, str(folder))
        assert Dataset801_LiTS.main([str(lits.folder), "--split", "none", "--workers", "1"]) == 1
        error = capsys.readouterr().err
        assert str(folder) in error and "Traceback" not in error and "Errno" not in error
    assert folders.everything() == []
    assert sorted(read_only_folder.iterdir()) == before


def test_a_volume_that_cannot_be_opened_is_named(lits, read_only_folder):
    file = read_only_folder / "image.nii.gz"
    with pytest.raises(OSError, match=f"cannot write {file} whole"):
        write_volume(lits.image(1), file)


def test_phantoms_on_a_full_disk_leave_no_volume_that_looks_finished(tmp_path, capsys):
    with no_file_longer_than(20_000):
        assert phantoms.main([str(tmp_path / "lits"), "--num-cases", "1", "--shape", "16", "40", "40"]) == 1
    assert "cannot write" in capsys.readouterr().err
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []
