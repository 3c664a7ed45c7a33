"""The weights of a trained model as they are stored, compared with the trained ones on real patches."""

from __future__ import annotations

from copy import deepcopy
from pathlib import Path

from torch import Tensor, nn

from .check import EQUAL_LABELS, Comparison, compare, real_patches
from .errors import ExportError
from .model_folder import TrainedModel
from .network import tensors_of


def stored_weights(
    model: TrainedModel, *, half: bool, check_images: Path | None
) -> tuple[dict[str, dict[str, Tensor]], Comparison]:
    """The weights of each fold as they are stored, and the effect of that, for the fold where it is largest.

    Args:
        model: A model of any trainer.
        half: Store matrices and kernels in float16.
        check_images: Images to compare both precisions on; None: preprocessed cases of the model's data set.

    Raises:
        ExportError: if a weight is not finite, or float16 changes the labels of more than one voxel in 1000.
    """
    patches = real_patches(model, check_images)
    stored = {
        fold: tensors_of(model.network, weights, half, model.folder / fold / model.checkpoint)
        for fold, weights in model.weights.items()
    }
    comparisons = [_compare(model, weights, stored[fold], patches) for fold, weights in model.weights.items()]
    worst = min(comparisons, key=lambda comparison: comparison.equal_labels)
    if worst.equal_labels < EQUAL_LABELS:
        raise ExportError(f"float16 is too coarse for this model: {worst}; export with --float32")
    return stored, worst


def _compare(
    model: TrainedModel, weights: dict[str, Tensor], stored: dict[str, Tensor], patches: dict[str, Tensor]
) -> Comparison:
    """Compare the network with its trained weights and with the stored ones, loaded as nnU-Net loads them."""

    def network_with(state: dict[str, Tensor]) -> nn.Module:
        network = deepcopy(model.network)
        network.load_state_dict({name: state[name] for name in stored})
        return network

    return compare(model, patches, network_with(weights), network_with(stored))
