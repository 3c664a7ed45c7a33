"""Pictures of volumes: as ITK turns them, one at a time in memory, the right slice with the score of the whole case."""

from __future__ import annotations

import itertools
import tracemalloc

import numpy as np
import pytest
import SimpleITK as sitk

from nnunetv2_lightm.benchmark.report.case_slices import CaseFiles, load_slices
from nnunetv2_lightm.benchmark.report.volumes import CaseReader
from nnunetv2_lightm.evaluation.scores import EvaluationError

LABELS = {"background": 0, "liver": 1, "tumor": 2}
DIRECTIONS = [
    np.eye(3)[list(order)] * np.array(signs)[:, None]
    for order in itertools.permutations(range(3))
    for signs in itertools.product((1, -1), repeat=3)
]


def write(path, array, direction=None, spacing=(1.0, 2.0, 3.0)):
    path.parent.mkdir(exist_ok=True)
    volume = sitk.GetImageFromArray(array)
    volume.SetSpacing(spacing)
    if direction is not None:
        volume.SetDirection(direction.ravel().tolist())
    sitk.WriteImage(volume, str(path))
    return path


@pytest.mark.parametrize("direction", DIRECTIONS[::5], ids=str)
def test_a_volume_is_turned_as_itk_turns_it(tmp_path, direction):
    array = np.random.default_rng(0).integers(0, 3, (3, 4, 5)).astype(np.uint8)
    file = write(tmp_path / "volume.nii.gz", array, direction)
    expected = sitk.DICOMOrient(sitk.ReadImage(str(file)), "LPS")
    reader = CaseReader(file, labels=LABELS, file_ending=".nii.gz")
    for turned in (reader.image(file), reader.labels(file)):
        np.testing.assert_array_equal(turned.voxels, sitk.GetArrayFromImage(expected))
        assert turned.spacing_mm == pytest.approx(expected.GetSpacing()[::-1])


def make_case(folder, size=24, contenders=3, *, empty=False):
    """A reference with its most foreground in one slice, and predictions that miss a part of it."""
    reference = np.zeros((size, size, size), np.uint8)
    image = np.random.default_rng(0).normal(size=reference.shape).astype(np.float32)
    if not empty:
        reference[size // 3, 4:-4, 4:-4] = 1
        reference[size // 3, 6:9, 6:9] = 2
        reference[1, 4:6, 4:6] = 1
    files = {}
    for i in range(contenders):
        prediction = reference.copy()
        prediction[size // 3, : 5 + i] = 0
        if empty:
            prediction[size - 2 - i, : 4 + i, : 4 + i] = 1
        files[f"m{i}"] = CaseFiles(
            write(folder / "images" / "a_0000.nii.gz", image),
            write(folder / "references" / "a.nii.gz", reference),
            write(folder / f"predictions_{i}" / "a.nii.gz", prediction),
        )
    return files


def test_the_slice_and_the_score_of_the_whole_case(tmp_path):
    files = make_case(tmp_path)
    slices = load_slices("a", files, labels=LABELS, file_ending=".nii.gz")
    assert list(slices) == ["m0", "m1", "m2"]
    for contender, section in slices.items():
        image, reference, prediction = (sitk.GetArrayFromImage(sitk.ReadImage(str(file))) for file in files[contender])
        assert section.name == "a, slice 9 of 24" and section.image.shape == (24, 24)
        np.testing.assert_array_equal(section.image, image[8])
        np.testing.assert_array_equal(section.reference, reference[8])
        np.testing.assert_array_equal(section.prediction, prediction[8])
        assert section.spacing_mm == pytest.approx((2, 1))
        masks = [(prediction == value, reference == value) for value in (1, 2)]
        overlaps = [2 * (p & r).sum() / (p.sum() + r.sum()) for p, r in masks]
        assert section.mean_dsc == pytest.approx(np.mean(overlaps))


def test_where_the_ground_truth_is_empty_the_predictions_decide(tmp_path):
    slices = load_slices("a", make_case(tmp_path, empty=True), labels=LABELS, file_ending=".nii.gz")
    assert {section.name for section in slices.values()} == {"a, slice 21 of 24"}
    assert slices["m2"].prediction.sum() == 36 and not slices["m0"].prediction.any()
    assert all(section.mean_dsc == 0 for section in slices.values())


def test_another_grid_is_refused(tmp_path):
    files = make_case(tmp_path, contenders=2)
    write(files["m1"].predictions, np.zeros((24, 24, 23), np.uint8))
    with pytest.raises(EvaluationError, match=r"predictions_1.*has the shape \(24, 24, 23\), its image .*a_0000"):
        load_slices("a", files, labels=LABELS, file_ending=".nii.gz")


def test_memory_does_not_grow_with_the_methods(tmp_path):
    """What numpy holds, in volumes of float32: each file is that large while nnU-Net reads it."""
    size = 96
    files = make_case(tmp_path, size, contenders=9)
    volume_bytes = 4 * size**3
    peaks = {}
    for count in (1, 9):
        some = dict(list(files.items())[:count])
        tracemalloc.start()
        slices = load_slices("a", some, labels=LABELS, file_ending=".nii.gz")
        kept, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert len(slices) == count and kept < volume_bytes
        peaks[count] = peak / volume_bytes
    assert peaks[9] < peaks[1] + 0.5 and peaks[9] < 4.5, peaks
