"""The plans file: the data as stock nnU-Net plans them, the network and what fits into the memory."""

from __future__ import annotations

import inspect
import json
import pydoc

import pytest
from nnunetv2.experiment_planning.experiment_planners.default_experiment_planner import ExperimentPlanner
from nnunetv2.utilities.plans_handling.plans_handler import PlansManager

from nnunetv2_lightm.networks import LightMUNet
from nnunetv2_lightm.planning import PLANS_NAME
from nnunetv2_lightm.planning.memory_model import GPU, USABLE_SHARE
from nnunetv2_lightm.planning.planner import DATA_KEYS, NETWORK, WIDTHS, PlanningError, nnUNetPlannerLightMUNet

pytestmark = pytest.mark.slow  # nnU-Net's planner runs

ISOTROPIC = ((1.0, 1.0, 1.0), (48, 60, 52))
LARGE = ((1.0, 0.8, 0.8), (400, 480, 480))
THIN = ((4.0, 0.7, 0.7), (20, 300, 300))
FLAT = ((999.0, 1.0, 1.0), (1, 512, 480))


def plan(dataset, gb=8, **options):
    planner = nnUNetPlannerLightMUNet(dataset, gb, **options)
    planner.plan_experiment()
    return planner.plans


def read(folders, dataset, name=PLANS_NAME):
    return json.loads((folders / "nnUNet_preprocessed" / dataset / f"{name}.json").read_text(encoding="utf-8"))


def step(configuration, classes=3):
    """Patch, strides, batch size and classes, as the estimate takes them."""
    strides = configuration["architecture"]["arch_kwargs"]["strides"]
    return configuration["patch_size"], strides, configuration["batch_size"], classes


def test_network_is_found_by_its_name_and_is_the_papers():
    assert pydoc.locate(NETWORK) is LightMUNet
    defaults = {name: p.default for name, p in inspect.signature(LightMUNet).parameters.items()}
    assert {name: defaults[name] for name in WIDTHS} == WIDTHS


@pytest.mark.parametrize(
    ("data", "configurations"),
    [
        (ISOTROPIC, {"2d", "3d_fullres"}),
        (LARGE, {"2d", "3d_fullres", "3d_lowres", "3d_cascade_fullres"}),
        (THIN, {"2d", "3d_fullres"}),
        (FLAT, {"2d"}),
    ],
    ids=["isotropic", "large", "thin", "flat"],
)
@pytest.mark.parametrize("gb", [8, 24])
def test_every_configuration_fits_and_uses_its_memory(make_dataset, folders, data, configurations, gb):
    dataset = make_dataset(*data, cases=10**6)
    plan(dataset, gb)
    plans = read(folders, dataset)
    # With more memory the patch may cover so much that nnU-Net plans no lower resolution.
    assert configurations - {"3d_lowres", "3d_cascade_fullres"} <= set(plans["configurations"]) <= configurations
    assert gb > 8 or set(plans["configurations"]) == configurations
    for name, configuration in plans["configurations"].items():
        if name == "3d_cascade_fullres":
            continue
        patch, strides, batch, classes = step(configuration)
        estimate = GPU.gib(patch, strides, batch, classes)
        assert batch >= 2
        assert 0.6 * USABLE_SHARE * gb < estimate <= USABLE_SHARE * gb, name
        assert len(strides) == 4
        assert GPU.gib(patch, strides, batch + 1, classes) > USABLE_SHARE * gb


def test_network_from_the_plans(make_dataset, folders):
    dataset = make_dataset(*THIN, channels=2)
    plan(dataset)
    manager = PlansManager(read(folders, dataset))
    configuration = manager.get_configuration("3d_fullres")
    assert configuration.network_arch_class_name == NETWORK
    from nnunetv2.utilities.get_network_from_plans import get_network_from_plans

    network = get_network_from_plans(
        configuration.network_arch_class_name,
        configuration.network_arch_init_kwargs,
        configuration.network_arch_init_kwargs_req_import,
        2,
        3,
        deep_supervision=True,
    )
    assert [list(block.stride) for block in network.encoder] == [[1, 2, 2], [1, 2, 2], [2, 2, 2]]
    assert network.stem.pointwise.in_features == 2 and network.decoder.deep_supervision


