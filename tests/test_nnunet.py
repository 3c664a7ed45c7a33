"""nnunet.py: data sets and folders are found as nnU-Net's own commands find them."""

from __future__ import annotations

import pytest

from nnunetv2_lightm.nnunet import NotFound, dataset_id, datasets_named, find_dataset, folder_from_environment


@pytest.mark.parametrize(
    ("name", "number"), [("Dataset005_A", 5), ("Dataset801_LiTS", 801), ("Dataset1234_Long", 1234)]
)
def test_dataset_id(name, number):
    assert dataset_id(name) == number


@pytest.mark.parametrize("name", ["Dataset5_A", "Dataset005", "dataset005_A", "Task005_A", "Dataset005_", ""])
def test_names_that_are_not_nnunets(name):
    with pytest.raises(ValueError, match="expected e.g. Dataset801_LiTS"):
        dataset_id(name)


def test_ids_and_names_over_several_folders(tmp_path):
    for path in ("raw/Dataset005_A", "raw/Dataset0051_B", "preprocessed/Dataset005_Other", "raw/Dataset051_C"):
        (tmp_path / path).mkdir(parents=True)
    (tmp_path / "raw/Dataset005_file").write_text("no folder")
    folders = [tmp_path / "raw", tmp_path / "preprocessed", tmp_path / "absent"]
    assert datasets_named("5", folders) == datasets_named("005", folders) == ["Dataset005_A", "Dataset005_Other"]
    assert datasets_named("Dataset005_A", folders) == ["Dataset005_A"]
    assert datasets_named("51", folders) == ["Dataset0051_B", "Dataset051_C"]
    assert datasets_named("Dataset005", folders) == datasets_named("²", folders) == []
    with pytest.raises(NotFound, match="2 data sets with the id 51: Dataset0051_B, Dataset051_C; rename one"):
        find_dataset("51", tmp_path / "raw")


@pytest.mark.parametrize("value", [None, ""])
def test_a_folder_that_is_not_set(monkeypatch, value):
    monkeypatch.delenv("nnUNet_raw", raising=False)
    if value is not None:
        monkeypatch.setenv("nnUNet_raw", value)
    with pytest.raises(NotFound, match="nnUNet_raw is not set: export nnUNet_raw="):
        folder_from_environment("nnUNet_raw")
