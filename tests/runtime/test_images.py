"""The channels of a case: where they lie, and how they are turned."""

from __future__ import annotations

import json

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk
import tifffile
from lightm_runtime import ImageError
from lightm_runtime.images import read_case
from lightm_runtime.output import write_labels
from nnunetv2.imageio.nibabel_reader_writer import NibabelIO, NibabelIOWithReorient
from nnunetv2.imageio.simpleitk_reader_writer import SimpleITKIO, SimpleITKIOWithReorient
from nnunetv2.imageio.tif_reader_writer import Tiff3DIO

RNG = np.random.default_rng(0)


@pytest.fixture
def channels(tmp_path):
    """Two channels of an image that lies otherwise than RAS, with an edge of each length."""
    images = []
    for number in range(2):
        image = sitk.DICOMOrient(sitk.GetImageFromArray(RNG.normal(size=(5, 6, 7)).astype(np.float32)), "PIL")
        image.SetSpacing((1.0, 2.0, 3.0))
        image.SetOrigin((-11.0, 7.0, 31.0))
        images.append(image)
        sitk.WriteImage(image, str(tmp_path / f"case_{number:04d}.nii.gz"))
    return images


@pytest.mark.parametrize("reader", ["SimpleITKIO", "SimpleITKIOWithReorient", "NibabelIOWithReorient"])
def test_one_file_of_all_channels_is_turned_as_one_of_each(reader, channels, tmp_path):
    series, vectors = tmp_path / "series.nii.gz", tmp_path / "vectors.nrrd"
    sitk.WriteImage(sitk.JoinSeries(channels), str(series))
    sitk.WriteImage(sitk.Compose(channels), str(vectors))
    apart = sorted(tmp_path.glob("case_*"))
    expected = read_case(apart, ["a", "b"], reader)
    labels = (expected.voxels[0] > 0).astype(np.uint8)
    write_labels(labels, expected, tmp_path / "expected.nrrd")
    for path in (series, vectors):
        case = read_case([path], ["a", "b"], reader)
        np.testing.assert_array_equal(case.voxels, expected.voxels)
        assert case.orientation == expected.orientation
        for what in ("spacing", "origin", "direction"):
            np.testing.assert_allclose(
                getattr(case.geometry, what), getattr(expected.geometry, what), atol=1e-5, err_msg=what
            )
        write_labels(labels, case, tmp_path / "labels.nrrd")
        found, wanted = (sitk.ReadImage(str(tmp_path / name)) for name in ("labels.nrrd", "expected.nrrd"))
        np.testing.assert_array_equal(sitk.GetArrayFromImage(found), sitk.GetArrayFromImage(wanted))


def test_channels_that_lie_apart_or_have_other_sizes(channels, tmp_path):
    def refused(changed, what) -> None:
        sitk.WriteImage(changed, str(tmp_path / "changed.nrrd"))
        with pytest.raises(ImageError, match=f"differ in {what}"):
            read_case([tmp_path / "case_0000.nii.gz", tmp_path / "changed.nrrd"], ["a", "b"], "SimpleITKIO")

    # One voxel more is little compared with a tolerance in mm, and is another size.
    wide = sitk.GetImageFromArray(np.zeros((5, 6, 5), np.float32))
    wide.SetSpacing((2000.0,) * 3)
    sitk.WriteImage(wide, str(tmp_path / "case_0000.nii.gz"))
    wider = sitk.GetImageFromArray(np.zeros((5, 6, 6), np.float32))
    wider.SetSpacing((2000.0,) * 3)
    refused(wider, "size")
    turned = sitk.Image(wide)
    turned.SetDirection((0.0, 1.0, 0.0, 1.0, 0.0, 0.0, 0.0, 0.0, 1.0))
    refused(turned, "direction")


def write_tiff(folder, names=("case_0000.tif",), spacing=(2.5, 0.8, 0.5), json_name="case.json"):
    for name in names:
        tifffile.imwrite(folder / name, RNG.integers(0, 200, (6, 9, 11)).astype(np.uint16), resolution=(5, 5))
    if json_name:
        (folder / json_name).write_text(json.dumps({"spacing": spacing, "made by": "a microscope"}))
    return [folder / name for name in names]


def test_tiff_volumes_are_read_as_by_nnunet(tmp_path):
    files = write_tiff(tmp_path, ("case_0000.tif", "case_0001.tif"))
    expected, properties = Tiff3DIO().read_images(list(map(str, files)))
    case = read_case(files, ["a", "b"], "Tiff3DIO")
    np.testing.assert_array_equal(case.voxels, expected)
    assert case.spacing_mm == tuple(properties["spacing"])
    assert case.note is None


