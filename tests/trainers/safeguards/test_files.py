"""The raw files of a training: faults that nnU-Net's readers hide or ignore."""

from __future__ import annotations

import os
import shutil

import nibabel
import numpy as np
import pytest

from nnunetv2_lightm.trainers.safeguards import ImagesRefusedError

from ...images.nifti_bytes import SCALING, edit
from .conftest import CASES, NAME, SHAPE
from .small_images import AFFINE, MOVED, image, save, with_nan


@pytest.fixture
def raw(dataset):
    """The raw files of the data set."""
    folder = dataset.base.parent.parent / "nnUNet_raw" / NAME
    for number, case in enumerate(CASES):
        save(folder / f"imagesTr/{case}_0000.nii.gz", image(number))
        save(folder / f"labelsTr/{case}.nii.gz", (image(number) > 0).astype(np.uint8))
    return folder


def log_of(trainer) -> str:
    with open(trainer.log_file) as stream:
        return stream.read()


FAULTS = [
    (with_nan, "NaN"),
    (lambda path: os.truncate(path, path.stat().st_size // 2), "truncated"),
    (lambda path: edit(path, SCALING, "<2f", np.nan, np.nan), "not defined"),
    (lambda path: edit(path, 280, "<f", np.nan), "not finite"),
]


@pytest.mark.parametrize(("spoil", "words"), FAULTS)
def test_faults_of_raw_files_end_a_training_before_it_begins(dataset, raw, spoil, words):
    file = raw / f"imagesTr/{CASES[1]}_0000.nii.gz"
    spoil(file)
    trainer = dataset.trainer()
    trainer.initialize()
    with pytest.raises(ImagesRefusedError, match=words) as caught:
        trainer.run_training()
    assert str(file) in str(caught.value) and "preprocess again" in str(caught.value)


def test_cases_of_other_folds_do_not_matter(dataset, raw):
    with_nan(raw / "imagesTr/other_0000.nii.gz")
    trainer = dataset.trainer()
    trainer.initialize()
    trainer.get_tr_and_val_datasets()


def test_a_training_without_raw_files_says_so(dataset):
    trainer = dataset.trainer()
    trainer.initialize()
    trainer.get_tr_and_val_datasets()
    assert f"{NAME} is not in nnUNet_raw" in log_of(trainer)


def test_what_is_odd_is_logged(dataset, raw):
    for file in raw.rglob("*.nii.gz"):
        save(file, np.asanyarray(nibabel.load(file).dataobj), np.eye(4))
    trainer = dataset.trainer()
    trainer.initialize()
    trainer.get_tr_and_val_datasets()
    assert "note: " in log_of(trainer) and "may have lost its geometry" in log_of(trainer)


def test_labels_that_lie_elsewhere_are_a_note(dataset, raw):
    """nnU-Net goes by the voxels alone, and warns; many a label has lost its origin."""
    save(raw / f"labelsTr/{CASES[1]}.nii.gz", np.ones(SHAPE[::-1], np.uint8), MOVED)
    trainer = dataset.trainer()
    trainer.initialize()
    trainer.get_tr_and_val_datasets()
    assert f"{CASES[1]}.nii.gz lies elsewhere than its partner: 25 mm away from" in log_of(trainer)
    save(raw / f"labelsTr/{CASES[1]}.nii.gz", np.ones(SHAPE[::-1], np.uint8), AFFINE * 2)
    with pytest.raises(ImagesRefusedError, match="lies up to"):
        trainer.get_tr_and_val_datasets()


def test_what_was_begun_is_not_checked_again(dataset, raw):
    trainer = dataset.trainer()
    trainer.initialize()
    with_nan(raw / f"imagesTr/{CASES[1]}_0000.nii.gz")
    trainer.current_epoch = 1
    trainer.get_tr_and_val_datasets()
    trainer.current_epoch = 0
    with pytest.raises(ImagesRefusedError, match="NaN"):
        trainer.get_tr_and_val_datasets()


def test_files_that_dataset_json_lists_may_have_any_names(dataset, raw, tmp_path):
    """One modality of another data set, say."""
    entries = {}
    for number, case in enumerate(CASES):
        save(tmp_path / f"elsewhere/{case}_0001.nii.gz", image(number))
        files = {"images": [str(tmp_path / f"elsewhere/{case}_0001.nii.gz")]}
        entries[case] = files | {"label": str(raw / f"labelsTr/{case}.nii.gz")}
    shutil.rmtree(raw / "imagesTr")
    dataset.change("dataset.json", lambda content: content.update(dataset=entries))
    trainer = dataset.trainer()
    trainer.initialize()
    trainer.get_tr_and_val_datasets()
    assert "is not in nnUNet_raw" not in log_of(trainer)
    with_nan(tmp_path / f"elsewhere/{CASES[1]}_0001.nii.gz")
    with pytest.raises(ImagesRefusedError, match=f"{CASES[1]}_0001.nii.gz has 1 NaN"):
        trainer.get_tr_and_val_datasets()


def test_a_missing_raw_channel_is_named(dataset, raw):
    dataset.change("dataset.json", lambda content: content.update(channel_names={"0": "CT", "1": "T1"}))
    for number, case in enumerate(CASES):
        dataset.write_case(case, np.stack([image(number).T] * 2), np.zeros((1, *SHAPE)))
        save(raw / f"imagesTr/{case}_0001.nii.gz", image(number))
    (raw / f"imagesTr/{CASES[2]}_0001.nii.gz").unlink()
    trainer = dataset.trainer()
    trainer.initialize()
    with pytest.raises(ImagesRefusedError, match=rf"case {CASES[2]} lacks {CASES[2]}_0001\.nii\.gz \(T1\)"):
        trainer.get_tr_and_val_datasets()


@pytest.mark.parametrize("channels", [1, 3])
def test_a_case_preprocessed_with_other_channels_is_named(dataset, channels):
    dataset.change("dataset.json", lambda content: content.update(channel_names={"0": "CT", "1": "T1"}))
    for case in CASES:
        dataset.write_case(case, np.zeros((channels if case == CASES[1] else 2, *SHAPE)), np.zeros((1, *SHAPE)))
    trainer = dataset.trainer()
    trainer.initialize()
    with pytest.raises(
        ValueError, match=rf"{CASES[1]} was preprocessed with {channels} channels, 2 are needed \(CT, T1\)"
    ):
        trainer.run_training()


@pytest.mark.parametrize(
    ("spacing", "before", "resampling", "fits"),
    [
        ((1.0, 1.0, 4.0), (4, 16, 16), "resample_data_or_seg_to_shape", True),
        ((1.0, 1.0, 2.0), (4, 16, 16), "resample_data_or_seg_to_shape", False),
        ((1.0, 1.0, 2.0), (4, 16, 16), "resample_torch_fornnunet", False),
        ((1.0, 1.0, 2.0), (4, 16, 16), "no_resampling_hack", True),
    ],
)
def test_a_case_preprocessed_with_another_spacing_is_named(dataset, spacing, before, resampling, fits):
    """The plans have 2x1x1 mm; nnU-Net would train on what is there, and resample to that for a prediction."""
    dataset.change("nnUNetPlans.json", lambda plans: plans.update(transpose_forward=[2, 1, 0]))
    dataset.change_configuration(preprocessor_name="DefaultPreprocessor", resampling_fn_data=resampling)
    more = {"spacing": spacing, "shape_after_cropping_and_before_resampling": before}
    dataset.write_case(CASES[1], np.zeros((1, *SHAPE)), np.ones((1, *SHAPE)), **more)
    trainer = dataset.trainer()
    trainer.initialize()
    if fits:
        trainer.get_tr_and_val_datasets()
        return
    words = rf"{CASES[1]} was preprocessed to 8x16x16 voxels, but the spacing in the plans, 2x1x1 mm, gives it 4x16x16"
    with pytest.raises(ValueError, match=words):
        trainer.run_training()


def test_labels_of_integers_are_not_read_before_a_training(dataset, raw, monkeypatch):
    """That would take minutes where there are thousands of them; the doctor reads them."""
    monkeypatch.setattr("nnunetv2_lightm.images.values.chunks", lambda file: pytest.fail(f"{file.path} is read"))
    for number, case in enumerate(CASES):
        save(raw / f"imagesTr/{case}_0000.nii.gz", (100 * image(number)).astype(np.int16))
    trainer = dataset.trainer()
    trainer.initialize()
    trainer.get_tr_and_val_datasets()
    os.truncate(raw / f"labelsTr/{CASES[0]}.nii.gz", 300)
    with pytest.raises(pytest.fail.Exception, match=f"{CASES[0]}.* is read"):
        trainer.get_tr_and_val_datasets()


@pytest.mark.parametrize("names", [{"1": "T1", "0": "CT"}, {"0": "CT", "2": "T1"}, {"1": "CT", "2": "T1"}, {}])
def test_channel_names_out_of_order_are_refused(dataset, names):
    dataset.change("dataset.json", lambda content: content.update(channel_names=names))
    with pytest.raises(ValueError, match="channel_names"):
        dataset.trainer()
