"""A checkpoint of the authors' fork, imported and predicted with by the installed commands."""

from __future__ import annotations

import json

import numpy as np
import pytest
import SimpleITK as sitk
import torch

from ..released.fork_checkpoint import DATASET_JSON, fork_checkpoint, network_of

pytestmark = pytest.mark.end_to_end


@pytest.fixture
def images(tmp_path):
    """Two cases, larger than the patch of 16x16x16, of another spacing than the plans'."""
    folder = tmp_path / "images"
    folder.mkdir()
    for seed in range(2):
        image = sitk.GetImageFromArray(np.random.default_rng(seed).normal(size=(14, 22, 19)).astype(np.float32))
        image.SetSpacing((1.0, 1.0, 1.2))
        sitk.WriteImage(image, str(folder / f"case_{seed}_0000.nii.gz"))
    return folder


def test_predicts_with_both_stock_commands(workspace, images):
    torch.save(fork_checkpoint(network_of().state_dict(), fold="all"), workspace.root / "fork.pth")
    name = "nnUNetTrainerLightMUNetReleased__nnUNetPlans__3d_fullres"
    model = workspace.root / "nnUNet_results" / "Dataset004_Hippocampus" / name
    raw = workspace.raw("Dataset004_Hippocampus")
    raw.mkdir()
    (raw / "dataset.json").write_text(json.dumps(DATASET_JSON))
    output = workspace.run("nnUNetv2_lightm", "import-released", workspace.root / "fork.pth", model)
    assert "5,015,766 parameters" in output and f"-m {model} -f all" in output

    common = ("-i", images, "-f", "all", "-device", "cpu", "--disable_tta")
    by_folder, by_name = workspace.root / "by_folder", workspace.root / "by_name"
    workers = ("-npp", "1", "-nps", "1")  # this command cannot do without
    workspace.run("nnUNetv2_predict_from_modelfolder", *common, *workers, "-m", model, "-o", by_folder)
    workspace.run(
        "nnUNetv2_predict", *common, "-d", "4", "-c", "3d_fullres", "-tr", name.partition("__")[0], "-o", by_name
    )
    for seed in range(2):
        results = [sitk.ReadImage(str(folder / f"case_{seed}.nii.gz")) for folder in (by_folder, by_name)]
        arrays = [sitk.GetArrayFromImage(result) for result in results]
        assert arrays[0].shape == (14, 22, 19) and set(np.unique(arrays[0])) <= {0, 1, 2}
        np.testing.assert_array_equal(*arrays)
        assert results[0].GetSpacing() == pytest.approx((1.0, 1.0, 1.2))