def test_data_are_planned_as_by_stock_nnunet(make_dataset, folders):
    dataset = make_dataset(*ISOTROPIC)
    ours, stock = plan(dataset), ExperimentPlanner(dataset, 2).plan_experiment()
    keys = {"batch_size", "patch_size", "architecture", "data_identifier"}
    for name in ("2d", "3d_fullres"):
        ours_one, stock_one = (
            {k: v for k, v in plans["configurations"][name].items() if k not in keys} for plans in (ours, stock)
        )
        assert ours_one == stock_one
        assert ours["configurations"][name]["data_identifier"] == stock["configurations"][name]["data_identifier"]
    rest = set(stock) - {"configurations", "plans_name", "experiment_planner_used"}
    assert {key: ours[key] for key in rest} == {key: stock[key] for key in rest}
    assert (ours["plans_name"], ours["experiment_planner_used"]) == (PLANS_NAME, "nnUNetPlannerLightMUNet")
    # Made again, now next to the stock plans: the data are still the same.
    assert plan(dataset)["configurations"]["2d"]["data_identifier"] == "nnUNetPlans_2d"


def test_stock_data_with_another_spacing_are_not_shared(make_dataset, folders):
    dataset = make_dataset(*ISOTROPIC)
    ExperimentPlanner(dataset, 2, overwrite_target_spacing=[2.0, 1.0, 1.0]).plan_experiment()
    identifiers = {name: one["data_identifier"] for name, one in plan(dataset)["configurations"].items()}
    assert identifiers == {"2d": "nnUNetPlans_2d", "3d_fullres": f"{PLANS_NAME}_3d_fullres"}


def test_lower_resolution_has_data_of_its_own(make_dataset):
    configurations = plan(make_dataset(*LARGE), plans_name="Small")["configurations"]
    identifiers = {name: one.get("data_identifier") for name, one in configurations.items()}
    assert identifiers["3d_lowres"] == "Small_3d_lowres" and identifiers["3d_fullres"] == "nnUNetPlans_3d_fullres"
    assert configurations["3d_cascade_fullres"] == {"inherits_from": "3d_fullres", "previous_stage": "3d_lowres"}


@pytest.mark.parametrize("batch_size", [1, 3, 8])
def test_batch_size_is_kept_and_the_patch_follows(make_dataset, batch_size):
    dataset = make_dataset(*LARGE)
    configuration = plan(dataset, batch_size=batch_size)["configurations"]["3d_fullres"]
    assert configuration["batch_size"] == batch_size
    assert 0.8 * 0.9 * 8 < GPU.gib(*step(configuration)) <= 0.9 * 8


def test_small_data_set_keeps_the_batch_small(make_dataset):
    """At most 5 % of the voxels in a batch, but at least two samples; a batch size that was asked for is kept."""
    few, many = make_dataset(*ISOTROPIC, cases=5), make_dataset(*ISOTROPIC, cases=400, name="Dataset006_Many")
    assert plan(few, 24)["configurations"]["3d_fullres"]["batch_size"] == 2
    assert plan(many, 24)["configurations"]["3d_fullres"]["batch_size"] > 10
    assert plan(few, 24, batch_size=4)["configurations"]["3d_fullres"]["batch_size"] == 4


def test_many_classes_need_memory(make_dataset):
    few, many = (
        make_dataset(*FLAT, cases=10**6),
        make_dataset(*FLAT, cases=10**6, classes=400, name="Dataset006_Classes"),
    )
    small, large = (plan(dataset)["configurations"]["2d"] for dataset in (many, few))
    assert small["patch_size"][0] * small["batch_size"] < large["patch_size"][0] * large["batch_size"]
    assert GPU.gib(*step(small, 400)) <= 7.2


def test_planning_again_replaces_what_was_planned_and_keeps_what_was_added(make_dataset, folders):
    dataset = make_dataset(*LARGE)
    plan(dataset)
    file = folders / "nnUNet_preprocessed" / dataset / f"{PLANS_NAME}.json"
    content = json.loads(file.read_text())
    assert "3d_lowres" in content["configurations"]
    content["configurations"]["of the user"] = {"inherits_from": "3d_fullres", "batch_size": 7}
    file.write_text(json.dumps(content))
    plan(dataset, 1000)
    assert set(read(folders, dataset)["configurations"]) == {"2d", "3d_fullres", "of the user"}


@pytest.mark.parametrize("gb", [0.02, 1e-12])
def test_too_little_memory_is_said(make_dataset, folders, gb):
    dataset = make_dataset(*ISOTROPIC)
    with pytest.raises(PlanningError, match=r"no patch .* 3D .* fits into .* GB with a batch of 2; .*smaller batch"):
        plan(dataset, gb)
    assert not (folders / "nnUNet_preprocessed" / dataset / f"{PLANS_NAME}.json").exists()


def test_keys_of_the_data_are_in_the_plans(make_dataset):
    configuration = plan(make_dataset(*FLAT))["configurations"]["2d"]
    assert set(DATA_KEYS) < set(configuration)
