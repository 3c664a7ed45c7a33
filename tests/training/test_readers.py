"""Every reader of nnU-Net, with one to four input channels: from the raw files to the validation's segmentations."""

from __future__ import annotations

import numpy as np
import pytest
import SimpleITK as sitk
import torch

pytestmark = pytest.mark.slow

FLAT, CUBE = (24, 16), (12, 16, 16)


@pytest.mark.parametrize(
    ("number", "reader", "file_ending", "shape", "phantoms"),
    [
        (201, "NaturalImage2DIO", ".png", FLAT, {"channels": 1}),
        (202, "NaturalImage2DIO", ".png", FLAT, {"rgb": True}),
        (203, "NaturalImage2DIO", ".tif", FLAT, {"channels": 2}),
        (204, "NaturalImage2DIO", ".bmp", FLAT, {"channels": 4}),
        (205, "Tiff3DIO", ".tif", CUBE, {"channels": 3}),
        (206, "SimpleITKIO", ".nii.gz", CUBE, {"channels": 1}),
        (207, "SimpleITKIO", ".nrrd", CUBE, {"channels": 2}),
        (208, "SimpleITKIO", ".mha", CUBE, {"channels": 4}),
        (209, "NibabelIO", ".nii.gz", CUBE, {"channels": 2, "overwrite_image_reader_writer": "NibabelIO"}),
        (
            210,
            "NibabelIOWithReorient",
            ".nii.gz",
            CUBE,
            {"channels": 3, "overwrite_image_reader_writer": "NibabelIOWithReorient"},
        ),
    ],
)
def test_reader(nnunet, number, reader, file_ending, shape, phantoms):
    dataset = f"Dataset{number}_Read"
    configuration = "2d" if len(shape) == 2 else "3d_fullres"
    spacing = None if len(shape) == 2 else (2.0, 1.0, 1.5)
    nnunet.make_dataset(dataset, configuration, shape=shape, file_ending=file_ending, spacing=spacing, **phantoms)
    assert nnunet.plans(dataset)["image_reader_writer"] == reader
    fold = nnunet.train(dataset, configuration)

    network = torch.load(fold / "checkpoint_final.pth", weights_only=False)["network_weights"]
    channels = 3 if "rgb" in phantoms else phantoms["channels"]
    assert network["stem.pointwise.weight"].shape == (32, channels)
    prediction = sitk.ReadImage(str(fold / "validation" / f"case_2{file_ending}"))
    label = sitk.ReadImage(str(nnunet.root / "nnUNet_raw" / dataset / "labelsTr" / f"case_2{file_ending}"))
    assert prediction.GetSize() == label.GetSize()
    assert set(np.unique(sitk.GetArrayViewFromImage(prediction))) <= {0, 1, 2}
    if len(shape) == 3 and reader != "Tiff3DIO":  # nnU-Net keeps the spacing of a TIFF in a file next to it
        np.testing.assert_allclose(prediction.GetSpacing(), label.GetSpacing())
        np.testing.assert_allclose(prediction.GetOrigin(), label.GetOrigin())
        np.testing.assert_allclose(prediction.GetDirection(), label.GetDirection())
