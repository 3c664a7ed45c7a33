"""commands/doctor/: every fault is made for real and must be named, with the fix."""

from __future__ import annotations

import json
import os
from importlib.metadata import requires
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from nnunetv2_lightm.autoload import boot, shim_directory
from nnunetv2_lightm.commands.doctor import command as doctor
from nnunetv2_lightm.commands.doctor import discovery, folders, fresh_process, libraries, scan_backends
from nnunetv2_lightm.commands.doctor.finding import Finding, Status, note, ok
from nnunetv2_lightm.ops.backends import ENVIRONMENT_VARIABLE, native_library

pytestmark = pytest.mark.usefixtures("healthy_environment")

TRAINER = "nnUNetTrainerLightMUNet"
RIVAL = f"from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer\nclass {TRAINER}(nnUNetTrainer): ..."


def user_directory(path: Path, source: str) -> str:
    path.mkdir()
    (path / f"{path.name}_module.py").write_text(source + "\n")
    return str(path)


def put_before_ours(monkeypatch, *directories: str) -> None:
    monkeypatch.setenv(boot.EXT_TRAINER_VARIABLE, os.pathsep.join([*directories, shim_directory()]))


def the_only(findings: list[Finding]) -> Finding:
    (finding,) = findings
    return finding


def probed(**steps: object) -> dict[str, object]:
    """What the examination says of a healthy machine, with some steps replaced."""
    healthy = {name: {"path": str(libraries._installed_path(name))} for name in fresh_process.LIBRARIES}
    return healthy | {"devices": ["cpu"]} | steps


@pytest.mark.slow
class TestWholeScreen:
    def test_healthy_machine(self, capsys):
        assert doctor.main([]) == 0
        printed = capsys.readouterr().out
        assert "FAIL" not in printed
        assert f"{TRAINER} is found, by the autoload" in printed
        assert printed.splitlines()[-1].startswith("Training can start")
        assert len(printed.splitlines()) <= 25

    def test_everything_is_wrong_at_once(self, monkeypatch, capsys, tmp_path):
        """A broken directory, no folders: each failure is named in the verdict, and the exit code is 1."""
        broken = user_directory(tmp_path / "broken", "import a_library_that_is_missing")
        put_before_ours(monkeypatch, broken)
        for variable in folders.FOLDERS:
            monkeypatch.delenv(variable)
        assert doctor.main(["--json"]) == 1
        report = json.loads(capsys.readouterr().out)
        assert report["training_would_start"] is False
        failed = {finding["subject"]: finding for finding in report["findings"] if finding["status"] == "FAIL"}
        assert list(failed) == ["trainers", *folders.FOLDERS]
        assert broken in failed["trainers"]["message"]
        assert "a_library_that_is_missing" in failed["trainers"]["message"]
        assert "broken_module.py, line 1)" in failed["trainers"]["message"]


@pytest.mark.slow
class TestDiscovery:
    def test_rival_before_ours_wins(self, monkeypatch, tmp_path):
        rival = user_directory(tmp_path / "rival", RIVAL)
        put_before_ours(monkeypatch, rival)
        finding = the_only(discovery.check_discovery(fresh_process.examine()))
        assert finding.status is Status.FAIL
        assert f"another {TRAINER} wins: {rival}" in finding.message
        assert finding.remedy

    def test_what_does_no_harm_is_noted(self, monkeypatch, tmp_path):
        """A directory that does not exist, and after ours a rival and a directory that cannot be imported."""
        missing = str(tmp_path / "missing")
        rival = user_directory(tmp_path / "rival", RIVAL)
        broken = user_directory(tmp_path / "broken", "this is no Python")
        monkeypatch.setenv(boot.EXT_TRAINER_VARIABLE, os.pathsep.join([missing, shim_directory(), rival, broken]))
        monkeypatch.setattr(boot, "announced", False)
        found, *notes = discovery.check_discovery(fresh_process.examine())
        assert found.status is Status.OK
        assert "as it was exported" in found.message
        assert [finding.status for finding in notes] == [Status.NOTE] * 3
        assert f"{missing} in nnUNet_extTrainer does not exist" in notes[0].message
        assert f"{rival} holds another {TRAINER}; ours comes first" in notes[1].message
        assert f"{broken}/broken_module.py, line 1" in notes[2].message
        assert "SyntaxError" in notes[2].message

    def test_a_path_that_nnunet_takes_apart(self, monkeypatch):
        monkeypatch.setattr(discovery, "shim_directory", lambda: f"/environment{os.pathsep}/shim")
        found = {"lookup": {"error": "not found"}, "own tree": None, "directories": []}
        finding = the_only(discovery.check_discovery(found))
        assert finding.status is Status.FAIL
        assert f"at each {os.pathsep!r}" in finding.message and "ln -s" in finding.remedy[1]

    def test_kill_switch(self, monkeypatch):
        monkeypatch.setenv(boot.SWITCH_VARIABLE, "0")
        finding = the_only(discovery.check_discovery(fresh_process.examine()))
        assert finding.status is Status.FAIL
        assert "NNUNETV2_LIGHTM_AUTOLOAD=0 switches the autoload off" in finding.message
        assert finding.remedy == ("unset NNUNETV2_LIGHTM_AUTOLOAD",)

    def test_trainer_in_the_tree_of_nnunetv2_wins(self):
        module = f"nnunetv2.training.nnUNetTrainer.{TRAINER}"
        lookup = {"module": module, "by autoload": True}
        found = {"lookup": lookup, "own tree": module, "directories": []}
        finding = the_only(discovery.check_discovery(found))
        assert finding.status is Status.FAIL
        assert f"nnunetv2's own tree holds another {TRAINER} ({module})" in finding.message
        (needed,) = [line for line in requires("nnunetv2-lightm") if Requirement(line).name == "nnunetv2"]
        assert finding.remedy[1] == f'python -m pip install "{Requirement(needed)}"'

    def test_startup_file_that_is_not_read(self):
        error = {"error": "RuntimeError: Could not find requested nnunet trainer nnUNetTrainerLightMUNet in ..."}
        finding = the_only(discovery.check_discovery({"lookup": error, "own tree": None, "directories": []}))
        assert finding.status is Status.FAIL
        assert any(shim_directory() in step for step in finding.remedy)

    def test_our_own_package_is_broken(self):
        error = {"error": "ImportError: nnunetv2-lightm cannot be imported by python3: ..."}
        directories = [{"path": shim_directory(), "exists": True, "finds": error}]
        found = {"lookup": error, "own tree": None, "directories": directories}
        finding = the_only(discovery.check_discovery(found))
        assert (finding.status, finding.message) == (Status.FAIL, error["error"])


