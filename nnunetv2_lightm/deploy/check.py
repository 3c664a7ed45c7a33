"""Compares an export with the trained network, on patches of real images."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from acvl_utils.cropping_and_padding.padding import pad_nd_image
from nnunetv2.paths import nnUNet_preprocessed
from nnunetv2.training.dataloading.nnunet_dataset import infer_dataset_class
from torch import Tensor

from ..dataset_json import channel_names_of
from ..images.cases import check_cases, find_cases, listed
from .errors import ExportError
from .model_folder import TrainedModel

MOST_CASES = 3
EQUAL_LABELS = 0.999  # of the voxels


@dataclass(frozen=True)
class Comparison:
    """Two networks on the same patches.

    Attributes:
        cases: Cases that the patches come from.
        largest_difference: Largest difference between two logits.
        largest_logit: Largest absolute logit, to put the difference into proportion.
        equal_labels: Share of the voxels that get the same labels.
    """

    cases: tuple[str, ...]
    largest_difference: float
    largest_logit: float
    equal_labels: float

    def __str__(self) -> str:
        return (
            f"logits differ by at most {self.largest_difference:.2g} (largest logit: {self.largest_logit:.3g}), labels "
            f"agree in {100 * self.equal_labels:.4g} % of the voxels of {', '.join(self.cases)}"
        )


def compare(
    model: TrainedModel,
    patches: dict[str, Tensor],
    trained: Callable[[Tensor], Tensor],
    exported: Callable[[Tensor], Tensor],
) -> Comparison:
    """Run both networks on patches (1, channels, *patch) -> (1, classes, *patch).

    Raises:
        ExportError: if a logit is NaN or infinite.
    """
    difference = largest = 0.0
    equal = voxels = 0
    with torch.inference_mode():
        for case, patch in patches.items():
            expected, given = trained(patch)[0], exported(patch)[0]
            for which, logits in (("trained", expected), ("exported", given)):
                if not torch.isfinite(logits).all():
                    raise ExportError(f"{model.folder}: the {which} network gives NaN or infinite logits on {case}")
            difference = max(difference, (expected - given).abs().max().item())
            largest = max(largest, expected.abs().max().item())
            labels = [_labels(model, logits) for logits in (expected, given)]
            equal += int((labels[0] == labels[1]).sum())
            voxels += labels[0].size
    return Comparison(tuple(patches), difference, largest, equal / voxels)


def _labels(model: TrainedModel, logits: Tensor) -> np.ndarray:
    return np.asarray(model.labels.convert_logits_to_segmentation(logits.float()))


def real_patches(model: TrainedModel, images: Path | None) -> dict[str, Tensor]:
    """The middle of up to three images, as the network sees it, by the name of the case.

    Args:
        model: The model whose preprocessing is applied.
        images: Folder of images as nnUNetv2_predict takes them; None: preprocessed cases of the model's data set.

    Raises:
        ExportError: if there are none, or if the images are damaged or lack a channel.
    """
    cases = _preprocessed(model) if images is None else _from_images(model, images)
    return {name: _middle(model, data) for name, data in cases.items()}


def _from_images(model: TrainedModel, images: Path) -> dict[str, np.ndarray]:
    ending = model.dataset_json["file_ending"]
    cases, faults = find_cases(images, ending)
    if not (cases or faults):
        raise ExportError(f"{images}: holds no images as nnUNetv2_predict takes them, CASE_0000{ending}")
    used = {case: cases[case] for case in sorted(cases)[:MOST_CASES]}
    faults += check_cases(used, channel_names_of(model.dataset_json), ending, as_nnunet=True).faults
    if faults:
        raise ExportError(f"{images}: the export cannot be checked on these images:{listed(faults)}")
    preprocessor = model.settings.preprocessor_class(verbose=False)
    return {
        case: preprocessor.run_case(list(map(str, paths)), None, model.plans, model.settings, model.dataset_json)[0]
        for case, paths in used.items()
    }


def _preprocessed(model: TrainedModel) -> dict[str, np.ndarray]:
    folder = Path(nnUNet_preprocessed or "", model.plans.dataset_name, model.settings.data_identifier)
    if nnUNet_preprocessed is None or not folder.is_dir():
        raise ExportError(
            f"there are no images to check the export on: {folder} is not there; give some as nnUNetv2_predict takes "
            "them: --check-images FOLDER"
        )
    dataset = infer_dataset_class(str(folder))(str(folder))
    if not dataset.identifiers:
        raise ExportError(f"{folder}: holds no preprocessed cases; give images: --check-images FOLDER")
    return {name: np.asarray(dataset.load_case(name)[0]) for name in sorted(dataset.identifiers)[:MOST_CASES]}


def _middle(model: TrainedModel, data: np.ndarray) -> Tensor:
    """data: (channels, *spatial) -> (1, channels, *patch); in 2D of the middle slice."""
    patch: Sequence[int] = model.settings.patch_size
    if len(patch) == 2:
        data = data[:, data.shape[1] // 2]
    data = pad_nd_image(np.asarray(data, np.float32), patch)
    starts = [(size - length) // 2 for size, length in zip(data.shape[1:], patch, strict=True)]
    window = tuple(slice(start, start + length) for start, length in zip(starts, patch, strict=True))
    return torch.from_numpy(np.ascontiguousarray(data[(slice(None), *window)])[None])
