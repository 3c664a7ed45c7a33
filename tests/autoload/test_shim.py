"""autoload/shim: the one module nnU-Net imports to find our trainers."""

from __future__ import annotations

import importlib.util
import sys
import types
from pathlib import Path

import pytest

from nnunetv2_lightm.autoload import shim_directory

TRAINERS = "nnunetv2_lightm.trainers"


class Trainer:
    """Stands for one of our trainers."""


@pytest.fixture
def shim():
    (file,) = Path(shim_directory()).glob("*.py")
    specification = importlib.util.spec_from_file_location(file.stem, file)
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    return module


@pytest.fixture
def asked(monkeypatch) -> list[str]:
    """Names that the shim asks find_trainer for; it knows nnUNetTrainerLightMUNet alone."""
    names = []

    def find_trainer(name):
        names.append(name)
        return Trainer if name == "nnUNetTrainerLightMUNet" else None

    trainers = types.ModuleType(TRAINERS)
    trainers.find_trainer = find_trainer
    trainers.explain_unknown = lambda name, directory: "did you mean" if name == "nnUNetTrainerLightMUnet" else None
    monkeypatch.setitem(sys.modules, TRAINERS, trainers)
    return names


def test_directory_holds_one_module_of_a_name_that_is_ours():
    """Other plug-ins' modules are top-level as well, so a common name would clash with theirs."""
    modules = [path.name for path in Path(shim_directory()).iterdir() if path.name != "__pycache__"]
    assert modules == ["nnunetv2_lightm_trainers.py"]


def test_our_name_gives_the_real_class(shim, asked):
    assert shim.nnUNetTrainerLightMUNet is Trainer


def test_name_of_someone_else_is_not_there(shim, asked):
    assert not hasattr(shim, "nnUNetTrainerSomeoneElse")
    assert asked == ["nnUNetTrainerSomeoneElse"]


def test_name_near_one_of_ours_ends_the_search_with_a_suggestion(shim, asked):
    with pytest.raises(RuntimeError, match="did you mean"):
        shim.nnUNetTrainerLightMUnet  # noqa: B018


@pytest.mark.parametrize("name", ["__path__", "__wrapped__", "_ipython_display_"])
def test_what_is_no_trainer_name_imports_nothing(shim, asked, name):
    assert not hasattr(shim, name)
    assert asked == []


def test_package_that_cannot_be_imported_is_named_for_our_names(shim, monkeypatch):
    monkeypatch.setitem(sys.modules, TRAINERS, None)
    with pytest.raises(ImportError, match=r"nnunetv2-lightm cannot be imported by .*doctor"):
        shim.nnUNetTrainerLightMUNet_5epochs  # noqa: B018


def test_package_that_cannot_be_imported_leaves_other_plugins_in_peace(shim, monkeypatch):
    """nnU-Net stops its search at any other error, and the other plug-in's directory may come after ours."""
    monkeypatch.setitem(sys.modules, TRAINERS, None)
    with pytest.warns(RuntimeWarning, match="nnunetv2-lightm cannot be imported"):
        assert not hasattr(shim, "nnUNetTrainerSomeoneElse")
