"""Checks of preprocessed cases: nnU-Net trains on whatever it finds in their folder."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from nnunetv2.preprocessing.resampling.default_resampling import compute_new_shape
from nnunetv2.training.dataloading.nnunet_dataset import nnUNetBaseDataset, nnUNetDatasetBlosc2
from nnunetv2.utilities.plans_handling.plans_handler import ConfigurationManager, PlansManager

from .nnunet_faults import plan_again


def check_preprocessed_cases(
    datasets: Sequence[nnUNetBaseDataset],
    channel_names: Mapping[str, str],
    plans: PlansManager,
    configuration: ConfigurationManager,
) -> None:
    """Check the shapes of the preprocessed cases.

    Raises:
        ValueError: if an image has another number of channels than dataset.json names, or was resampled to another
            spacing than that of the plans, which nnU-Net would take for a prediction.
    """
    again = plan_again(plans.dataset_name)
    for case, shape, properties in _cases(datasets):
        channels, *voxels = shape
        if channels != len(channel_names):
            raise ValueError(
                f"{case} was preprocessed with {channels} channels, {len(channel_names)} are needed "
                f"({', '.join(map(str, channel_names.values()))}): complete its files in imagesTr and preprocess again "
                f"({again})"
            )
        expected = resampled_shape(properties, plans, configuration)
        if expected is not None and voxels != expected:
            raise ValueError(
                f"{case} was preprocessed to {_sides(voxels)} voxels, but the spacing in the plans, "
                f"{_sides(configuration.spacing)} mm, gives it {_sides(expected)}: the plans were changed afterwards. "
                f"Preprocess again ({again})"
            )


def resampled_shape(
    properties: Mapping[str, Any], plans: PlansManager, configuration: ConfigurationManager
) -> list[int] | None:
    """Voxels that nnU-Net's preprocessor gives a case (default_preprocessor.py, run_case_npy); None: another one made
    it, or one of nnU-Net's without resampling."""
    settings = configuration.configuration
    resamples = str(settings.get("resampling_fn_data", "")).startswith("resample_")
    if settings.get("preprocessor_name") != "DefaultPreprocessor" or not resamples:
        return None
    if not {"spacing", "shape_after_cropping_and_before_resampling"} <= properties.keys():
        return None
    shape = properties["shape_after_cropping_and_before_resampling"]
    spacing = [properties["spacing"][axis] for axis in plans.transpose_forward]
    target = [*spacing[: len(shape) - len(configuration.spacing)], *configuration.spacing]  # 2d: not between slices
    return [int(length) for length in compute_new_shape(shape, spacing, target)]


def _cases(datasets: Sequence[nnUNetBaseDataset]) -> Iterator[tuple[str, tuple[int, ...], Mapping[str, Any]]]:
    """Cases with the shapes of their images, (channels, *voxels), and their properties."""
    for dataset in datasets:
        if isinstance(dataset, nnUNetDatasetBlosc2):  # other formats would have to be read whole to learn their shape
            for case in dataset.identifiers:
                image, _, _, properties = dataset.load_case(case)
                yield case, image.shape, properties


def _sides(numbers: Sequence[float]) -> str:
    return "x".join(f"{number:g}" for number in numbers)
