"""A raw data set with its fingerprint, without a single image: all that planning reads."""

from __future__ import annotations

import json
from pathlib import Path

import pytest


@pytest.fixture
def folders(tmp_path, monkeypatch) -> Path:
    """nnU-Net's three folders, which it looks up whenever it needs them."""
    for name in ("nnUNet_raw", "nnUNet_preprocessed", "nnUNet_results"):
        (tmp_path / name).mkdir()
        monkeypatch.setenv(name, str(tmp_path / name))
    return tmp_path


@pytest.fixture
def make_dataset(folders):
    """Makes a data set of equal cases: spacing in mm, shape in voxels, both (z, y, x). Returns its name.

    ``cases`` are announced, two have files and a line in the fingerprint.
    """

    def make(spacing, shape, *, name="Dataset005_Made", cases=20, channels=1, classes=3) -> str:
        raw, preprocessed = folders / "nnUNet_raw" / name, folders / "nnUNet_preprocessed" / name
        for folder in (raw / "imagesTr", raw / "labelsTr", preprocessed):
            folder.mkdir(parents=True)
        for case in range(2):
            for channel in range(channels):
                (raw / "imagesTr" / f"case{case}_{channel:04d}.nii.gz").touch()
            (raw / "labelsTr" / f"case{case}.nii.gz").touch()
        dataset = {
            "channel_names": {str(channel): "CT" for channel in range(channels)},
            "labels": {"background": 0, **{f"class {value}": value for value in range(1, classes)}},
            "numTraining": cases,
            "file_ending": ".nii.gz",
            "overwrite_image_reader_writer": "SimpleITKIO",
        }
        keys = ("mean", "median", "std", "min", "max", "percentile_99_5", "percentile_00_5")
        fingerprint = {
            "spacings": [list(spacing)] * 2,
            "shapes_after_crop": [list(shape)] * 2,
            "median_relative_size_after_cropping": 1.0,
            "foreground_intensity_properties_per_channel": {
                str(channel): dict.fromkeys(keys, 1.0) for channel in range(channels)
            },
        }
        (raw / "dataset.json").write_text(json.dumps(dataset))
        (preprocessed / "dataset_fingerprint.json").write_text(json.dumps(fingerprint))
        return name

    return make