def test_the_spacing_of_tiff_volumes_goes_into_volumes_and_labels(tmp_path):
    case = read_case(write_tiff(tmp_path), ["a"], "Tiff3DIO")
    assert case.voxel_ml == pytest.approx(2.5 * 0.8 * 0.5 / 1000)
    labels = RNG.integers(0, 3, (6, 9, 11)).astype(np.uint8)
    write_labels(labels, case, tmp_path / "labels.nii.gz")
    assert sitk.ReadImage(str(tmp_path / "labels.nii.gz")).GetSpacing() == pytest.approx((0.5, 0.8, 2.5))
    write_labels(labels, case, tmp_path / "labels.tif")
    found, properties = Tiff3DIO().read_seg(str(tmp_path / "labels.tif"))
    np.testing.assert_array_equal(found[0], labels)
    assert properties["spacing"] == [2.5, 0.8, 0.5]


def test_the_images_own_spacing_file_stays_as_it_is(tmp_path):
    case = read_case(write_tiff(tmp_path), ["a"], "Tiff3DIO")
    before = (tmp_path / "case.json").read_bytes()
    write_labels(np.ones((6, 9, 11), np.uint8), case, tmp_path / "case.tif")
    assert (tmp_path / "case.json").read_bytes() == before


@pytest.mark.parametrize("name", ["plain.tif", "plain.tiff", "lung_1001.tif", "ab.tif"])
def test_the_spacing_file_of_a_name_without_a_channel(name, tmp_path):
    stem = name.partition(".")[0]
    (file,) = write_tiff(tmp_path, (name,), json_name=f"{stem}.json")
    assert read_case([file], ["a"], "Tiff3DIO").spacing_mm == (2.5, 0.8, 0.5)


def test_a_spacing_that_is_not_there_is_said(tmp_path):
    case = read_case(write_tiff(tmp_path, json_name=None), ["a"], "Tiff3DIO")
    assert case.spacing_mm == (1.0, 1.0, 1.0) and case.geometry.spacing == (1.0, 1.0, 1.0)
    assert "case_0000.tif" in case.note and "1 mm" in case.note and str(tmp_path / "case.json") in case.note


VOLUME_READERS = ("SimpleITKIO", "SimpleITKIOWithReorient", "NibabelIO", "NibabelIOWithReorient")


@pytest.mark.parametrize("reader", VOLUME_READERS)
def test_a_tiff_volume_has_its_spacing_whatever_the_model_was_trained_on(reader, tmp_path):
    files = write_tiff(tmp_path, ("case_0000.tif", "case_0001.tiff"))
    case = read_case(files, ["a", "b"], reader)
    assert case.spacing_mm == (2.5, 0.8, 0.5) and case.note is None
    assert case.voxel_ml == pytest.approx(2.5 * 0.8 * 0.5 / 1000)
    (tmp_path / "case.json").unlink()
    case = read_case(files, ["a", "b"], reader)
    assert case.spacing_mm == (1.0, 1.0, 1.0) and "case_0000.tif: its voxels are taken for 1 mm" in case.note
    sitk.WriteImage(sitk.ReadImage(str(files[0])), str(tmp_path / "case.nii.gz"))
    assert read_case([tmp_path / "case.nii.gz"], ["a"], reader).note is None


@pytest.mark.parametrize("unit, mm", [("micron", 0.001), ("mm", 1.0), ("meter", 1000.0), ("unknown", 1.0)])
@pytest.mark.parametrize("reader", [NibabelIO, NibabelIOWithReorient, SimpleITKIO], ids=lambda reader: reader.__name__)
def test_the_unit_of_a_nifti_header_counts_where_nnunets_reader_minds_it(reader, unit, mm, tmp_path):
    """Of what the network sees; a millilitre is one for every reader."""
    turned = np.array([[0, -0.7, 0, 3], [0, 0, 0.8, 4], [-1.3, 0, 0, 5], [0, 0, 0, 1.0]])
    image = nib.Nifti1Image(RNG.normal(size=(6, 7, 8)).astype(np.float32), turned)
    image.header.set_xyzt_units(unit, "sec")
    nib.save(image, tmp_path / "a.nii.gz")
    expected = reader().read_images([str(tmp_path / "a.nii.gz")])[1]["spacing"]
    case = read_case([tmp_path / "a.nii.gz"], ["a"], reader.__name__)
    assert case.spacing_mm == pytest.approx(expected)
    assert case.voxel_ml == pytest.approx(0.7 * 0.8 * 1.3 * mm**3 / 1000)


ALONG, TURNED = (
    np.diag([-0.7, 0.8, 1.3, 1.0]),
    np.array([[0, 0.8, 0, 0], [0.7, 0, 0, 0], [0, 0, 1.3, 0], [0, 0, 0, 1.0]]),
)
MIRRORED = np.diag([0.7, 0.8, 1.3, 1.0])
TILTED = ALONG.copy()
TILTED[:2, :2] = np.array([[0.9, -0.436], [0.436, 0.9]]) @ ALONG[:2, :2]
# Matrix and code of the qform, of the sform; changes of pixdim; whether nibabel and SimpleITK see the same orientation.
FORMS = {
    "both": (ALONG, 1, ALONG, 1, 1, True),
    "the same nearest axes": (ALONG, 1, TILTED, 2, 1, True),
    "qform alone": (ALONG, 1, MIRRORED, 0, 1, True),
    "sform alone": (ALONG, 0, MIRRORED, 4, 1, True),
    "mirrored": (ALONG, 1, MIRRORED, 2, 1, False),
    "mirrored, sform of the scanner": (ALONG, 1, MIRRORED, 1, 1, False),
    "turned": (ALONG, 2, TURNED, 4, 1, False),
    "negative pixels": (ALONG, 0, ALONG, 1, -1, None),
    "neither": (ALONG, 0, ALONG, 0, 1, None),
}


