"""The engine is a distribution of its own; `make test` installs it."""

from __future__ import annotations

from pathlib import Path

import pytest

pytest.importorskip("lightm_runtime", reason="lightm-runtime is not installed: pip install ./runtime")

from nnunetv2_lightm.deploy.bundle import write_bundle
from nnunetv2_lightm.deploy.model_folder import read_model_folder

from ..model_folders import write_model_folder
from ..prediction import write_images


@pytest.fixture(scope="session")
def flat_bundle(tmp_path_factory) -> Path:
    """A 2D model of one channel."""
    return _bundle(tmp_path_factory, 1, (30, 24), configuration="2d", spacing=(1.0, 1.0), patch_size=(16, 16))


@pytest.fixture(scope="session")
def volume_bundle(tmp_path_factory) -> Path:
    """A 3D model of two channels."""
    schemes = ("CTNormalization", "ZScoreNormalization")
    return _bundle(tmp_path_factory, 2, (10, 18, 17), patch_size=(8, 16, 16), schemes=schemes)


@pytest.fixture
def image(tmp_path) -> Path:
    """One 2D image."""
    (file,) = write_images(tmp_path / "one", 1, shape=(30, 24), spacing=(0.5, 2.0))
    return file


def _bundle(tmp_path_factory, channels: int, shape: tuple[int, ...], **options) -> Path:
    root = tmp_path_factory.mktemp("bundle")
    model = read_model_folder(write_model_folder(root / "model", **options))
    write_images(root / "images", channels, shape=shape)
    write_bundle(model, root / "a.lightm", half=False, check_images=root / "images")
    return root / "a.lightm"
