"""Names that are not our trainers': the nearest is suggested; other plug-ins' names stay theirs and take budgets."""

from __future__ import annotations

import os
import pickle

import pytest
from nnunetv2.utilities.find_objects import recursive_find_trainer_class_by_name

from nnunetv2_lightm.autoload import boot, shim_directory
from nnunetv2_lightm.trainers import TRAINERS, comes_from_here, find_trainer, is_ours
from nnunetv2_lightm.trainers.names import nearest_trainer

OURS = "nnUNetTrainerLightMUNet"
KNOWN = ["nnUNetTrainer", OURS, "nnUNetTrainerLightMUNetPaperSGD", "nnUNetTrainerSegResNet"]


@pytest.fixture
def search(monkeypatch):
    """nnU-Net's own search, with ours and other directories in nnUNet_extTrainer."""

    def find(name, before=(), after=()):
        value = os.pathsep.join(map(str, [*before, shim_directory(), *after]))
        monkeypatch.setenv(boot.EXT_TRAINER_VARIABLE, value)
        return recursive_find_trainer_class_by_name(name)

    return find


def plug_in(folder, name: str):
    """A directory with another plug-in's trainer of that name."""
    folder.mkdir()
    source = (
        f"from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer\nclass {name}(nnUNetTrainer): ..."
    )
    (folder / f"{folder.name}_trainers.py").write_text(source)
    return folder


@pytest.mark.parametrize(
    ("wrong", "meant"),
    [
        ("nnUNetTrainerLightMUnet", OURS),
        ("nnUNetTrainerLightM-UNet", OURS),
        ("nnUNetTrainer_LightMUNet", OURS),
        ("nnUNettrainerLightMUNet", OURS),
        ("LightMUNetTrainer", OURS),
        ("LightMUNet", OURS),
        ("nnUNetTrainerLigthMUNet", OURS),
        ("nnUNetTrainerLightM", OURS),
        ("nnUNetTrainerPaperSGD", "nnUNetTrainerLightMUNetPaperSGD"),
        ("nnUNetTrainerLightMUNet_20epochs_50", f"{OURS}_20epochs_50iters"),
        ("nnUNetTrainerLightMUNet_20epochs_50its", f"{OURS}_20epochs_50iters"),
        ("nnUNetTrainerLightMUNet_20epochs50iters", f"{OURS}_20epochs_50iters"),
        ("nnUNetTrainerLightMUNet20ep", f"{OURS}_20epochs"),
        ("nnUNetTrainerLightMUNet_20", f"{OURS}_20epochs"),
        ("nnUNetTrainerLightMUNet_5epochs_", f"{OURS}_5epochs"),
        ("nnUNetTrainerLightMUnet_5epochs", f"{OURS}_5epochs"),
        ("nnUNetTrainer_20epochs_50", "nnUNetTrainer_20epochs_50iters"),
        ("nnUNetTrainerLightMUNet_0epochs", OURS),
        ("nnUNetTrainerLightMUNet_50iters", OURS),
        ("nnUNetTrainerSegRes", "nnUNetTrainerSegResNet"),
    ],
)
def test_nearest(wrong, meant):
    assert find_trainer(wrong) is None
    assert nearest_trainer(wrong, KNOWN) == meant


@pytest.mark.parametrize("name", ["nnUNetTrainerOfNobody", "nnUNetTrainerDA6", "nnUNetTrainerNoMirror_5epochs", "x"])
def test_nothing_is_near(name):
    assert nearest_trainer(name, KNOWN) is None


@pytest.mark.parametrize(
    ("wrong", "meant"), [("nnUNetTrainerLightMUnet", OURS), ("LightMUNetTrainer_3epochs_4", f"{OURS}_3epochs_4iters")]
)
def test_the_search_ends_with_a_suggestion(search, tmp_path, wrong, meant):
    other = plug_in(tmp_path / "other", "nnUNetTrainerOther")
    with pytest.raises(RuntimeError, match=f"no trainer '{wrong}'; did you mean '{meant}'") as error:
        search(wrong, after=[other, tmp_path / "missing", shim_directory()])
    assert all(name in str(error.value) for name in (*TRAINERS, "_20epochs_50iters"))


