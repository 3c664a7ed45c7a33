"""nnU-Net's configurations: planned by its planner, trained and validated by `nnUNetv2_train`."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from nnunetv2.experiment_planning.experiment_planners.network_topology import get_pool_and_conv_props

from nnunetv2_lightm.networks import LightMUNet

pytestmark = pytest.mark.slow

CUBES = "Dataset101_Cubes"


@pytest.fixture(scope="module")
def cubes(nnunet):
    """16^3 voxels in patches of 8^3: so much larger than the patch that nnU-Net plans a cascade."""
    nnunet.max_patch_voxels = 8**3
    nnunet.make_dataset(CUBES, "2d", "3d_fullres", "3d_lowres")
    return nnunet


def weights(fold):
    return torch.load(fold / "checkpoint_final.pth", weights_only=False)["network_weights"]


@pytest.mark.parametrize(("configuration", "dims"), [("2d", 2), ("3d_fullres", 3)])
def test_configuration(cubes, configuration, dims):
    fold = cubes.train(CUBES, configuration)
    assert weights(fold)["stem.depthwise.weight"].ndim == 2 + dims
    assert (fold / "progress.png").is_file()
    summary = json.loads((fold / "validation" / "summary.json").read_text())
    assert set(summary["mean"]) == {"1", "2"}
    assert len(summary["metric_per_case"]) == 1


def test_cascade(cubes):
    """The low resolution predicts every case for the next stage, whose network sees the labels as further channels."""
    lowres = cubes.train(CUBES, "3d_lowres", fold="all")
    predicted = sorted(path.name for path in (lowres.parent / "predicted_next_stage" / "3d_cascade_fullres").iterdir())
    assert predicted == [f"case_{number}.b2nd" for number in range(3)]
    fold = cubes.train(CUBES, "3d_cascade_fullres")
    assert weights(lowres)["stem.pointwise.weight"].shape == (32, 1)
    assert weights(fold)["stem.pointwise.weight"].shape == (32, 1 + 2)
    assert (fold / "validation" / "summary.json").is_file()


def test_inherited_configuration(cubes):
    """As nnU-Net's documentation makes one: by hand, in the plans file, with what differs."""
    plans = cubes.plans(CUBES)
    plans["configurations"]["3d_large_batch"] = {"inherits_from": "3d_fullres", "batch_size": 3, "patch_size": [8] * 3}
    cubes.plans_file(CUBES).write_text(json.dumps(plans))
    fold = cubes.train(CUBES, "3d_large_batch")
    assert json.loads((fold / "debug.json").read_text())["batch_size"] == "3"


@pytest.mark.parametrize(
    ("number", "shape", "spacing", "configuration"),
    [
        (102, (5, 28, 28), (5.0, 1.0, 1.0), "3d_fullres"),
        (103, (7, 24, 24), (4.0, 1.0, 1.0), "3d_fullres"),
        (104, (16, 24, 7), (1.0, 1.0, 1.0), "3d_fullres"),
        (105, (5, 24, 40), (5.0, 1.0, 1.0), "2d"),
    ],
    ids=str,
)
def test_thin_and_unequal_axes(nnunet, number, shape, spacing, configuration):
    """nnU-Net plans the whole of a thin axis as one of the patch, divisible by no power of two."""
    nnunet.max_patch_voxels = 16**3
    dataset = f"Dataset{number}_Thin"
    nnunet.make_dataset(dataset, configuration, shape=shape, spacing=spacing)
    planned = nnunet.plans(dataset)["configurations"][configuration]
    assert planned["patch_size"] == list(shape[-len(planned["patch_size"]) :])
    fold = nnunet.train(dataset, configuration)
    assert (fold / "validation" / "summary.json").is_file()


def test_patch_of_20x320x256():
    """What nnU-Net plans for prostate MR and the like: two poolings in the plane before the first along z."""
    _, strides, _, patch_size, _ = get_pool_and_conv_props((3.6, 0.6, 0.6), (20, 320, 256), 4, 999999)
    assert list(patch_size) == [20, 320, 256]
    assert [list(s) for s in strides[:4]] == [[1, 1, 1], [1, 2, 2], [1, 2, 2], [2, 2, 2]]
    network = LightMUNet(1, 3, spatial_dims=3, strides=strides, features=8, d_state=4)
    sizes = []
    network.bottleneck.register_forward_hook(lambda _, __, output: sizes.append(tuple(output.shape[1:-1])))
    with torch.no_grad():
        logits = network(torch.from_numpy(np.random.default_rng(0).normal(size=(1, 1, *patch_size)).astype("f")))
    assert logits.shape == (1, 3, 20, 320, 256) and torch.isfinite(logits).all()
    assert sizes == [(10, 40, 32)]
