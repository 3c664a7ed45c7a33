"""What torch.compile and torch.export take for a constant."""

from __future__ import annotations

import torch

# A function with this decorator is evaluated once, at trace time: its answer is a constant of the graph.
constant_in_graphs = torch.compiler.assume_constant_result
