"""Plans that were edited, or made by another planner, are not replaced without --overwrite, and never lost."""

from __future__ import annotations

import json
import os

import pytest

from nnunetv2_lightm.planning import PLANS_NAME
from nnunetv2_lightm.planning.datasets import plan_dataset
from nnunetv2_lightm.planning.planner import PlanningError

pytestmark = pytest.mark.slow  # nnU-Net's planner runs

DATA = ((1.0, 1.0, 1.0), (40, 48, 48))


@pytest.fixture
def file(make_dataset, folders):
    """The plans of a data set, made by this planner."""
    dataset = make_dataset(*DATA)
    plan_dataset(dataset)
    return folders / "nnUNet_preprocessed" / dataset / f"{PLANS_NAME}.json"


def edit_patch_size(file):
    content = json.loads(file.read_text())
    content["configurations"]["2d"]["patch_size"] = [64, 64]
    file.write_text(json.dumps(content))


def edit_one_digit(file):
    text = file.read_text()
    at = text.index('"batch_size": ') + len('"batch_size": ')
    file.write_text(text[:at] + "7" + text[at + 1 :])
    os.utime(file, (2e9, 2e9))


def add_a_configuration(file):
    content = json.loads(file.read_text())
    content["configurations"]["mine"] = {"inherits_from": "2d", "batch_size": 7}
    file.write_text(json.dumps(content))


def cut_off(file):
    file.write_text(file.read_text()[:100])


def made_by_another_planner(file):
    file.unlink()
    file.write_text(json.dumps({"experiment_planner_used": "ResEncUNetPlanner", "configurations": {"2d": {}}}))


def without_a_record(file):
    (file.parent / ".nnunetv2_lightm.json").unlink()


@pytest.mark.parametrize(
    "change",
    [edit_patch_size, edit_one_digit, add_a_configuration, cut_off, made_by_another_planner, without_a_record],
)
def test_they_are_refused_and_with_overwrite_renamed(file, change):
    change(file)
    before = file.read_bytes()
    with pytest.raises(PlanningError, match=f"{file.name} already exists, and was edited or made by another"):
        plan_dataset("5", batch_size=3)
    assert file.read_bytes() == before
    plan_dataset("5", batch_size=3, overwrite=True)
    assert file.with_name(f"kept_{file.name}").read_bytes() == before
    configurations = json.loads(file.read_text())["configurations"]
    assert configurations["2d"]["batch_size"] == 3
    assert ("mine" in configurations) == (change is add_a_configuration)


def test_the_name_of_another_planners_plans(file):
    other = file.with_name("nnUNetResEncUNetMPlans.json")
    other.write_text("{}")
    with pytest.raises(PlanningError, match="nnUNetResEncUNetMPlans.json already exists"):
        plan_dataset("5", plans_name="nnUNetResEncUNetMPlans")
    assert other.read_text() == "{}"


def test_its_own_are_replaced(file):
    for batch_size in (3, 4):
        plan_dataset("5", batch_size=batch_size)
        assert json.loads(file.read_text())["configurations"]["2d"]["batch_size"] == batch_size
    assert not list(file.parent.glob("kept*"))


def test_a_failing_disk_leaves_the_old_ones(file, monkeypatch):
    from nnunetv2_lightm.planning import planner

    def fail(content, path, **_):
        with open(path, "w") as half:
            half.write("{")
        raise OSError(28, "No space left on device")

    before = file.read_bytes()
    monkeypatch.setattr(planner, "save_json", fail)
    with pytest.raises(OSError, match="No space"):
        plan_dataset("5", batch_size=3)
    assert file.read_bytes() == before
    assert not list(file.parent.glob(".partial*"))
