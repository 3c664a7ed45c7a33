"""Help is printed at once: no command loads torch, scipy or nnunetv2 before its arguments are read."""

from __future__ import annotations

import subprocess
import sys

import pytest

from nnunetv2_lightm.cli import COMMANDS

SLOW = {"torch", "scipy", "numpy", "nnunetv2", "matplotlib", "SimpleITK"}
PROGRAM = """
import sys
from nnunetv2_lightm.cli import main
try:
    main(sys.argv[1:])
except SystemExit as end:
    print("loaded", *{name.partition(".")[0] for name in sys.modules})
    sys.exit(end.code)
"""


@pytest.mark.parametrize("command", [(), *((name,) for name in COMMANDS)], ids=" ".join)
def test_help_loads_nothing_slow(command):
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, *command, "--help"], capture_output=True, text=True, check=True
    )
    help_text, _, loaded = done.stdout.rpartition("loaded ")
    assert help_text.startswith(f"usage: {' '.join(('nnUNetv2_lightm', *command))}")
    assert not SLOW & set(loaded.split())
