"""The demo: its commands, how its training continues, what it prints, and all of it at a tiny budget."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from nnunetv2_lightm.commands.demo.command import main
from nnunetv2_lightm.commands.demo.report import commands_script
from nnunetv2_lightm.commands.demo.steps import DemoSettings, demo_environment, demo_steps
from nnunetv2_lightm.runs.progress import Progress, format_seconds


def test_environment_is_the_demos_own(monkeypatch, tmp_path):
    monkeypatch.setenv("nnUNet_raw", "/of/the/user")
    monkeypatch.setenv("nnUNet_n_proc_DA", "7")
    monkeypatch.delenv("nnUNet_def_n_proc", raising=False)
    environment = demo_environment(tmp_path)
    assert environment["nnUNet_raw"] == str(tmp_path / "nnUNet_raw")
    assert environment["nnUNet_n_proc_DA"] == "7"
    assert environment["nnUNet_def_n_proc"] == str(min(2, os.cpu_count()))


def test_everything_is_written_below_the_folder(tmp_path):
    for step in demo_steps(DemoSettings(folder=tmp_path)):
        assert all(tmp_path in path.parents for path in (*step.outputs, *step.leftovers))


def test_commands_script_is_what_the_demo_runs(tmp_path):
    folder = tmp_path / "a folder"
    steps = demo_steps(DemoSettings(folder=folder, device="mps", trainer="nnUNetTrainer_1epoch"))
    script = commands_script(demo_environment(folder), steps)
    # The shell must take the words apart as the demo does: replace each program by one that prints its arguments.
    programs = {step.command[0] for step in steps}
    functions = "".join(f'{program}() {{ printf "%s\\0" {program} "$@"; printf "\\n"; }}\n' for program in programs)
    output = subprocess.run(["bash", "-c", functions + script], capture_output=True, text=True, check=True).stdout
    assert [tuple(line.split("\0")[:-1]) for line in output.splitlines()] == [step.command for step in steps]
    assert f"export nnUNet_results='{folder}/nnUNet_results'" in script


def test_another_programs_folder_is_refused(tmp_path, capsys):
    """Many programs keep a state.json."""
    for content in ('{"phantoms": {"complete": true}}', "[]", '{"made_by": "another"}', "{"):
        (tmp_path / "state.json").write_text(content)
        (tmp_path / "phantoms").mkdir(exist_ok=True)
        (tmp_path / "phantoms" / "precious").write_text("of the user")
        assert main(["--folder", str(tmp_path)]) == 1
        assert re.search(r"state.json (is damaged|belongs to something else)", capsys.readouterr().err)
        assert sorted(path.name for path in tmp_path.rglob("*")) == ["phantoms", "precious", "state.json"]


def test_what_the_user_has_put_into_the_demos_folder_stays(tmp_path, monkeypatch, capsys):
    folder = tmp_path / "demo"
    command = ["--folder", str(folder), "--num-cases", "1", "--shape", "16", "16"]
    assert main([*command, "16"]) == 1, "one case cannot be split"
    (folder / "phantoms" / "notes").write_text("of the user")
    (folder / "phantoms" / "segmentation-0.nii.gz").write_text("drawn by hand")
    assert main([*command, "17"]) == 1, "another shape: new phantoms"
    kept = folder / "kept_phantoms"
    assert sorted(path.name for path in kept.glob("[!.]*")) == ["notes", "segmentation-0.nii.gz"]
    assert (kept / "segmentation-0.nii.gz").read_text() == "drawn by hand"
    assert f"{folder / 'phantoms'} is made anew; what was there is now {kept}. Remove" in capsys.readouterr().err
    assert len(list((folder / "phantoms").glob("*.nii.gz"))) == 2


def test_progress_tells_epoch_and_dice(tmp_path, capsys):
    train = demo_steps(DemoSettings(folder=tmp_path, trainer="nnUNetTrainer_10epochs_2iters"))[3]
    progress = Progress([train])
    messages = ("Epoch 3 ", "Pseudo dice [np.float32(0.91), np.float32(nan)] ", "Epoch time: 3.2 s ")
    progress.update(train, "".join(f"2026-01-02 03:04:05.678901: {message}\n" for message in messages), 61.0)
    progress.end(train, 125.4)
    assert capsys.readouterr().out.splitlines() == [
        "[1/1] train   1m01s  epoch 4 of 10, pseudo Dice 0.91 nan",
        "[1/1] train   2m05s  done",
    ]
    assert [format_seconds(s) for s in (0.4, 59.6, 3600, 7610)] == ["0m00s", "1m00s", "60m00s", "2h06m"]


def test_foreign_folder_is_refused(tmp_path, capsys):
    (tmp_path / "mine").touch()
    assert main(["--folder", str(tmp_path)]) == 1
    assert "empty folder" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["mine"]


def test_failing_step_ends_the_demo_with_its_log(tmp_path, capsys):
    folder = tmp_path / "demo"
    assert main(["--folder", str(folder), "--num-cases", "1", "--shape", "16", "16", "16"]) == 1
    error = capsys.readouterr().err
    assert "exit code 1" in error
    assert str(folder / "logs" / "convert.log") in error
    assert "imagesTr" in error  # the converter's own words: one case cannot be split


def run_demo(folder, **options):
    command = [sys.executable, "-m", "nnunetv2_lightm.cli", "demo", "--folder", str(folder), "--num-cases", "6"]
    command += ["--shape", "24", "48", "48", "--trainer", "nnUNetTrainerLightMUNet_2epochs_1iters"]
    # Each worker imports PyTorch for every step.
    workers = dict.fromkeys(("nnUNet_n_proc_DA", "nnUNet_def_n_proc", "nnUNet_npp", "nnUNet_nps"), "1")
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    return subprocess.Popen(command, env=os.environ | workers, **pipes, **options)


@pytest.mark.end_to_end
@pytest.mark.skipif(os.name != "posix", reason="sends SIGINT to one process")
def test_demo_goes_on_after_an_interruption(tmp_path):
    folder = tmp_path / "demo"
    fold = DemoSettings(folder=folder, trainer="nnUNetTrainerLightMUNet_2epochs_1iters").fold_folder
    first = run_demo(folder)
    while first.poll() is None and not (fold / "checkpoint_best.pth").exists():
        time.sleep(0.2)
    first.send_signal(signal.SIGINT)
    output, _ = first.communicate(timeout=60)
    assert first.returncode == 130, output
    assert "continues from here" in output
    assert not processes_of(folder)

    second = run_demo(folder)
    output, _ = second.communicate(timeout=300)
    assert second.returncode == 0, output
    assert re.search(r"plan_and_preprocess +complete already", output)
    table = [line.split("|")[1:-1] for line in output.splitlines() if line.startswith(("| liver", "| tumor"))]
    assert [row[0].strip() for row in table] == ["liver", "tumor"]
    assert all(0 <= float(cell.split("±")[0]) <= 1 for row in table for cell in row[1:3] if cell.strip() != "-")
    for picture in ("segmentations.png", "training_curve.png"):
        assert np.asarray(Image.open(folder / picture)).std() > 10
    assert "REPORT.md" in output
    assert "![Image" in (folder / "REPORT.md").read_text()
    assert len(list(fold.glob("training_log_*.txt"))) == 2

    third = run_demo(folder)
    output, _ = third.communicate(timeout=60)
    assert third.returncode == 0, output
    assert output.count("complete already") == 6


def processes_of(folder: Path) -> list[str]:
    listed = subprocess.run(["ps", "-eo", "stat=,args="], capture_output=True, text=True, check=True).stdout
    return [line for line in listed.splitlines() if "nnUNet" in line and str(folder) in line and line[0] != "Z"]
