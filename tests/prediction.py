"""Images, nnU-Net's prediction of them in this process, and the comparison of two segmentations."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
import torch
from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor
from scipy.ndimage import gaussian_filter

EQUAL_VOXELS, DICE = 0.999, 0.999


def write_images(
    folder: Path,
    channels: int,
    *,
    shape=(12, 20, 18),
    spacing=None,
    margin=0,
    ending=".nii.gz",
    rgb=False,
    orientation="LPS",
):
    """Smooth noise, 0 around it where there is a margin; a file for each channel."""
    folder.mkdir(exist_ok=True)
    rng = np.random.default_rng(0)
    files = []
    for channel in range(1 if rgb else channels):
        image = gaussian_filter(rng.normal(size=(*shape, 3) if rgb else shape), 2 if not rgb else (2, 2, 0))
        image = (120 + 45 * image / image.std()).clip(1, 255)
        if margin:
            inside = np.zeros(shape, bool)
            inside[tuple(slice(margin, size - margin // 2) for size in shape)] = True
            inside[tuple(slice(size // 2 - 2, size // 2 + 2) for size in shape)] = False  # a hole
            image *= inside
        itk = sitk.GetImageFromArray(image.astype(np.uint8 if ending == ".png" else np.float32), isVector=rgb)
        if spacing:
            itk.SetSpacing(spacing[::-1])
        if len(shape) == 3:
            itk.SetOrigin((-11.0, 7.0, 31.0))
            itk = sitk.DICOMOrient(itk, orientation)
        files.append(folder / f"case_{channel:04d}{ending}")
        sitk.WriteImage(itk, str(files[-1]))
    return files


def predicted_by_nnunet(
    model: Path, folds: Sequence[str], files: Sequence[Path], out: Path, *, mirroring: bool = True
) -> Path:
    """The file that nnU-Net writes.

    It adds up tiles in float16, which decides where logits lie as close together as those of drawn weights do; here it
    adds in float32. A trained model is compared with nnU-Net as it is, in test_trained_model.py.
    """
    predictor = nnUNetPredictor(device=torch.device("cpu"), allow_tqdm=False, use_mirroring=mirroring)
    predictor.initialize_from_trained_model_folder(str(model), folds)
    reader = predictor.plans_manager.image_reader_writer_class()
    image, properties = reader.read_images([str(file) for file in files])
    ending = predictor.dataset_json["file_ending"]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch, "half", torch.float32)
        predictor.predict_single_npy_array(image, properties, None, str(out / "nnunet"))
    return out / f"nnunet{ending}"


def assert_same_segmentation(found: Path, expected: Path, dice: float = DICE) -> None:
    """The same geometry and type, and labels within the project's promise."""
    assert_same_segmentations([(found, expected)], dice)


def assert_same_segmentations(pairs: Sequence[tuple[Path, Path]], dice: float = DICE) -> None:
    """As :func:`assert_same_segmentation`, of all voxels together."""
    voxels: list[list[np.ndarray]] = [[], []]
    for pair in pairs:
        a, b = (sitk.ReadImage(str(path)) for path in pair)
        for what in ("Size", "Spacing", "Origin", "Direction", "PixelID"):
            np.testing.assert_allclose(getattr(a, f"Get{what}")(), getattr(b, f"Get{what}")(), atol=1e-5, err_msg=what)
        for image, of in zip((a, b), voxels, strict=True):
            of.append(sitk.GetArrayFromImage(image).ravel())
    a, b = map(np.concatenate, voxels)
    assert len(np.unique(b)) > 1, "else the test compares nothing"
    assert (a == b).mean() >= EQUAL_VOXELS
    for label in np.unique(b):
        found = 2 * ((a == label) & (b == label)).sum() / ((a == label).sum() + (b == label).sum())
        assert found >= dice, f"label {label}: DSC {found:.5f}"
