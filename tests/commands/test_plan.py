"""The command's options and what it prints; the planning itself is tested in tests/planning."""

from __future__ import annotations

from pathlib import Path

import pytest

from nnunetv2_lightm.commands import plan
from nnunetv2_lightm.planning import datasets
from nnunetv2_lightm.planning.datasets import Planned, Plans
from nnunetv2_lightm.planning.planner import PlanningError


@pytest.fixture
def planner(monkeypatch):
    """Stands in for the planning; records how it is called, and prints as much as nnU-Net's planner."""
    calls = []
    configurations = (
        Planned("2d", (512, 480), 3, 5.71, 0.84, True),
        Planned("3d_lowres", (80, 96, 88), 2, 6.93, 0.79, False),
        Planned("3d_fullres", (80, 96, 88), 2, 6.93, 0.79, False),
    )

    def stand_in(dataset, **options):
        calls.append({"dataset": dataset, **options})
        print("Attempting to find 3d_lowres config.")
        return Plans("Dataset005_Made", Path("/folder/nnUNetLightMUNetPlans.json"), configurations)

    monkeypatch.setattr(datasets, "plan_dataset", stand_in)
    return calls


def test_defaults(planner, capsys):
    assert plan.main(["5"]) == 0
    assert planner == [
        {
            "dataset": "5",
            "batch_size": None,
            "gpu_memory_gb": 8.0,
            "plans_name": "nnUNetLightMUNetPlans",
            "overwrite": False,
        }
    ]
    printed = capsys.readouterr().out.splitlines()
    assert "Attempting" not in printed[0]
    assert [line.split() for line in printed[1:4]] == [
        ["2d", "512x480", "3", "5.7", "0.8"],
        ["3d_lowres", "80x96x88", "2", "6.9", "0.8"],
        ["3d_fullres", "80x96x88", "2", "6.9", "0.8"],
    ]
    assert "/folder/nnUNetLightMUNetPlans.json" in printed
    assert "Already preprocessed: 2d." in printed
    assert [line.strip() for line in printed[-3:]] == [
        "nnUNetv2_preprocess -d 5 -plans_name nnUNetLightMUNetPlans -c 3d_lowres 3d_fullres",
        "nnUNetv2_train 5 3d_fullres 0 -p nnUNetLightMUNetPlans -tr nnUNetTrainerLightMUNet",
        "nnUNetv2_train 5 3d_fullres 0 -p nnUNetLightMUNetPlans",
    ]


def test_options(planner, capsys):
    options = ["--batch-size", "4", "--gpu-memory-gb", "1.5", "--plans-name", "My_Plans-2", "--overwrite"]
    assert plan.main(["Dataset005_Made", *options]) == 0
    assert planner == [
        {
            "dataset": "Dataset005_Made",
            "batch_size": 4,
            "gpu_memory_gb": 1.5,
            "plans_name": "My_Plans-2",
            "overwrite": True,
        }
    ]
    assert "-p My_Plans-2" in capsys.readouterr().out


@pytest.mark.parametrize(
    "arguments",
    [
        *(["5", "--batch-size", value] for value in ("0", "-1", "1.5", "two", "")),
        *(["5", "--gpu-memory-gb", value] for value in ("0", "-8", "nan", "inf", "much", "8GB")),
        *(["5", "--plans-name", value] for value in ("a__b", "a/b", "../a", "", "a.json", "_a", "nnUNetPlans")),
        [],
        ["5", "6"],
    ],
    ids=" ".join,
)
def test_nonsense_is_refused(planner, capsys, arguments):
    with pytest.raises(SystemExit) as stopped:
        plan.main(arguments)
    assert stopped.value.code == 2 and planner == []
    assert "usage: nnUNetv2_lightm plan" in capsys.readouterr().err


def test_what_cannot_be_planned_is_said_in_one_line(monkeypatch, capsys):
    def refuse(*_, **__):
        raise PlanningError("no data set '5' in nnUNet_raw=/raw; there is none at all")

    monkeypatch.setattr(datasets, "plan_dataset", refuse)
    assert plan.main(["5"]) == 1
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err == "plan: no data set '5' in nnUNet_raw=/raw; there is none at all\n"