@pytest.mark.slow
class TestLibraries:
    def test_installed_versions_agree(self):
        assert the_only(libraries.check_torch(probed())).status is Status.OK
        assert the_only(libraries.check_nnunetv2(probed())).status is Status.OK

    @pytest.mark.parametrize(("installed", "said"), [("2.1.1", "forks of nnU-Net"), ("2.9.0", "is needed")])
    def test_nnunetv2_out_of_range(self, monkeypatch, tmp_path, installed, said):
        stub_distribution(monkeypatch, tmp_path, "nnunetv2", installed)
        finding = the_only(libraries.check_nnunetv2(probed()))
        assert finding.status is Status.FAIL
        assert finding.message.startswith(f"{installed} is installed")
        assert said in finding.message
        assert finding.remedy[0].startswith('python -m pip install "nnunetv2')

    def test_nnunetv2_from_another_place(self, tmp_path):
        finding = the_only(libraries.check_nnunetv2(probed(nnunetv2={"path": str(tmp_path)})))
        assert finding.status is Status.NOTE
        assert str(tmp_path) in finding.message

    def test_torchvision_that_dies_at_import(self, monkeypatch, tmp_path):
        """The stub stands for a torchvision built for another torch; the real look-up fails on it as well."""
        (tmp_path / "torchvision").mkdir()
        source = "raise RuntimeError('operator torchvision::nms does not exist')\n"
        (tmp_path / "torchvision" / "__init__.py").write_text(source)
        monkeypatch.setenv("PYTHONPATH", str(tmp_path))
        found = fresh_process.examine()
        finding = the_only(libraries.check_torch(found))
        assert finding.status is Status.FAIL
        assert "does not match torch" in finding.message
        assert "torchvision::nms does not exist" in finding.message
        assert "--force-reinstall --no-deps" in finding.remedy[0]
        assert the_only(discovery.check_discovery(found)).status is Status.FAIL

    @pytest.mark.parametrize(("torch", "torchvision"), [("2.6.0", "0.21"), ("2.14.1+cpu", "0.29")])
    def test_torchvision_that_asks_for_another_torch(self, monkeypatch, tmp_path, torch, torchvision):
        stub_distribution(monkeypatch, tmp_path, "torch", torch)
        stub_distribution(monkeypatch, tmp_path, "torchvision", "0.99.0", requires="torch==2.84.0")
        finding = the_only(libraries.check_torch(probed()))
        assert finding.status is Status.FAIL
        assert "it asks for torch ==2.84.0" in finding.message
        assert f'"torchvision=={torchvision}.*"' in finding.remedy[0]

    def test_torch_that_nnunetv2_excludes(self, monkeypatch, tmp_path):
        stub_distribution(monkeypatch, tmp_path, "torch", "2.9.1")
        finding = the_only(libraries.check_torch(probed()))
        assert finding.status is Status.FAIL
        assert "nnunetv2 asks for torch" in finding.message

    def test_torch_with_a_known_hole(self, monkeypatch, tmp_path):
        stub_distribution(monkeypatch, tmp_path, "torch", "2.8.0")
        stub_distribution(monkeypatch, tmp_path, "torchvision", "0.23.0", requires="torch==2.8.0")
        finding = the_only(libraries.check_torch(probed()))
        assert finding.status is Status.FAIL
        assert "torch 2.8.0 is installed, but nnunetv2-lightm asks for torch >=2.10" in finding.message

    def test_library_that_kills_the_process(self, monkeypatch, tmp_path):
        (tmp_path / "timm").mkdir()
        (tmp_path / "timm" / "__init__.py").write_text("import os; os._exit(66)\n")
        monkeypatch.setenv("PYTHONPATH", str(tmp_path))
        found = fresh_process.examine()
        assert "path" in found["torch"]
        finding = the_only(libraries.check_torch(found))
        assert finding.status is Status.FAIL
        assert "ended with exit code 66" in finding.message
        assert "not tried, because of timm" in the_only(discovery.check_discovery(found)).message

    def test_device(self):
        assert the_only(libraries.check_device({"devices": ["cpu", "cuda"]})) == ok("device", "CUDA")
        assert "`-device mps`" in the_only(libraries.check_device({"devices": ["cpu", "mps"]})).message


