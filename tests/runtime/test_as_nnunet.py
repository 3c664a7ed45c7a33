"""The engine's labels are those of nnU-Net's own prediction with the same model and image files."""

from __future__ import annotations

import pytest
from lightm_runtime import cli, load, segment

from nnunetv2_lightm.deploy.bundle import write_bundle
from nnunetv2_lightm.deploy.model_folder import read_model_folder

from ..model_folders import OWN_THRESHOLD, REGIONS, write_model_folder
from ..prediction import assert_same_segmentation, predicted_by_nnunet, write_images

# A model of each kind, and images that go through each step: resampled up and down, separate z in the image or the
# model, cropped, padded, several tiles, a thin axis, transposed, masks, regions, channels, folds.
# nnU-Net mirrors all axes where not said otherwise, which takes eight times as long.
ALL = {"mirroring_axes": None}
NATURAL = {"configuration": "2d", "spacing": (1.0, 1.0), "reader": "NaturalImage2DIO", "file_ending": ".png"}
SLICES = {"configuration": "2d", "patch_size": (32, 40), "spacing": (0.9, 1.1)}
THICK = {"patch_size": (8, 16, 16), "spacing": (4.0, 0.9, 0.9)}
STRIDES = [[1, 1, 1], [1, 2, 2], [2, 2, 2], [1, 2, 2]]
MODELS = {
    "plain": (ALL, {}),
    "several tiles": ({}, {"shape": (20, 28, 30)}),
    "smaller than the patch": ({}, {"shape": (5, 20, 13)}),
    "resampled": ({"spacing": (1.4, 0.8, 1.1)}, {"shape": (16, 18, 21), "spacing": (1.0, 1.2, 0.9)}),
    "thick slices": ({**THICK, "strides": STRIDES}, {"shape": (12, 24, 26), "spacing": (5.0, 0.7, 0.8)}),
    "thick slices across": ({**THICK, "transpose": (2, 0, 1)}, {"shape": (24, 26, 12), "spacing": (0.7, 0.8, 5.0)}),
    "thick slices by the plans' own threshold": (
        {**THICK, "spacing": (1.6, 0.9, 0.9), "settings": OWN_THRESHOLD},
        {"shape": (12, 24, 26), "spacing": (2.0, 0.7, 0.8)},
    ),
    "cropped": ({}, {"shape": (22, 28, 26), "margin": 4}),
    "cropped, masked": ({"use_mask": True, "spacing": (1.2, 1.2, 1.2)}, {"shape": (22, 28, 26), "margin": 4}),
    "CT": ({"schemes": ("CTNormalization",)}, {}),
    "two channels": ({"schemes": ("ZScoreNormalization", "RescaleTo01Normalization")}, {}),
    "regions": ({"labels": REGIONS, "regions_class_order": (1, 2, 3)}, {}),
    "five folds": ({"folds": (0, 1, 2, 3, 4)}, {}),
    "no mirroring": ({"mirroring_axes": ()}, {}),
    "odd patch": ({"patch_size": (9, 15, 13), "mirroring_axes": (1,)}, {}),
    "2D, of slices": (SLICES, {"shape": (4, 50, 40), "spacing": (3.5, 0.8, 1.0)}),
    "2D, of slices, transposed": (
        {**SLICES, "transpose": (1, 2, 0)},
        {"shape": (50, 4, 40), "spacing": (0.8, 3.5, 1.0)},
    ),
    "2D": ({**SLICES, **ALL}, {"shape": (75, 60), "spacing": (0.9, 1.2)}),
    "2D, natural": ({**NATURAL, "patch_size": (48, 48)}, {"shape": (75, 60), "ending": ".png"}),
    "2D, RGB": (
        {**NATURAL, "patch_size": (48, 48), "schemes": ("RGBTo01Normalization",) * 3},
        {"shape": (75, 60), "ending": ".png", "rgb": True},
    ),
    "TIFF volumes": ({"reader": "Tiff3DIO", "file_ending": ".tif"}, {"ending": ".tif"}),
    "turned by the reader": ({"reader": "SimpleITKIOWithReorient"}, {"orientation": "PIR"}),
    "nibabel": ({"reader": "NibabelIO"}, {"orientation": "PIR", "spacing": (1.3, 1.0, 0.8)}),
    "turned by nibabel": ({"reader": "NibabelIOWithReorient"}, {"orientation": "PIR", "spacing": (1.3, 1.0, 0.8)}),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", MODELS)
def test_labels_are_nnunets(name, tmp_path):
    options, image = MODELS[name]
    folder = write_model_folder(tmp_path / "model", **{"patch_size": (8, 16, 16), "mirroring_axes": (0,), **options})
    files = write_images(tmp_path / "images", len(options.get("schemes", "1")), **image)
    folds = [str(fold) for fold in options.get("folds", (0,))]
    bundle = tmp_path / "model.lightm"
    write_bundle(read_model_folder(folder, folds), bundle, half=False, check_images=tmp_path / "images")
    expected = predicted_by_nnunet(folder, folds, files, tmp_path)
    found = tmp_path / f"engine{options.get('file_ending', '.nii.gz')}"
    segment(load(bundle), files, threads=1).write(found)
    assert_same_segmentation(found, expected)


@pytest.mark.slow
def test_labels_without_mirroring_are_nnunets_without_it(tmp_path):
    folder = write_model_folder(tmp_path / "model", patch_size=(8, 16, 16))
    files = write_images(tmp_path / "images", 1)
    bundle, found = tmp_path / "model.lightm", tmp_path / "engine.nii.gz"
    write_bundle(read_model_folder(folder), bundle, half=False, check_images=tmp_path / "images")
    command = ["segment", bundle, *files, "-o", found, "--no-mirroring", "--threads", 1]
    assert cli.main(list(map(str, command))) == 0
    assert_same_segmentation(found, predicted_by_nnunet(folder, ["0"], files, tmp_path, mirroring=False))
    with pytest.raises(AssertionError):
        assert_same_segmentation(found, predicted_by_nnunet(folder, ["0"], files, tmp_path))
