"""Small phantoms in nnU-Net's raw format: boxes in boxes, brighter with each label, noise all around."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import SimpleITK as sitk

MakeLabel = Callable[[np.random.Generator, Sequence[int]], np.ndarray]
Annotate = Callable[[np.random.Generator, np.ndarray], np.ndarray]
LABELS = {"background": 0, "organ": 1, "lesion": 2}
CHANNEL_NAMES = ("CT", "T1", "noNorm", "rescale_0_1")  # nnU-Net chooses the normalisation by these


def write_raw_dataset(
    folder: Path,
    *,
    shape: Sequence[int] = (16, 16, 16),
    spacing: Sequence[float] | None = None,
    num_cases: int = 3,
    channels: int = 1,
    rgb: bool = False,
    labels: dict = LABELS,
    make_label: MakeLabel | None = None,
    annotate: Annotate = lambda rng, label: label,
    file_ending: str = ".nii.gz",
    **dataset_json: object,
) -> None:
    """Write a raw data set.

    Args:
        folder: As nnU-Net names it, DatasetXXX_Name.
        shape: Voxels of a case, ([z,] y, x).
        spacing: Voxel size, in the same order; None: 1.
        num_cases: The last one is for validation, in the only fold.
        channels: Input channels, a file for each.
        rgb: One file with three channels.
        labels: As in dataset.json.
        make_label: The true label map, from a shape; by default boxes in boxes, labels 1 and 2.
        annotate: What the annotator made of it.
        file_ending: Any that SimpleITK can write.
        dataset_json: Further entries of dataset.json.
    """
    (folder / "imagesTr").mkdir(parents=True)
    (folder / "labelsTr").mkdir()
    spacing = [float(s) for s in spacing or (1.0,) * len(shape)]
    for number in range(num_cases):
        rng = np.random.default_rng(number)
        label = (make_label or boxes_in_boxes)(rng, shape).astype(np.uint8)
        gray = np.linspace(40, 220, max(3, label.max() + 1))[label]
        case = f"case_{number}"
        images = [gray + rng.normal(0, 8, shape) for _ in range(3 if rgb else channels)]
        images = [image.clip(0, 255).astype(np.uint8) for image in images]
        for channel, image in enumerate([np.stack(images, axis=-1)] if rgb else images):
            _write(image, folder / "imagesTr" / f"{case}_{channel:04d}{file_ending}", spacing, rgb)
        _write(annotate(rng, label).astype(np.uint8), folder / "labelsTr" / f"{case}{file_ending}", spacing)
        if file_ending == ".tif":  # nnU-Net's companion of 3D TIFFs
            for name in ("imagesTr", "labelsTr"):
                (folder / name / f"{case}.json").write_text(json.dumps({"spacing": spacing}))
    names = CHANNEL_NAMES[: 3 if rgb else channels]
    content = {
        "channel_names": {str(i): name for i, name in enumerate(names)},
        "labels": labels,
        "numTraining": num_cases,
        "file_ending": file_ending,
        **dataset_json,
    }
    (folder / "dataset.json").write_text(json.dumps(content))
    cases = [f"case_{number}" for number in range(num_cases)]
    (folder / "splits_final.json").write_text(json.dumps([{"train": cases[:-1], "val": cases[-1:]}]))


def boxes_in_boxes(rng: np.random.Generator, shape: Sequence[int]) -> np.ndarray:
    """A box of about half the size of the image along each axis, label 1, and one of half its size in it, label 2."""
    label = np.zeros(shape, int)
    start = [rng.integers(size // 8, size // 2 - size // 8 + 1) for size in shape]
    outer = [slice(a, a + max(3, size // 2)) for a, size in zip(start, shape)]
    inner = [slice(a + max(1, size // 8), a + max(1, size // 8) + max(1, size // 4)) for a, size in zip(start, shape)]
    label[tuple(outer)] = 1
    label[tuple(inner)] = 2
    return label


def _write(array: np.ndarray, path: Path, spacing: Sequence[float], is_vector: bool = False) -> None:
    image = sitk.GetImageFromArray(array, isVector=is_vector)
    image.SetSpacing(spacing[::-1])
    sitk.WriteImage(image, str(path))
