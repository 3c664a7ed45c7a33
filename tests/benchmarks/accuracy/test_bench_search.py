"""The search for a recipe: its trials train what they say, and each leaves an entry, also one that fails."""

from __future__ import annotations

import json
import re
from types import SimpleNamespace

import pytest

from benchmarks.accuracy import search, study
from benchmarks.accuracy.variants.search_trials import JORDAN
from nnunetv2_lightm.optim import THREE_STEPS


@pytest.fixture
def log(monkeypatch, tmp_path):
    monkeypatch.setattr(search, "RESULTS", tmp_path / "search.json")
    monkeypatch.setattr(search, "TRIALS", search.TRIALS[:2])
    monkeypatch.setattr(search, "prepare", lambda *_: None)
    monkeypatch.setattr(search, "read_training_log", lambda folder: [SimpleNamespace(pseudo_dice=(0.5,))])
    return lambda: json.loads((tmp_path / "search.json").read_text())


def finish(trial, folder, dice=0.9):
    for name in ("validation", "validation_ema"):
        validation = trial.folder(folder / "search") / name
        validation.mkdir(parents=True)
        (validation / "summary.json").write_text(json.dumps({"foreground_mean": {"Dice": dice}}))


def test_every_trial_is_written_down_once(log, monkeypatch, tmp_path):
    calls = []

    def run(command, **_):
        calls.append(command)
        trial = search.TRIALS[len(calls) - 1]
        assert command == trial.command and "--c" in command
        if len(calls) == 1:
            finish(trial, tmp_path)
        return SimpleNamespace(returncode=0 if len(calls) == 1 else 1)

    monkeypatch.setattr(search.subprocess, "run", run)
    assert search.main([str(tmp_path)]) == 0
    done, failed = log()
    assert (done["name"], done["state"], done["dice"], done["pseudo_dice"]) == ("Base", "complete", 0.9, [[0.5]])
    assert (failed["name"], failed["state"], failed["dice"]) == ("NoInit", "failed, exit code 1", None)
    calls.clear()
    calls.append("the first one is not run again")
    assert search.main([str(tmp_path)]) == 0 and len(calls) == 2


def test_an_interrupted_trial_is_no_failure(log, monkeypatch, tmp_path):
    monkeypatch.setattr(search.subprocess, "run", lambda *_, **__: SimpleNamespace(returncode=-15))
    with pytest.raises(SystemExit):
        search.main([str(tmp_path)])
    assert not (tmp_path / "search.json").exists()


def test_collect_runs_nothing(log, monkeypatch, tmp_path):
    finish(search.TRIALS[1], tmp_path, 0.7)
    monkeypatch.setattr(search.subprocess, "run", lambda *_, **__: pytest.fail("ran"))
    assert search.main([str(tmp_path), "--collect"]) == 0
    assert [entry["name"] for entry in log()] == ["NoInit"]


def test_a_trial_differs_from_the_base_in_what_it_says(make_trainer, monkeypatch):
    monkeypatch.setenv(study.EXT_TRAINER, str(study.VARIANT_TRAINERS))

    def settings(name: str) -> tuple:
        trainer = make_trainer(f"nnUNetTrainerTrial{name}_2epochs_3iters_seed0")
        trainer.initialize()
        muon = trainer.optimizer.param_groups[-1]
        near_identity = float(trainer.network.bottleneck[0].projection.weight.detach().diagonal().mean()) > 0.5
        kept = ("muon_lr_factor", "momentum", "weight_decay", "coefficients")
        return near_identity, *(muon[key] for key in kept)

    base = settings("Base")
    assert base == (True, 2.0, 0.95, 1e-2, JORDAN)
    assert settings("NoInit") == (False, *base[1:])
    assert settings("MuonLR4e3") == (True, 4.0, *base[2:])
    assert settings("Momentum09") == (True, 2.0, 0.9, *base[3:])
    assert settings("Decay1e1") == (True, 2.0, 0.95, 0.1, JORDAN)
    assert settings("ThreeSteps")[-1] == THREE_STEPS
    assert len({settings(name) for name in search.NAMES}) == len(search.NAMES)


def test_the_published_log_is_of_these_trials():
    entries = json.loads((search.HERE / "results" / "search.json").read_text())
    keys = {search._key(entry) for entry in entries}
    assert entries and keys <= {(trial.name, trial.data, trial.budget) for trial in search.TRIALS}


def test_the_study_says_what_the_log_has():
    text = (search.HERE.parents[1] / "docs" / "study" / "README.md").read_text(encoding="utf-8")
    (table,) = re.findall(r"\n\| trial \|[^\n]*\n\|[-|]*\n((?:\|[^\n]*\n)*)", text)
    said = sorted(re.findall(r"\d\d\.\d\d(?= )|(?<= )[-+]\d\.\d\d(?= )", row) for row in table.splitlines())
    entries = json.loads((search.HERE / "results" / "search.json").read_text())
    scores = {entry["name"]: entry for entry in entries if entry["data"] == "X-rays"}
    base = scores["Base"]["dice"]

    def row(name: str, entry: dict) -> list[str]:
        difference = [] if name == "Base" else [f"{100 * (entry['dice'] - base):+.2f}"]
        return [f"{100 * entry['dice']:.2f}", *difference, f"{100 * entry['dice_of_averaged_weights']:.2f}"]

    assert said == sorted(row(name, entry) for name, entry in scores.items())
