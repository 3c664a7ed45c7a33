"""Sources for the converters, and nnU-Net's folders to convert into."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
from PIL import Image

SHAPE = (6, 8, 10)
SPACING_MM = (0.7, 0.7, 2.5)


class Folders:
    """nnU-Net's folders; none of them exists at first."""

    def __init__(self, base: Path) -> None:
        self.raw, self.preprocessed, self.results = base / "raw", base / "preprocessed", base / "results"

    def everything(self) -> list[str]:
        """All files and folders in the three, hidden ones too."""
        return sorted(str(path) for folder in vars(self).values() for path in folder.rglob("*"))


class LitsSource:
    """A source in the challenge's layout, with small volumes."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def image(self, number: int, *, dtype=np.int16) -> sitk.Image:
        values = np.random.default_rng(number).integers(-1000, 1000, SHAPE)
        return self.as_volume(values.astype(dtype))

    def label(self, number: int, *, dtype=np.uint8) -> sitk.Image:
        values = np.random.default_rng([number, 1]).integers(0, 3, SHAPE)
        return self.as_volume(values.astype(dtype))

    def as_volume(self, values: np.ndarray) -> sitk.Image:
        volume = sitk.GetImageFromArray(values)
        volume.SetSpacing(SPACING_MM)
        volume.SetOrigin((-100.5, 30.25, -700.0))
        volume.SetDirection((1, 0, 0, 0, -1, 0, 0, 0, 1))
        return volume

    def write(self, volume: sitk.Image, name: str) -> Path:
        file = self.folder / name
        file.parent.mkdir(parents=True, exist_ok=True)
        sitk.WriteImage(volume, str(file))
        return file

    def add(self, *numbers: int, folder: str = ".", ending: str = ".nii.gz") -> None:
        for number in numbers:
            self.write(self.image(number), f"{folder}/volume-{number}{ending}")
            self.write(self.label(number), f"{folder}/segmentation-{number}{ending}")


class XraySource:
    """A source of chest X-rays: PNG files below a folder."""

    shape = (12, 16)

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def pixels(self, number: int, dtype=np.uint8) -> np.ndarray:
        return np.random.default_rng(number).integers(0, np.iinfo(dtype).max, self.shape, dtype, endpoint=True)

    def mask(self, number: int) -> np.ndarray:
        return np.where(np.random.default_rng([number, 1]).random(self.shape) < 0.5, 255, 0).astype(np.uint8)

    def write(self, pixels: np.ndarray, name: str, mode: str | None = None) -> Path:
        file = self.folder / name
        file.parent.mkdir(parents=True, exist_ok=True)
        image = Image.fromarray(pixels)
        (image if mode is None else image.convert(mode)).save(file)
        return file

    def add_kaggle(self, *numbers: int, source: str = "MCU", masks: str = "masks") -> None:
        for number in numbers:
            stem = f"{source}CXR_{number:04d}_0"
            self.write(self.pixels(number), f"CXR_png/{stem}.png")
            self.write(self.mask(number), f"{masks}/{stem}{'_mask' if source == 'CHN' else ''}.png")


@pytest.fixture
def folders(tmp_path, monkeypatch) -> Folders:
    made = Folders(tmp_path / "nnunet")
    for name, folder in vars(made).items():
        monkeypatch.setenv(f"nnUNet_{name}", str(folder))
    return made


@pytest.fixture
def lits(tmp_path) -> LitsSource:
    (tmp_path / "lits").mkdir()
    return LitsSource(tmp_path / "lits")


@pytest.fixture
def xrays(tmp_path) -> XraySource:
    (tmp_path / "xrays").mkdir()
    return XraySource(tmp_path / "xrays")


@pytest.fixture
def start_python():
    """Start Python code in a process of its own, which ends with the test at the latest."""
    started = []

    def start(code: str, *arguments: object) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [sys.executable, "-c", code, *map(str, arguments)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
        )
        started.append(process)
        return process

    yield start
    for process in started:
        with process:  # closes its pipes, which children that are left would hold open
            process.kill()


@pytest.fixture(scope="session")
def real_data() -> Path:
    folder = os.environ.get("NNUNETV2_LIGHTM_DATA")
    if not folder:
        pytest.skip("NNUNETV2_LIGHTM_DATA is not set: no real data")
    return Path(folder)
