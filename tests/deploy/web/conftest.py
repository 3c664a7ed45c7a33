"""Pages of drawn models, and a browser to open them from disk."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk

from nnunetv2_lightm.deploy.bundle import bundle_content
from nnunetv2_lightm.deploy.model_folder import read_model_folder
from nnunetv2_lightm.deploy.web.page import write_page

from ...model_folders import REGIONS, write_model_folder
from ...prediction import write_images

BROWSERS = ("chromium", "chromium-browser", "google-chrome")
HOSTILE = "<img src=x onerror=alert(1)>"
NATURAL = {"configuration": "2d", "spacing": (1.0, 1.0), "reader": "NaturalImage2DIO", "file_ending": ".png"}
MODELS = {
    "picture": ({**NATURAL, "patch_size": (32, 32), "mirroring_axes": (1,)}, {"shape": (40, 32), "ending": ".png"}),
    "colours": (
        {**NATURAL, "patch_size": (32, 32), "mirroring_axes": (), "schemes": ("RGBTo01Normalization",) * 3},
        {"shape": (32, 32), "ending": ".png", "rgb": True},
    ),
    "slices": (
        {"configuration": "2d", "spacing": (1.0, 1.3), "patch_size": (24, 24), "mirroring_axes": ()},
        {"shape": (30, 24), "spacing": (1.0, 1.2)},
    ),
    "volume": (
        {
            **{"patch_size": (8, 16, 16), "spacing": (1.4, 0.8, 1.1), "mirroring_axes": ()},
            **{"reader": "SimpleITKIOWithReorient", "labels": {"background": 0, "organ": 1, HOSTILE: 2}},
        },
        {"shape": (10, 18, 15), "spacing": (1.5, 1.2, 0.9)},
    ),
    "nibabel": (
        {"patch_size": (8, 16, 16), "spacing": (1.4, 0.8, 1.1), "mirroring_axes": (), "reader": "NibabelIO"},
        {"shape": (10, 18, 15), "spacing": (1.5, 1.2, 0.9)},
    ),
    "channels": (
        {
            **{"patch_size": (8, 16, 16), "schemes": ("CTNormalization", "ZScoreNormalization"), "folds": (0, 1)},
            **{"labels": REGIONS, "regions_class_order": (1, 2, 3), "mirroring_axes": (0,)},
        },
        {"shape": (10, 18, 17)},
    ),
}


@pytest.fixture(scope="session")
def bundle_of(tmp_path_factory):
    """Writes the bundle of one of MODELS, and an image for it; returns both: (bundle, image's files)."""
    made = {}

    def make(kind: str) -> tuple[Path, list[Path]]:
        if kind not in made:
            options, image = MODELS[kind]
            folder = tmp_path_factory.mktemp(kind)
            channels = len(options.get("schemes", (1,)))
            files = write_images(folder / "images", channels, **image)
            model = read_model_folder(write_model_folder(folder / "model", **options))
            content, _ = bundle_content(model, half=False, check_images=folder / "images")
            (folder / "model.lightm").write_bytes(content)
            made[kind] = folder / "model.lightm", files
        return made[kind]

    return make


@pytest.fixture(scope="session")
def engines() -> dict[str, bytes]:
    """The compiled engine, both modules; it takes a minute or two where the cache has none."""
    pytest.importorskip("ziglang", reason="ziglang is not installed: pip install '.[web]'")
    from nnunetv2_lightm.deploy.web.engine import web_engines

    return web_engines()


@pytest.fixture(scope="session")
def page_of(bundle_of, engines, tmp_path_factory):
    """Writes the page of one of MODELS."""
    folder, made = tmp_path_factory.mktemp("pages"), {}

    def make(kind: str) -> Path:
        if kind not in made:
            made[kind] = folder / f"{kind}.html"
            write_page(bundle_of(kind)[0].read_bytes(), engines, made[kind])
        return made[kind]

    return make


@pytest.fixture
def natively(bundle_of):
    """Labels of the engine for this machine, (z, y, x)."""
    runtime = pytest.importorskip("lightm_runtime", reason="lightm-runtime is not installed: pip install ./runtime")
    return lambda kind, files: runtime.segment(runtime.load(bundle_of(kind)[0]), files).labels


def natively_in_file(natively, path: Path) -> np.ndarray:
    """Labels of the volume in the file's own axes: the engine's come turned."""
    model_labels = natively("volume", [path])
    image = sitk.ReadImage(str(path))
    labels = sitk.GetImageFromArray(model_labels)
    labels.CopyInformation(sitk.DICOMOrient(image, "RAS"))
    code = sitk.DICOMOrientImageFilter_GetOrientationFromDirectionCosines(image.GetDirection())
    return sitk.GetArrayFromImage(sitk.DICOMOrient(labels, code))


def assert_same(found: Path, expected: np.ndarray) -> None:
    labels = sitk.GetArrayFromImage(sitk.ReadImage(str(found)))
    assert labels.reshape(expected.shape).shape == expected.shape
    assert (labels.reshape(expected.shape) == expected).mean() > 0.999
    assert len(np.unique(labels)) > 1


@pytest.fixture(scope="session")
def chromium():
    """A browser without a window."""
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed: pip install '.[test]'")
    found = next(filter(None, map(shutil.which, BROWSERS)), None)
    if found is None:
        pytest.skip(f"no {' or '.join(BROWSERS)} is installed (Debian, Ubuntu: apt install chromium)")
    with playwright.sync_playwright() as driver:
        # Without its sandbox, which containers lack: it opens nothing but the pages of these tests.
        browser = driver.chromium.launch(executable_path=found, args=["--no-sandbox"])
        yield browser
        browser.close()
