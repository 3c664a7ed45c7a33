"""commands/doctor/{folders,machine,render}.py: what the doctor says about the machine, and how it is shown."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from nnunetv2.experiment_planning.experiment_planners.default_experiment_planner import ExperimentPlanner

from nnunetv2_lightm.commands.doctor import folders, machine, render
from nnunetv2_lightm.commands.doctor.finding import Finding, Status, fail, note, ok

pytestmark = pytest.mark.usefixtures("healthy_environment")


class TestFolders:
    @staticmethod
    def check(variable: str) -> Finding:
        return {finding.subject: finding for finding in folders.check_folders()}[variable]

    @pytest.mark.parametrize("variable", folders.FOLDERS)
    @pytest.mark.parametrize(("value", "said"), [(None, "not set"), ("", "set, but empty")])
    def test_not_set(self, monkeypatch, variable, value, said):
        monkeypatch.delenv(variable) if value is None else monkeypatch.setenv(variable, value)
        finding = self.check(variable)
        assert finding.status is Status.FAIL
        assert finding.message.startswith(said)
        assert finding.remedy[0].startswith(f'export {variable}="')

    def test_in_the_order_of_nnunet(self):
        subjects = [finding.subject for finding in folders.check_folders()]
        assert subjects == ["nnUNet_raw", "nnUNet_preprocessed", "nnUNet_results"]

    def test_not_there_yet(self, monkeypatch, tmp_path):
        monkeypatch.setenv("nnUNet_results", str(tmp_path / "new" / "results"))
        assert self.check("nnUNet_results").status is Status.NOTE
        assert not (tmp_path / "new").exists()

    def test_a_file(self, monkeypatch, tmp_path):
        (tmp_path / "file").touch()
        monkeypatch.setenv("nnUNet_raw", str(tmp_path / "file"))
        assert self.check("nnUNet_raw").status is Status.FAIL

    @pytest.mark.parametrize(
        ("variable", "status"),
        [("nnUNet_raw", Status.NOTE), ("nnUNet_preprocessed", Status.NOTE), ("nnUNet_results", Status.FAIL)],
    )
    def test_read_only(self, monkeypatch, unwritable_folder, variable, status):
        monkeypatch.setenv(variable, str(unwritable_folder))
        assert self.check(variable).status is status

    def test_cannot_be_made(self, monkeypatch, unwritable_folder):
        monkeypatch.setenv("nnUNet_raw", str(unwritable_folder / "raw"))
        finding = self.check("nnUNet_raw")
        assert finding.status is Status.FAIL
        assert "cannot be made" in finding.message

    def test_tilde(self, monkeypatch):
        monkeypatch.setenv("nnUNet_raw", "~/raw")
        finding = self.check("nnUNet_raw")
        assert finding.status is Status.FAIL
        assert finding.remedy == (f'export nnUNet_raw="{Path.home()}/raw"',)

    def test_relative(self, monkeypatch, tmp_path):
        monkeypatch.chdir(tmp_path)
        monkeypatch.setenv("nnUNet_raw", "nnUNet_raw")
        assert "relative" in self.check("nnUNet_raw").message

    def test_relative_and_almost_full(self, monkeypatch, tmp_path):
        monkeypatch.chdir(tmp_path)
        monkeypatch.setenv("nnUNet_raw", "nnUNet_raw")
        monkeypatch.setattr(folders, "LOW_DISK_GIB", 1e9)
        message = self.check("nnUNet_raw").message
        assert "relative" in message and "GiB free" in message

    def test_disk_almost_full(self, monkeypatch):
        monkeypatch.setattr(folders, "LOW_DISK_GIB", 1e9)
        finding = self.check("nnUNet_raw")
        assert finding.status is Status.NOTE
        assert "GiB free" in finding.message


class TestMachine:
    @staticmethod
    def check(subject: str) -> Finding:
        return {finding.subject: finding for finding in machine.check_machine()}[subject]

    @pytest.fixture(autouse=True)
    def two_processors(self, monkeypatch):
        monkeypatch.setattr(machine, "usable_cpus", lambda: 2)
        monkeypatch.setattr(os, "cpu_count", lambda: 2)

    def test_workers_that_fit(self):
        assert {finding.status for finding in machine.check_machine()} == {Status.OK}

    def test_defaults_are_those_of_nnunet(self, monkeypatch):
        monkeypatch.delenv("nnUNet_n_proc_DA")
        monkeypatch.delenv("nnUNet_def_n_proc")
        assert "not set: 2 worker" in self.check("nnUNet_n_proc_DA").message
        finding = self.check("nnUNet_def_n_proc")
        assert finding.status is Status.NOTE
        assert finding.message == "not set: 8 worker processes for preprocessing and export, on 2 usable processors"
        assert finding.remedy == ('export nnUNet_def_n_proc="2"',)

    @pytest.mark.parametrize(
        ("variable", "value"),
        [
            ("nnUNet_n_proc_DA", "two"),
            ("nnUNet_n_proc_DA", "-1"),
            ("nnUNet_def_n_proc", ""),
            ("nnUNet_def_n_proc", "0"),
        ],
    )
    def test_value_nnunet_cannot_start_with(self, monkeypatch, variable, value):
        monkeypatch.setenv(variable, value)
        assert self.check(variable).status is Status.FAIL

    def test_no_augmentation_workers_are_for_training_alone(self, monkeypatch):
        monkeypatch.setenv("nnUNet_n_proc_DA", "0")
        finding = self.check("nnUNet_n_proc_DA")
        assert finding.status is Status.NOTE and "nnU-Net's planner fails with it" in finding.message
        assert finding.remedy == ("unset nnUNet_n_proc_DA   # for nnUNetv2_plan_and_preprocess",)
        with pytest.raises(RuntimeError, match="set_num_threads"):
            ExperimentPlanner.static_estimate_VRAM_usage([8, 8], 1, 2, "", {}, ())

    def test_fewer_processors_than_the_machine_has(self, monkeypatch):
        monkeypatch.setattr(os, "cpu_count", lambda: 64)
        finding = self.check("processors")
        assert finding.status is Status.NOTE
        assert finding.remedy == ('export OMP_THREAD_LIMIT="2"',)

    def test_little_memory(self, monkeypatch):
        monkeypatch.setattr(machine, "memory_gib", lambda: 8.0)
        monkeypatch.setenv("nnUNet_def_n_proc", "8")
        finding = self.check("memory")
        assert finding.status is Status.NOTE
        assert 'export nnUNet_def_n_proc="4"' in finding.remedy

    def test_affinity_is_respected(self, monkeypatch):
        monkeypatch.undo()
        if not hasattr(os, "sched_setaffinity"):
            pytest.skip("this system has no processor affinity")
        before = os.sched_getaffinity(0)
        os.sched_setaffinity(0, {min(before)})
        try:
            assert machine.usable_cpus() == 1
        finally:
            os.sched_setaffinity(0, before)


class TestScreen:
    def test_failures_are_listed_with_what_to_paste(self):
        findings = [ok("a", "good"), note("b", "odd", "do this"), fail("long subject", "bad", "first", "second")]
        assert render.as_text(findings) == (
            "OK    a             good\n"
            "NOTE  b             odd\n"
            "                    do this\n"
            "FAIL  long subject  bad\n"
            "\n"
            "Training cannot start. To fix it:\n"
            "  long subject\n"
            "      first\n"
            "      second"
        )

    def test_notes_are_pointed_at(self):
        assert render.as_text([note("a", "odd")]).endswith("Training can start; read the notes.")
        assert render.as_text([ok("a", "good")]).endswith("Training can start.")

    @pytest.mark.parametrize(("no_color", "coloured"), [(None, True), ("1", False)])
    def test_colour_on_a_terminal_only(self, monkeypatch, no_color, coloured):
        monkeypatch.setattr("sys.stdout.isatty", lambda: True, raising=False)
        monkeypatch.setenv("TERM", "xterm")
        monkeypatch.delenv("NO_COLOR", raising=False)
        if no_color:
            monkeypatch.setenv("NO_COLOR", no_color)
        assert ("\033[32mOK" in render.as_text([ok("a", "good")])) is coloured
