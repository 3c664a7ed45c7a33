"""nnU-Net's training and prediction, and our evaluation, as steps of a pipeline: the stock commands."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from ..checkpoints.integrity import CHECKPOINTS, is_torn_checkpoint
from ..files import is_being_written, set_aside
from ..nnunet import dataset_id
from .pipeline import Step
from .process import CommandFailed


@dataclass(frozen=True)
class Training:
    """One training of nnU-Net.

    Attributes:
        dataset: Full name, DatasetXXX_Name.
        configuration: E.g. "3d_fullres".
        plans: Plans identifier.
        trainer: Trainer name, with budget and seed.
        fold: Fold of the split, or "all".
        device: "cpu", "cuda" or "mps".
    """

    dataset: str
    configuration: str
    plans: str
    trainer: str
    fold: int | str
    device: str

    def fold_folder(self, results: Path) -> Path:
        """Where nnU-Net puts checkpoints and validation; results: the folder nnUNet_results."""
        return results / self.dataset / f"{self.trainer}__{self.plans}__{self.configuration}" / f"fold_{self.fold}"

    @property
    def _options(self) -> tuple[str, ...]:
        return "-tr", self.trainer, "-p", self.plans, "-device", self.device

    @property
    def _dataset_id(self) -> str:
        return str(dataset_id(self.dataset))

    @property
    def train_command(self) -> tuple[str, ...]:
        return "nnUNetv2_train", self._dataset_id, self.configuration, str(self.fold), *self._options

    def predict_command(self, images: Path, predictions: Path) -> tuple[str, ...]:
        model = ("-d", self._dataset_id, "-c", self.configuration, "-f", str(self.fold), *self._options)
        return "nnUNetv2_predict", "-i", str(images), "-o", str(predictions), *model


def training_outputs(fold_folder: Path) -> tuple[Path, ...]:
    """The files that a complete training leaves, including the final validation."""
    return fold_folder / "checkpoint_final.pth", fold_folder / "validation" / "summary.json"


def is_complete_training(fold_folder: Path) -> bool:
    """Whether a training has its final validation, and its last checkpoint is undamaged."""
    outputs = training_outputs(fold_folder)
    return all(path.is_file() for path in outputs) and not is_torn_checkpoint(outputs[0])


def training_continuation(fold_folder: Path) -> list[str] | None:
    """Arguments with which `nnUNetv2_train` continues.

    Torn checkpoints, which stock trainers can leave behind, are renamed, because those trainers would fail on them.

    Returns: `--val` if only the final validation is left, `--c` if there is a checkpoint, None if there is none.
    Raises: CommandFailed: if a checkpoint is being written, i.e. another training is running.
    """
    usable = []
    for path in (fold_folder / name for name in CHECKPOINTS):
        if not path.exists():
            continue
        if not is_torn_checkpoint(path):
            usable.append(path.name)
        elif is_being_written(path):
            raise CommandFailed(
                f"{path} is being written: another process trains this fold. Wait for it or end it; nothing was changed"
            )
        else:
            set_aside(path, path.with_name(f"torn_{path.name}"))
    if "checkpoint_final.pth" in usable:
        return ["--val"]
    return ["--c"] if usable else None


def predict_step(training: Training, fold_folder: Path, images: Path, predictions: Path, *, name: str) -> Step:
    """Segment a folder of images; repeated if they or the training's last checkpoint have changed.

    It starts over after an interruption, too: nnU-Net would overwrite predictions that were corrected meanwhile.
    """
    return Step(
        name,
        training.predict_command(images, predictions),
        outputs=(predictions / "dataset.json",),
        leftovers=(predictions,),
        inputs=(fold_folder / "checkpoint_final.pth", images),
    )


def evaluate_step(
    predictions: Path, references: Path, output: Path, *options: str, name: str, inputs: tuple[Path, ...] = ()
) -> Step:
    """Score predictions into a JSON file; repeated if they or the references have changed.

    Args:
        predictions: Folder of predicted segmentations.
        references: Folder of reference segmentations.
        output: The JSON file.
        options: Further options of `nnUNetv2_lightm evaluate`.
        name: Name of the step.
        inputs: Files that the options name.
    """
    # A step that is repeated finds the scores of the time before.
    written = ("--json", str(output), "--overwrite")
    command = ("nnUNetv2_lightm", "evaluate", str(predictions), str(references), *options, *written)
    return Step(name, command, outputs=(output,), inputs=(predictions, references, *inputs))
