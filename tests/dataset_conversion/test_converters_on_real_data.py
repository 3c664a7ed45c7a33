"""The converters on real images; skipped without NNUNETV2_LIGHTM_DATA."""

from __future__ import annotations

import numpy as np
import pytest
import SimpleITK as sitk
from PIL import Image

from nnunetv2_lightm.dataset_conversion._convert import ConversionOptions
from nnunetv2_lightm.dataset_conversion.Dataset801_LiTS import convert_lits
from nnunetv2_lightm.dataset_conversion.Dataset802_MontgomeryShenzhen import convert_montgomery_shenzhen


@pytest.fixture
def need(real_data):
    def need(name: str):
        if not (real_data / name).is_dir():
            pytest.skip(f"NNUNETV2_LIGHTM_DATA has no {name}")
        return real_data / name

    return need


def pixels(file) -> np.ndarray:
    return np.asarray(Image.open(file))


def test_kaggle_layout(need, folders):
    source = need("chest_xray_512_subset")
    report = convert_montgomery_shenzhen(source, ConversionOptions(workers=1))
    assert not report.with_status("refused")
    assert all("thresholded at 128" in case.repairs[0] for case in report.with_status("repaired"))
    for case in report.cases:
        part = "Ts" if case.part == "test" else "Tr"
        image_file, mask_file = (source / file for file in case.files)
        stored_image = report.raw_folder / f"images{part}" / f"{case.case}_0000.png"
        assert np.array_equal(pixels(stored_image), pixels(image_file))
        assert np.array_equal(pixels(report.raw_folder / f"labels{part}" / f"{case.case}.png"), pixels(mask_file) > 127)
    for source_name in ("MCU", "CHN"):
        assert all(any(case.startswith(source_name) for case in cases) for cases in report.split.values())


def test_nlm_layout(need, folders):
    source = need("montgomery_nlm_layout")
    report = convert_montgomery_shenzhen(source, ConversionOptions(workers=1, split=None))
    assert len(report.with_status("refused")) == 0
    for case in report.cases:
        halves = [pixels(source / file) > 127 for file in case.files[1:]]
        assert len(halves) == 2
        stored = pixels(report.raw_folder / "labelsTr" / f"{case.case}.png")
        assert np.array_equal(stored, halves[0] | halves[1])
        assert 0.05 < stored.mean() < 0.6


def test_a_real_ct_survives(need, folders, tmp_path):
    folder = need("totalsegmentator_example")
    image, organs = (sitk.ReadImage(str(folder / f"example_{name}.nii.gz")) for name in ("ct_sm", "seg"))
    source = tmp_path / "source"
    source.mkdir()
    sitk.WriteImage(image, str(source / "volume-0.nii"))
    sitk.WriteImage(sitk.Cast(organs == 5, sitk.sitkFloat32), str(source / "segmentation-0.nii"))
    report = convert_lits(source, ConversionOptions(split=None, workers=1))
    assert [case.status for case in report.cases] == ["repaired"]
    stored = sitk.ReadImage(str(report.raw_folder / "imagesTr/LiTS_000_0000.nii.gz"))
    label = sitk.ReadImage(str(report.raw_folder / "labelsTr/LiTS_000.nii.gz"))
    assert np.array_equal(sitk.GetArrayFromImage(stored), sitk.GetArrayFromImage(image))
    assert np.array_equal(sitk.GetArrayFromImage(label), sitk.GetArrayFromImage(organs) == 5)
    for geometry in ("GetSpacing", "GetOrigin", "GetDirection"):
        assert getattr(stored, geometry)() == pytest.approx(getattr(image, geometry)(), abs=1e-5)
        assert getattr(label, geometry)() == getattr(stored, geometry)()


def test_a_real_ct_resized_keeps_its_liver(need, folders, tmp_path):
    folder = need("totalsegmentator_example")
    image, organs = (sitk.ReadImage(str(folder / f"example_{name}.nii.gz")) for name in ("ct_sm", "seg"))
    liver = sitk.Cast(organs == 5, sitk.sitkUInt8)
    source = tmp_path / "source"
    source.mkdir()
    sitk.WriteImage(image, str(source / "volume-0.nii.gz"))
    sitk.WriteImage(liver, str(source / "segmentation-0.nii.gz"))
    report = convert_lits(source, ConversionOptions(split=None, workers=1, resize=(64, 64, 64)))
    label = sitk.ReadImage(str(report.raw_folder / "labelsTr/LiTS_000.nii.gz"))
    assert label.GetSize() == (64, 64, 64)

    def volume_and_centre_mm(mask: sitk.Image):
        shape = sitk.LabelShapeStatisticsImageFilter()
        shape.Execute(mask)
        return shape.GetPhysicalSize(1), np.array(shape.GetCentroid(1))

    (before, centre_before), (after, centre_after) = map(volume_and_centre_mm, (liver, label))
    assert after == pytest.approx(before, rel=0.02)
    assert np.linalg.norm(centre_after - centre_before) < 1
