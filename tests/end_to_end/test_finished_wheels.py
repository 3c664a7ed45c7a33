"""Installs what `make wheels` built, without index and compiler, in the oldest and the newest Python there is here."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import compat
import pytest
from installing import DISTRIBUTION, Environment, no_compiler

pytestmark = pytest.mark.end_to_end

DIST = Path(__file__).resolve().parents[2] / "dist"
# Without torch: the library is independent of it, and of the Python that it is called from.
LOAD = """
import ctypes, json, runpy, sys
from pathlib import Path
from nnunetv2_lightm import installation
ops = Path(installation.__file__).parent / "ops"
interface = runpy.run_path(str(ops / "backends" / "native_interface.py"))
library = ctypes.CDLL(str(ops / interface["FILE_NAMES"][sys.platform]))
library.nnunetv2_lightm_interface.restype = ctypes.c_char_p
values = (ctypes.c_float * 16)(*[3.0] * 16)
library.nnunetv2_lightm_apply(0, ctypes.c_int64(0), values, values, ctypes.c_int64(16))
print(json.dumps([
    installation.describe(),
    library.nnunetv2_lightm_interface().decode() == interface["fingerprint"](),
    values[15],
]))
"""


def interpreters() -> list[Path]:
    found = [path for version in compat.supported_pythons() if (path := compat.find_interpreter(version))]
    return list(dict.fromkeys([found[0], found[-1]]))


@pytest.mark.parametrize("interpreter", interpreters(), ids=lambda path: path.parent.parent.name)
def test_pip_takes_the_wheel_with_the_library(tmp_path, interpreter):
    if not list(DIST.glob("*-py3-none-[!a]*.whl")):
        pytest.skip("no wheels in dist/: `make wheels` builds them")
    subprocess.run([interpreter, "-m", "venv", tmp_path / "venv"], check=True)
    environment = Environment(tmp_path)
    before = environment.files()
    arguments = ("install", "--no-index", "--no-deps", "--find-links", DIST, DISTRIBUTION)
    environment.pip(*arguments, **no_compiler(tmp_path), PIP_CONFIG_FILE=os.devnull, PIP_FIND_LINKS="")
    description, fits, eight = json.loads(environment.python_says(LOAD)[-1])
    assert compat.wheel_tag(environment) != "py3-none-any"
    assert f"wheel {compat.wheel_tag(environment)} from" in description
    assert fits
    assert eight == 8
    environment.pip("uninstall", "--yes", DISTRIBUTION)
    assert environment.files() == before
