"""nnU-Net in this process, with three folders for the tests of a module."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from ..nnunet_in_process import Nnunet, nnunet_in_process


@pytest.fixture(scope="module")
def nnunet(module_folder: Path) -> Iterator[Nnunet]:
    with nnunet_in_process(module_folder) as nnunet:
        yield nnunet
