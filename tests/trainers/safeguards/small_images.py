"""Small images for the tests of files, and how they are spoiled."""

from __future__ import annotations

import nibabel
import numpy as np

from .conftest import SHAPE

AFFINE = np.diag([0.7, 0.7, 1.6, 1]) + np.eye(4, k=3)
MOVED = AFFINE + 25 * np.eye(4, k=3)
TILTED = AFFINE + 0.4 * np.eye(4, k=2) * [0, 0, 1, 0]


def image(seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=SHAPE[::-1]).astype(np.float32)


def save(path, values, affine=AFFINE) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    nibabel.save(nibabel.Nifti1Image(values, affine), path)


def with_nan(path) -> None:
    values = image()
    values[1, 2, 3] = np.nan
    save(path, values)
