"""What docs/study compares: data sets with their plans, trainers, budgets, seeds."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from nnunetv2_lightm.nnunet import dataset_id
from nnunetv2_lightm.runs.pipeline import Step

# Comparisons 1 to 5, from the time when AdamW was the default recipe.
RIVALS = ("nnUNetTrainer", "nnUNetTrainerLightMUNetAdamW")
METHODS = (
    *RIVALS,
    "nnUNetTrainerLightMUNetPaperSGD",
    "nnUNetTrainerLightMUNetReleased",
    "nnUNetTrainerUMambaBot",
    "nnUNetTrainerSegResNet",
    "nnUNetTrainerUNETR",
    "nnUNetTrainerSwinUNETR",
)
NEW_ABLATIONS = tuple(
    f"nnUNetTrainerLightMUNet{name}" for name in ("Conv3", "SelfAttention", "NoAdjustment", "NoResidual")
)
ABLATIONS = tuple(f"{name}AdamW" for name in NEW_ABLATIONS)  # from variants/
# From variants/: what would help where stock nnU-Net is ahead?
VARIANTS = tuple(
    f"nnUNetTrainerLightMUNet{name}"
    for name in ("FullSkip", "DeepSupervision", "LR3e3", "LR3e4", "SGD", "TwoDirections", "Features48")
)

# The recipe that was on trial and is the default now, and the same on other networks, to tell network from optimiser.
NEW = "nnUNetTrainerLightMUNet"
SAME_RECIPE = ("nnUNetTrainerPlainMuon", "nnUNetTrainerSegResNetMuon", "nnUNetTrainerLightMUNetReleasedMuon")
RESENC_M = "nnUNetTrainerResEncM"
RULE = (RIVALS[0], NEW)  # docs/study/README.md


@dataclass(frozen=True)
class DataSet:
    """A data set and its plans.

    Attributes:
        name: As nnU-Net knows it.
        configuration: The configuration to train.
        plans: Identifier of the plans.
        convert: Makes the raw data set from the one in NNUNETV2_LIGHTM_DATA, "{data}".
        gpu_memory_target: Memory in GB for which nnU-Net plans the batch.
        not_pictured: Why the report shows none of its images; None: it shows some.
    """

    name: str
    configuration: str
    plans: str
    convert: str
    gpu_memory_target: float
    not_pictured: str | None

    @property
    def number(self) -> int:
        return dataset_id(self.name)

    def steps(self, folder: Path, data: Path) -> list[Step]:
        """From the images to the preprocessed data set."""
        raw, preprocessed = folder / "raw" / self.name, folder / "preprocessed" / self.name
        plan = f"nnUNetv2_plan_experiment -d {self.number} -gpu_memory_target {self.gpu_memory_target}"
        cases = f"nnUNetv2_preprocess -d {self.number} -plans_name {self.plans} -c {self.configuration} -np 2"
        made = (
            ("convert", self.convert.format(data=shlex.quote(str(data))), raw),
            (
                "fingerprint",
                f"nnUNetv2_extract_fingerprint -d {self.number}",
                preprocessed / "dataset_fingerprint.json",
            ),
            ("plan", f"{plan} -overwrite_plans_name {self.plans}", preprocessed / f"{self.plans}.json"),
            ("preprocess", cases, preprocessed / f"{self.plans}_{self.configuration}"),
        )
        return [
            Step(name, tuple(shlex.split(command)), (output,), leftovers=(output,)) for name, command, output in made
        ]


CHEST = DataSet(
    "Dataset802_MontgomeryShenzhen",
    "2d",
    "nnUNetPlans_batch4",
    "nnUNetv2_lightm convert montgomery-shenzhen {data}/chest_xray_masks_and_labels_256 --resize 128 128",
    0.16,
    not_pictured="the licence of the Shenzhen masks, CC BY-NC-SA 4.0, is not that of this report",
)
CHEST_256 = DataSet(
    "Dataset803_MontgomeryShenzhen256",
    "2d",
    "nnUNetPlans_batch4",
    "nnUNetv2_lightm convert montgomery-shenzhen {data}/chest_xray_masks_and_labels_256 --resize 256 256 "
    "--id 803 --name MontgomeryShenzhen256",
    0.6,
    not_pictured=CHEST.not_pictured,
)
HIPPOCAMPUS = DataSet(
    "Dataset004_Hippocampus",
    "3d_fullres",
    "nnUNetPlans_batch2",
    "nnUNetv2_convert_MSD_dataset -i {data}/Task04_Hippocampus -np 2",
    0.3,
    not_pictured=None,
)


@dataclass(frozen=True)
class Comparison:
    """Calls of `nnUNetv2_lightm benchmark`, one for each seed.

    Attributes:
        title: Human-readable title.
        data: The data set.
        methods: Trainers.
        budget: Budget option of the command, with its value.
        costs_of: The comparison whose measured costs are used.
        repeats: Number of seeds for each method; default: one.
    """

    title: str
    data: DataSet
    methods: tuple[str, ...]
    budget: tuple[str, str]
    costs_of: str
    repeats: Mapping[str, int] = field(default_factory=lambda: dict.fromkeys(RIVALS, 2))

    @property
    def seeds(self) -> dict[int, tuple[str, ...]]:
        """Trainers by seed."""
        most = max(self.repeats.get(method, 1) for method in self.methods)
        return {
            seed: tuple(method for method in self.methods if self.repeats.get(method, 1) > seed) for seed in range(most)
        }

    def command(
        self, methods: Sequence[str], seed: int, output: str, costs: str | None, *, timings: bool = True
    ) -> list[str]:
        data = ("-d", str(self.data.number), "-c", self.data.configuration, "-p", self.data.plans)
        calibration = () if costs is None else ("--calibration-of", costs)
        if not timings:
            calibration += ("--no-timings",)
        more = ("--seeds", str(seed), "-device", "cpu", *calibration, "--title", self.title, "-o", output)
        return ["nnUNetv2_lightm", "benchmark", *data, "-tr", *methods, *self.budget, *more]


COMPARISONS = {
    "chest_seconds": Comparison(
        "Chest X-rays, 2D: 8 minutes of training each", CHEST, METHODS, ("--wall-clock", "8min"), "chest_seconds"
    ),
    "hippocampus_seconds": Comparison(
        "Hippocampus, 3D: 30 minutes of training each",
        HIPPOCAMPUS,
        METHODS,
        ("--wall-clock", "30min"),
        "hippocampus_seconds",
    ),
    "chest_iterations": Comparison(
        "Chest X-rays, 2D: 640 iterations each",
        CHEST,
        (*METHODS, *ABLATIONS),
        ("--budget", "20epochs_32iters"),
        "chest_seconds",
    ),
    "hippocampus_iterations": Comparison(
        "Hippocampus, 3D: 1,180 iterations each",
        HIPPOCAMPUS,
        METHODS,
        ("--budget", "20epochs_59iters"),
        "hippocampus_seconds",
    ),
    "hippocampus_variants": Comparison(
        "Hippocampus, 3D: variants of LightMUNetAdamW, 800 iterations each",
        HIPPOCAMPUS,
        (RIVALS[1], *VARIANTS),
        ("--budget", "20epochs_40iters"),
        "hippocampus_variants",
    ),
}

COMPARISONS |= {
    "chest_recipe_iterations": Comparison(
        "Chest X-rays, 2D: trained with Muon, 640 iterations each",
        CHEST,
        (*RIVALS, NEW, *SAME_RECIPE),
        ("--budget", "20epochs_32iters"),
        "chest_seconds",
        repeats={**dict.fromkeys(RIVALS, 2), **dict.fromkeys(RULE, 3)},
    ),
    "chest_recipe_seconds": Comparison(
        "Chest X-rays, 2D: trained with Muon, 8 minutes of training each",
        CHEST,
        (*RIVALS, NEW, *SAME_RECIPE, RESENC_M),
        ("--wall-clock", "8min"),
        "chest_seconds",
        repeats={**dict.fromkeys(RIVALS, 2), **dict.fromkeys(RULE, 3)},
    ),
    "hippocampus_recipe_iterations": Comparison(
        "Hippocampus, 3D: trained with Muon, 1,180 iterations each",
        HIPPOCAMPUS,
        (*RIVALS, NEW, *SAME_RECIPE),
        ("--budget", "20epochs_59iters"),
        "hippocampus_seconds",
        repeats={**dict.fromkeys(RIVALS, 2), **dict.fromkeys(RULE, 3)},
    ),
    "hippocampus_recipe_seconds": Comparison(
        "Hippocampus, 3D: trained with Muon, 30 minutes of training each",
        HIPPOCAMPUS,
        (*RIVALS, NEW, *SAME_RECIPE, RESENC_M),
        ("--wall-clock", "30min"),
        "hippocampus_seconds",
        repeats={**dict.fromkeys(RIVALS, 2), **dict.fromkeys(RULE, 3)},
    ),
    "chest_recipe_ablations": Comparison(
        "Chest X-rays, 2D: the ablations of Table 3 trained with Muon, 640 iterations each",
        CHEST,
        (NEW, *NEW_ABLATIONS),
        ("--budget", "20epochs_32iters"),
        "chest_seconds",
        repeats=dict.fromkeys((NEW, *NEW_ABLATIONS), 2),
    ),
    "chest_256": Comparison(
        "Chest X-rays at 256x256, 2D: 30 minutes of training each",
        CHEST_256,
        RULE,
        ("--wall-clock", "30min"),
        "chest_256",
        repeats={},
    ),
    "hippocampus_plateau": Comparison(
        "Hippocampus, 3D: two hours of training each",
        HIPPOCAMPUS,
        RULE,
        ("--wall-clock", "2h"),
        "hippocampus_seconds",
        repeats={},
    ),
}