def stub_distribution(monkeypatch, folder: Path, name: str, version: str, requires: str | None = None) -> None:
    """Metadata of a distribution, before the real one on the search path."""
    information = folder / f"{name}-{version.replace('+', '_')}.dist-info"
    information.mkdir()
    lines = ["Metadata-Version: 2.1", f"Name: {name}", f"Version: {version}"]
    lines += [f"Requires-Dist: {requires}"] if requires else []
    (information / "METADATA").write_text("\n".join(lines) + "\n")
    monkeypatch.syspath_prepend(str(folder))


class TestBackends:
    FAST = {"name": "fast", "device": "cpu", "usable": False, "reason": "no compiler", "considered": True}
    PLAIN = {"name": "plain", "device": "cpu", "usable": True, "reason": "PyTorch", "considered": True}
    OTHER = {"name": "other", "device": "cpu", "usable": False, "reason": "CUDA only", "considered": False}

    def check(self, selected: str | None, **fast: object) -> Finding:
        rows = [self.FAST | fast, self.PLAIN, self.OTHER]
        rows = [row | {"selected": row["name"] == selected} for row in rows]
        return the_only(scan_backends.check_backends({"backends": rows}))

    def test_each_device_says_what_is_taken_and_why_not_the_others(self):
        expected = "cpu: plain (taken); not fast: no compiler. Everything works, but slower"
        assert self.check("plain") == note("scan backends", expected)

    def test_backends_of_other_devices_are_not_missed(self):
        expected = "cpu: fast (taken), plain"
        assert self.check("fast", usable=True, reason="C++") == ok("scan backends", expected)

    def test_backend_that_cannot_run_is_asked_for(self, monkeypatch):
        monkeypatch.setenv("NNUNETV2_LIGHTM_BACKEND", "fast")
        finding = self.check(None)
        assert finding.status is Status.FAIL
        expected = "cpu: NNUNETV2_LIGHTM_BACKEND asks for fast, which does not run there: no compiler"
        assert finding.message == expected
        assert finding.remedy == ("unset NNUNETV2_LIGHTM_BACKEND",)

    def test_backend_that_runs_on_another_device_is_asked_for(self, monkeypatch):
        monkeypatch.setenv("NNUNETV2_LIGHTM_BACKEND", "fast")
        cpu = self.FAST | {"selected": False}
        cuda = cpu | {"device": "cuda", "usable": True, "selected": True}
        findings = scan_backends.check_backends({"backends": [cpu, cuda]})
        assert [finding.status for finding in findings] == [Status.NOTE, Status.OK]

    def test_installed_without_a_compiler(self, monkeypatch):
        """The compiled library is not where the installation would have put it."""
        monkeypatch.setattr(native_library, "LIBRARY", Path("absent.so"))
        # What has been found out in this process is asked anew.
        monkeypatch.setattr(native_library, "library_or_reason", native_library.library_or_reason.__wrapped__)
        finding = scan_backends.check_backends({"backends": fresh_process._outcome(fresh_process._backends)})[0]
        assert finding.status is Status.NOTE
        assert "torch_chunked (taken); not cpu_native: " in finding.message
        assert "was not compiled at installation, which needs GCC or Clang (C++17): install one" in finding.message
        assert finding.message.endswith("Everything works, but slower")

    def test_the_variable_is_that_of_the_operators(self):
        assert scan_backends.FORCING_VARIABLE == ENVIRONMENT_VARIABLE

    def test_reference_is_asked_for(self, monkeypatch):
        monkeypatch.setenv("NNUNETV2_LIGHTM_BACKEND", "reference")
        assert self.check(None).status is Status.NOTE

    def test_backend_that_does_not_exist_is_asked_for(self, monkeypatch):
        monkeypatch.setenv("NNUNETV2_LIGHTM_BACKEND", "warp_drive")
        finding = the_only(scan_backends.check_backends({"backends": fresh_process._outcome(fresh_process._backends)}))
        assert finding.status is Status.FAIL
        assert "warp_drive" in finding.message
