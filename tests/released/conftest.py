"""Checkpoints of the authors' fork."""

from __future__ import annotations

import pytest
import torch

from .fork_checkpoint import fork_checkpoint, network_of, without_values


@pytest.fixture(scope="module")
def empty_weights():
    """The head revision in 3D, one stored number a parameter."""
    return without_values(network_of())


@pytest.fixture
def source(tmp_path, empty_weights):
    """Writes a checkpoint of the fork and returns its path."""

    def write(name="fork.pth", *, init_args=None, **arguments):
        content = fork_checkpoint(**{"weights": dict(empty_weights), **arguments})
        content["init_args"].update(init_args or {})
        path = tmp_path / name
        torch.save(content, path)
        return path

    return write
