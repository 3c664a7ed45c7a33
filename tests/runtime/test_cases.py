"""Which files are the channels of which case."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
from lightm_runtime import ImageError
from lightm_runtime.cases import UsageError, cases_of


def files(folder: Path, *names: str) -> list[Path]:
    folder.mkdir(parents=True, exist_ok=True)
    for name in names:
        (folder / name).write_text("not looked at")
    return [folder / name for name in names]


def named(cases: dict[str, list[Path]]) -> dict[str, list[str]]:
    return {name: [file.name for file in channels] for name, channels in cases.items()}


def test_channels_of_a_folder_in_nnunets_form(tmp_path):
    files(tmp_path, "b_0001.nii.gz", "a_0000.nii.gz", "b_0000.nii.gz", "a_0001.nii.gz", "notes.txt")
    assert named(cases_of([tmp_path], 2)) == {
        "a": ["a_0000.nii.gz", "a_0001.nii.gz"],
        "b": ["b_0000.nii.gz", "b_0001.nii.gz"],
    }


@pytest.mark.parametrize("channels", [1, 2])
def test_numbers_of_cases_are_no_channels(channels, tmp_path):
    """A number counts channels where the model has as many."""
    given = files(tmp_path, "lung_1001.nii.gz", "lung_1002.nii.gz")
    expected = {"lung_1001": ["lung_1001.nii.gz"], "lung_1002": ["lung_1002.nii.gz"]}
    assert named(cases_of(given, channels)) == named(cases_of([tmp_path], channels)) == expected


def test_channels_in_the_order_given(tmp_path):
    given = files(tmp_path, "mr.nii.gz", "ct.nii.gz")
    assert named(cases_of(given, 2)) == {"mr": ["mr.nii.gz", "ct.nii.gz"]}
    assert named(cases_of([tmp_path], 2)) == {"ct": ["ct.nii.gz"], "mr": ["mr.nii.gz"]}
    given = files(tmp_path / "numbered", "mr_0003.nii.gz", "ct_0003.nii.gz")
    assert named(cases_of(given, 2)) == {"mr_0003": ["mr_0003.nii.gz", "ct_0003.nii.gz"]}


def test_channels_that_are_missing_are_named(tmp_path):
    for channels, names, missing in (
        (2, ["case_0001.nii.gz"], "case_0000"),
        (3, ["case_0000.nii.gz", "case_0002.nii.gz"], "case_0001"),
        (
            3,
            ["case_0001.nii.gz", "other_0000.nii.gz", "other_0001.nii.gz", "other_0002.nii.gz"],
            "case_0000, case_0002",
        ),
        # Of as many files as channels, but of two patients.
        (2, ["a_0000.nii.gz", "b_0001.nii.gz"], "a_0001"),
    ):
        given = files(tmp_path / "in", *names)
        with pytest.raises(UsageError, match=f"{missing} is missing in .*in"):
            cases_of(given, channels)
    one, other = files(tmp_path / "one", "case_0000.nii.gz") + files(tmp_path / "other", "case_0001.nii.gz")
    with pytest.raises(UsageError, match="one/case_0000.nii.gz: case_0001 is missing in .*one"):
        cases_of([one, other], 2)


def test_channels_that_are_too_many_are_named(tmp_path):
    given = files(tmp_path, "case_0000.nii.gz", "case_0001.nii.gz")
    with pytest.raises(UsageError, match="case_0001.nii.gz: is another channel of case .* the model takes 1;"):
        cases_of(given, 1)
    given += files(tmp_path, "case_0001.nrrd")
    with pytest.raises(UsageError, match="case_0001.nii.gz and .*case_0001.nrrd: are one channel of case"):
        cases_of(given, 2)


def test_two_cases_of_one_name_are_refused(tmp_path):
    one, other = files(tmp_path / "one", "case_0000.nii.gz") + files(tmp_path / "other", "case_0000.nii.gz")
    for given in ([one, other], [one, *files(tmp_path / "one", "case.nii.gz")], [one, one]):
        with pytest.raises(UsageError, match="case_0000.nii.gz"):
            cases_of(given, 1)
    with pytest.raises(UsageError, match="would have one name"):
        cases_of(files(tmp_path, "ct.nii.gz", "ct.nrrd"), 1)


@pytest.mark.parametrize("other", ["CASE", "cas\u00e9", "Cas\u00c9"], ids=ascii)
def test_names_that_windows_and_macos_take_for_one_are_refused(other, tmp_path):
    """In upper case, or with an accent that is a letter of its own: one segmentation would replace the other."""
    name = "case" if other.isascii() else "case\u0301"
    given = [tmp_path / f"{name}_0000.nii.gz", tmp_path / f"{other}_0000.nii.gz"]
    for order in (given, given[::-1], [given[0], tmp_path / "b_0000.nii.gz", tmp_path / f"{other}.nrrd"]):
        with pytest.raises(UsageError, match=r"would have one name on Windows and macOS; give them apart"):
            cases_of(order, 1)
    assert len(cases_of([given[0], tmp_path / "cases_0000.nii.gz"], 1)) == 2


def test_hidden_companions_of_images_are_left_alone(tmp_path):
    """As macOS writes ._ct.nii.gz next to ct.nii.gz on other disks."""
    files(tmp_path, "ct.nii.gz", "._ct.nii.gz", ".DS_Store")
    assert named(cases_of([tmp_path], 1)) == {"ct": ["ct.nii.gz"]}
    files(tmp_path / "hidden", "._ct.nii.gz")
    with pytest.raises(UsageError, match="holds no images"):
        cases_of([tmp_path / "hidden"], 1)


@pytest.mark.parametrize("ending", [".dcm", ".DCM", ""])
def test_a_folder_of_slices_in_dicom_is_refused(ending, tmp_path):
    """Each slice would be an image of its own."""
    for number in range(5):
        sitk.WriteImage(sitk.GetImageFromArray(np.zeros((8, 8), np.uint8)), str(tmp_path / "a.dcm"))
        (tmp_path / "a.dcm").rename(tmp_path / f"IM{number}{ending}")
    with pytest.raises(ImageError, match="is DICOM.*dcm2niix"):
        cases_of([tmp_path], 1)


def test_formats_that_are_not_read_are_named_before_any_work(tmp_path):
    files(tmp_path, *(f"{name}.{ending}" for name in "abcde" for ending in ("hdr", "img")), "ct.nii.gz", "mesh.vtk")
    with pytest.raises(ImageError, match=r"a.hdr, .*a.img, .*b.hdr and 7 more: has a header .*; .*mesh.vtk: is of a"):
        cases_of([tmp_path], 1)