@pytest.mark.parametrize("place", ["before", "after"])
def test_a_near_name_that_another_plug_in_has_is_found_there(search, tmp_path, place):
    other = plug_in(tmp_path / "other", "nnUNetTrainerLightMUNetV2")
    trainer = search("nnUNetTrainerLightMUNetV2", **{place: [other]})
    assert (trainer.__name__, trainer.__module__) == ("nnUNetTrainerLightMUNetV2", "other_trainers")


@pytest.mark.parametrize("place", ["before", "after"])
@pytest.mark.parametrize("name", ["nnUNetTrainerOfTheUser", "nnUNetTrainerLightMUNetV2"])
@pytest.mark.slow
def test_a_budget_goes_on_another_plug_ins_trainer(search, tmp_path, make_trainer, place, name):
    other = plug_in(tmp_path / "other", name)
    trainer = search(f"{name}_4epochs_10iters_seed1", **{place: [other]})
    assert (trainer.__name__, trainer.__mro__[1].__name__) == (f"{name}_4epochs_10iters_seed1", name)
    assert trainer.__mro__[1].__module__ == "other_trainers"
    made = make_trainer(trainer.__name__)
    assert (made.num_epochs, made.num_iterations_per_epoch, made.num_val_iterations_per_epoch) == (4, 10, 2)
    assert search(trainer.__name__, **{place: [other]}) is trainer is pickle.loads(pickle.dumps(trainer))


@pytest.mark.parametrize("suffix", ["", "_2epochs", "_2epochs_10iters_seed1"])
@pytest.mark.parametrize("name", [OURS, "nnUNetTrainerSegResNet"])
@pytest.mark.slow
def test_a_rival_of_our_name_that_comes_first_gets_the_budget_too(search, tmp_path, name, suffix):
    rival = plug_in(tmp_path / "rival", name)
    theirs = search(f"{name}{suffix}", before=[rival])
    assert {cls.__module__ for cls in theirs.__mro__ if cls.__name__ == name} == {"rival_trainers"}
    assert theirs.__name__ == f"{name}{suffix}"
    assert search(f"{name}{suffix}", after=[rival]).mro()[bool(suffix)] is TRAINERS[name]
    again = search(f"{name}{suffix}", before=[rival])
    assert {cls.__module__ for cls in again.__mro__ if cls.__name__ == name} == {"rival_trainers"}


def test_our_trainers_take_budgets_where_our_directory_is_not_searched(monkeypatch):
    monkeypatch.setenv(boot.SWITCH_VARIABLE, "0")
    monkeypatch.delenv(boot.EXT_TRAINER_VARIABLE, raising=False)
    assert find_trainer(f"{OURS}_3epochs").__mro__[1] is TRAINERS[OURS]


def test_a_budget_goes_on_nnunets_other_trainers(search):
    trainer = search("nnUNetTrainerNoMirroring_4epochs")
    assert trainer.__mro__[1].__module__.startswith("nnunetv2.training.nnUNetTrainer.variants")


@pytest.mark.parametrize(
    ("name", "ours"),
    [(OURS, True), (f"{OURS}_2epochs", True), ("nnUNetTrainer_2epochs", False), ("nnUNetTrainerNoMirroring", False)],
)
def test_is_ours(name, ours):
    assert is_ours(name) is ours


@pytest.mark.parametrize(
    ("name", "here"),
    [
        (OURS, True),
        (f"{OURS}_2epochs", True),
        ("nnUNetTrainer_20epochs_seed0", True),
        ("nnUNetTrainerAdam_2epochs", True),
        ("nnUNetTrainer", False),
        ("nnUNetTrainer_20epochs", False),
        ("nnUNetTrainerOfNobody_2epochs", False),
    ],
)
def test_what_comes_from_here(search, name, here):
    if name != "nnUNetTrainerOfNobody_2epochs":
        assert search(name).__module__.startswith("nnunetv2_lightm." if here else "nnunetv2.")
    assert comes_from_here(name) is here


def test_a_name_that_is_near_none_of_ours_is_left_to_nnunet(search):
    with pytest.raises(RuntimeError, match="Could not find requested nnunet trainer nnUNetTrainerOfNobody"):
        search("nnUNetTrainerOfNobody")


def test_a_broken_directory_after_ours_is_not_hidden(search, tmp_path):
    (tmp_path / "broken.py").write_text("import a_library_that_is_missing")
    with pytest.raises(ModuleNotFoundError, match="a_library_that_is_missing"):
        search("nnUNetTrainerLightMUnet", after=[tmp_path])
    assert search(OURS, after=[tmp_path]) is TRAINERS[OURS]