def write_forms(path, qform, qform_code, sform, sform_code, sign, *_):
    """A volume, to the byte: nibabel would make its forms agree."""
    voxels = np.random.default_rng(1).normal(size=(6, 7, 8)).astype(np.float32)
    header = nib.Nifti1Header()
    header.set_data_shape(voxels.shape)
    header.set_data_dtype(np.float32)
    header.set_qform(qform, 1)
    header.set_sform(sform, 1)
    header["qform_code"], header["sform_code"] = qform_code, sform_code
    header["pixdim"][1] *= sign
    header["qoffset_x"] = header["srow_x"][3] = -30.0  # else SimpleITK takes mirrored forms for the same
    header["magic"], header["vox_offset"] = b"n+1", 352
    path.write_bytes(header.binaryblock + bytes(4) + voxels.tobytes("F"))
    return path


@pytest.mark.parametrize("name", FORMS)
def test_the_orientation_is_that_which_nnunets_reader_saw(name, tmp_path):
    """nnU-Net reads by nibabel, which prefers the sform, the runtime by SimpleITK: where they differ, it refuses."""
    path, same = write_forms(tmp_path / "a.nii", *FORMS[name]), FORMS[name][-1]
    expected = NibabelIOWithReorient().read_images([str(path)])[0]
    if same:
        case = read_case([path], ["a"], "NibabelIOWithReorient")
        np.testing.assert_array_equal(case.voxels, expected)
    else:
        said = (
            "two ways, qform and sform, that contradict" if same is False else "negative size|does not say how it lies"
        )
        with pytest.raises(ImageError, match=f"a.nii: its header .*({said})"):
            read_case([path], ["a"], "NibabelIOWithReorient")
    if same is not False:  # no axis is turned, and labels lie where nnU-Net puts them, or nobody knows
        np.testing.assert_array_equal(
            read_case([path], ["a"], "NibabelIO").voxels, NibabelIO().read_images([str(path)])[0]
        )
    else:
        with pytest.raises(ImageError, match="contradict"):
            read_case([path], ["a"], "NibabelIO")
    for reader in (SimpleITKIO, SimpleITKIOWithReorient):
        np.testing.assert_array_equal(
            read_case([path], ["a"], reader.__name__).voxels, reader().read_images([str(path)])[0]
        )


def test_forms_of_channels_along_a_fourth_axis_are_compared(tmp_path):
    image = nib.Nifti1Image(RNG.normal(size=(6, 7, 8, 2)).astype(np.float32), ALONG)
    image.set_qform(ALONG, 1)
    nib.save(image, tmp_path / "a.nii.gz")
    assert len(read_case([tmp_path / "a.nii.gz"], ["a", "b"], "NibabelIOWithReorient").voxels) == 2
    image.set_qform(MIRRORED, 1)
    nib.save(image, tmp_path / "b.nii.gz")
    with pytest.raises(ImageError, match="contradict"):
        read_case([tmp_path / "b.nii.gz"], ["a", "b"], "NibabelIOWithReorient")


def test_keys_of_a_nifti_header_in_another_format_are_not_its_place(tmp_path):
    """SimpleITK keeps them when it converts, and the file lies as it says itself."""
    image = sitk.ReadImage(str(write_forms(tmp_path / "a.nii", *FORMS["mirrored"])))
    sitk.WriteImage(image, str(tmp_path / "a.nrrd"))
    assert read_case([tmp_path / "a.nrrd"], ["a"], "NibabelIOWithReorient").orientation


def test_an_image_whose_axes_are_not_at_right_angles(tmp_path):
    """SimpleITK does not read it; it is whole."""
    affine = np.eye(4)
    affine[0, 1] = 0.05
    nib.save(nib.Nifti1Image(RNG.normal(size=(6, 7, 8)).astype(np.float32), affine), tmp_path / "a.nii.gz")
    for reader in VOLUME_READERS:
        with pytest.raises(ImageError, match="a.nii.gz: its header .* not at right angles: resample it") as caught:
            read_case([tmp_path / "a.nii.gz"], ["a"], reader)
        assert "damaged" not in str(caught.value)


HUGE = int("9" * 400)  # which no float holds


@pytest.mark.parametrize(
    "spacing", [[1.0, 2.0], [1.0, 2.0, 0.0], [1.0, 2.0, float("nan")], [1.0, 2.0, HUGE], "large", None]
)
def test_a_spacing_that_is_none_is_refused(spacing, tmp_path):
    files = write_tiff(tmp_path, spacing=spacing)
    with pytest.raises(ImageError, match="case.json: .*spacing.*three"):
        read_case(files, ["a"], "Tiff3DIO")
