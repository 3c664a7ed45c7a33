"""extras.py: a library that is missing is named with the command that installs it."""

from __future__ import annotations

import sys

import pytest

from nnunetv2_lightm.extras import import_extra, install_command


@pytest.mark.parametrize(
    ("module", "command"),
    [
        ("monai.networks.nets", 'python -m pip install "monai>=1.5'),
        ("thop", 'python -m pip install "thop==0.1.1.post2209072238"'),
        ("mambapy.mamba", 'python -m pip install "mambapy==1.2.*"'),
        ("mamba_ssm", 'python -m pip install "mamba-ssm>=2.2"'),
    ],
)
def test_a_missing_library_is_named_with_the_command(monkeypatch, module, command):
    for name in {module.split(".")[0], module}:  # another test may have imported the submodule
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(ImportError) as error:
        import_extra(module, "nnUNetTrainerX")
    distribution = module.split(".")[0].replace("_", "-")
    assert str(error.value).startswith(f"nnUNetTrainerX needs {distribution}, which is not installed: {command}")


def test_a_broken_library_is_not_called_missing(monkeypatch, tmp_path):
    (tmp_path / "broken_library.py").write_text("import another_library_that_is_missing\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.raises(ImportError, match="needs broken-library, which is installed but cannot be imported") as error:
        import_extra("broken_library", "nnUNetTrainerX")
    assert "another_library_that_is_missing" in str(error.value)


def test_a_library_that_is_there_is_imported():
    assert import_extra("os.path", "a test").join("a", "b")


def test_a_library_of_no_extra_has_a_command_too():
    assert install_command("something-else") == 'python -m pip install "something-else"'
