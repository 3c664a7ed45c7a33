"""Fixtures for the tests of the doctor."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from nnunetv2_lightm import nnunet
from nnunetv2_lightm.autoload import boot, shim_directory


@pytest.fixture
def healthy_environment(monkeypatch, tmp_path):
    """Three good folders, workers that fit, the autoload alone in nnUNet_extTrainer."""
    for variable in nnunet.FOLDERS:
        folder = tmp_path / variable
        folder.mkdir()
        monkeypatch.setenv(variable, str(folder))
    monkeypatch.setenv("nnUNet_n_proc_DA", "1")
    monkeypatch.setenv("nnUNet_def_n_proc", "1")
    monkeypatch.setenv(boot.EXT_TRAINER_VARIABLE, shim_directory())
    monkeypatch.setattr(boot, "announced", True)
    for variable in (boot.SWITCH_VARIABLE, "NNUNETV2_LIGHTM_BACKEND"):
        monkeypatch.delenv(variable, raising=False)


@pytest.fixture
def unwritable_folder(tmp_path) -> Path:
    """A folder that nothing can be written into, also not by root."""
    if os.geteuid() == 0:
        return Path("/proc/self")
    folder = tmp_path / "unwritable"
    folder.mkdir(mode=0o555)
    return folder
