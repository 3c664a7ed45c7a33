"""nnU-Net in this process, with three folders for the tests of a module."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from ..nnunet_in_process import Nnunet, nnunet_in_process


@pytest.fixture(scope="module")
def nnunet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Nnunet]:
    with nnunet_in_process(tmp_path_factory.mktemp("nnunet")) as nnunet:
        yield nnunet
