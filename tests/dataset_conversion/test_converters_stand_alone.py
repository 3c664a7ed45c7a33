"""The converters need no torch, and of the rest of the package only the rooms named here."""

from __future__ import annotations

CODE = """
import sys
light = ("dataset_conversion", "escaping", "files", "images", "limits", "nnunet", "option_types", "signals")
before = set(sys.modules)
from nnunetv2_lightm.dataset_conversion import Dataset801_LiTS, Dataset802_MontgomeryShenzhen, phantoms
loaded = sys.modules.keys() - before
own = {name for name in loaded if name.startswith("nnunetv2_lightm.")}
print(
    sorted({"torch", "nnunetv2"} & loaded),
    sorted(name for name in own if name.split(".")[1] not in light),
)
"""


def test_no_heavy_import(start_python):
    output, error = start_python(CODE).communicate(timeout=60)
    assert output == "[] []\n", error


def test_phantoms_run_as_a_module(start_python, tmp_path):
    run = "import runpy; runpy.run_module('nnunetv2_lightm.dataset_conversion.phantoms', run_name='__main__')"
    process = start_python(run, tmp_path / "p", "--num-cases", 1, "--shape", 16, 16, 16)
    output, error = process.communicate(timeout=60)
    assert process.returncode == 0, error
    assert len(list((tmp_path / "p").glob("[!.]*"))) == 2
