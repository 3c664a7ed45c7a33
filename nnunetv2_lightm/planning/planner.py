"""nnU-Net's experiment planner for LightMUNet."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence, Set
from pathlib import Path

import numpy as np
from batchgenerators.utilities.file_and_folder_operations import load_json, save_json
from dynamic_network_architectures.building_blocks.helper import convert_dim_to_conv_op
from nnunetv2.experiment_planning.experiment_planners.default_experiment_planner import ExperimentPlanner
from nnunetv2.paths import nnUNet_preprocessed
from nnunetv2.utilities.json_export import recursive_fix_for_json_export

from ..files import Record, set_aside
from . import PLANS_NAME, STOCK_PLANS_NAME
from .memory_model import GPU, USABLE_SHARE
from .patch import Patch, largest_patch

MADE_BY = "nnunetv2_lightm plan"
NETWORK = "nnunetv2_lightm.networks.LightMUNet"
# The widths and depths that the memory was measured with: those of the paper.
WIDTHS = {"features": 32, "rvm_layers": (1, 2, 2), "bottleneck_rvm_layers": 4, "expand": 2, "d_state": 16}
PLANNED = {"2d", "3d_fullres", "3d_lowres", "3d_cascade_fullres"}
# What decides how a case is preprocessed.
DATA_KEYS = (
    "preprocessor_name",
    "spacing",
    "normalization_schemes",
    "use_mask_for_norm",
    "resampling_fn_data",
    "resampling_fn_data_kwargs",
    "resampling_fn_seg",
    "resampling_fn_seg_kwargs",
)


class PlanningError(ValueError):
    """Nothing can be planned; the message says why and what to do."""


class nnUNetPlannerLightMUNet(ExperimentPlanner):
    """Plans for LightMUNet: the data as stock nnU-Net plans it, patch and batch size by what LightMUNet needs.

    Args:
        dataset_name_or_id: As in :class:`ExperimentPlanner`, like the following ones.
        gpu_memory_target_in_gb: GiB of the GPU; a tenth is left to CUDA and the allocator.
        preprocessor_name: Name of a preprocessor of nnU-Net.
        plans_name: Name of the plans file.
        overwrite_target_spacing: Spacing of 3d_fullres, in mm.
        suppress_transpose: Leave the axes in their order.
        batch_size: The same for every configuration; None: at least two, and as many as fit, by nnU-Net's rules.
    """

    def __init__(
        self,
        dataset_name_or_id: str | int,
        gpu_memory_target_in_gb: float = 8,
        preprocessor_name: str = "DefaultPreprocessor",
        plans_name: str = PLANS_NAME,
        overwrite_target_spacing: Sequence[float] | None = None,
        suppress_transpose: bool = False,
        *,
        batch_size: int | None = None,
    ) -> None:
        super().__init__(
            dataset_name_or_id,
            gpu_memory_target_in_gb,
            preprocessor_name,
            plans_name,
            overwrite_target_spacing,
            suppress_transpose,
        )
        self.batch_size = batch_size

    @staticmethod
    def static_estimate_VRAM_usage(*_: object, **__: object) -> int:  # noqa: N802
        """nnU-Net's own network is not planned for: report that any patch fits, without building it."""
        return 1

    def get_plans_for_configuration(
        self,
        spacing: np.ndarray,
        median_shape: np.ndarray | Sequence[float],
        data_identifier: str,
        approximate_n_voxels_dataset: float,
        _cache: dict,
    ) -> dict:
        """nnU-Net's plan for the data, with our network in it and a patch and a batch that suit it.

        Raises:
            PlanningError: if nothing fits into the memory.
        """
        patch, batch_size = self._patch_and_batch(spacing, median_shape[: len(spacing)], approximate_n_voxels_dataset)
        plan = super().get_plans_for_configuration(
            spacing, median_shape, data_identifier, approximate_n_voxels_dataset, _cache
        )
        conv_op = convert_dim_to_conv_op(len(spacing))
        plan["patch_size"], plan["batch_size"] = patch.size, batch_size
        plan["architecture"] = {
            "network_class_name": NETWORK,
            "arch_kwargs": {
                "conv_op": f"{conv_op.__module__}.{conv_op.__name__}",
                **WIDTHS,
                "strides": patch.strides,
            },
            "_kw_requires_import": ("conv_op",),
        }
        plan["data_identifier"] = self._own_identifier_if_data_differ(plan)
        return plan

    def generate_data_identifier(self, configuration_name: str) -> str:
        """2d and 3d_fullres are preprocessed as by stock plans, so one copy of the data serves both; the spacing of
        3d_lowres depends on the patch. As in nnU-Net's ResEncUNetPlanner."""
        shared = configuration_name in ("2d", "3d_fullres")
        return f"{STOCK_PLANS_NAME if shared else self.plans_identifier}_{configuration_name}"

    def save_plans(self, plans: dict) -> None:
        """Write the plans file atomically. Like nnU-Net, keep the user's own configurations from an earlier file; a
        file that was edited or made by another planner is renamed first."""
        folder = Path(nnUNet_preprocessed, self.dataset_name)
        file = folder / f"{self.plans_identifier}.json"
        recursive_fix_for_json_export(plans)
        plans["configurations"].update(_own_configurations(file, plans["configurations"].keys() | PLANNED))
        record = Record.read(folder) or Record(folder)
        if record.not_ours(file):
            set_aside(file)
        with record.writing(file, MADE_BY) as partial:
            save_json(plans, str(partial), sort_keys=False)

    def _patch_and_batch(
        self, spacing: Sequence[float], median_shape: Sequence[float], dataset_voxels: float
    ) -> tuple[Patch, int]:
        """The largest patch for the smallest allowed batch, then the largest batch for that patch."""
        classes = len(self.dataset_json["labels"])
        gib = USABLE_SHARE * self.UNet_vram_target_GB
        least = self.batch_size or self.UNet_min_batch_size

        def fits(patch: Patch) -> bool:
            return GPU.gib(patch.size, patch.strides, least, classes) <= gib

        patch = largest_patch(spacing, median_shape, fits)
        if patch is None:
            raise PlanningError(
                f"no patch of LightMUNet's {len(spacing)}D network fits into {self.UNet_vram_target_GB:g} GB with a "
                f"batch of {least}; give it more memory, or a smaller batch"
            )
        # nnU-Net's precaution against overfitting: a batch sees at most a twentieth of the data set.
        most = round(dataset_voxels * self.max_dataset_covered / math.prod(patch.size))
        return patch, self.batch_size or max(
            least, min(GPU.largest_batch(gib, patch.size, patch.strides, classes), most)
        )

    def _own_identifier_if_data_differ(self, plan: dict) -> str:
        """Do not share preprocessed data with stock plans that preprocess differently, e.g. to another spacing."""
        identifier = plan["data_identifier"]
        stock_plans = Path(nnUNet_preprocessed, self.dataset_name, f"{STOCK_PLANS_NAME}.json")
        if not stock_plans.is_file():
            return identifier
        for stock in load_json(str(stock_plans))["configurations"].values():
            # A configuration of the user's may inherit some of the keys.
            differ = any(key in stock and _differ(stock[key], plan[key]) for key in DATA_KEYS)
            if stock.get("data_identifier") == identifier and differ:
                return identifier.replace(STOCK_PLANS_NAME, self.plans_identifier, 1)
        return identifier


def check_plans_replaceable(file: Path) -> None:
    """
    Raises:
        PlanningError: if a plans file was edited, or not made by this planner.
    """
    if (Record.read(file.parent) or Record(file.parent)).not_ours(file):
        raise PlanningError(
            f"{file} already exists, and was edited or made by another planner. Give another --plans-name; or "
            f"--overwrite, which renames it to kept_{file.name}"
        )


def _own_configurations(file: Path, planned: Set[str]) -> dict:
    """Configurations of an earlier plans file that are not planned; none if it is not a plans file."""
    try:
        earlier = json.loads(file.read_text(encoding="utf-8"))["configurations"]
        return {name: content for name, content in earlier.items() if name not in planned}
    except (FileNotFoundError, ValueError, KeyError, TypeError, AttributeError):
        return {}


def _differ(stock: object, ours: object) -> bool:
    """Whether two values of plans files differ; JSON preserves numbers to the last digit."""
    return stock != (ours.tolist() if isinstance(ours, np.ndarray) else ours)
