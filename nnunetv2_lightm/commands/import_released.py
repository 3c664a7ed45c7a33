"""``nnUNetv2_lightm import-released``: a checkpoint of the authors' fork becomes a model folder of stock nnU-Net."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from ..escaping import escape_terminal, shell_line

PROGRAM = "nnUNetv2_lightm import-released"


def main(argv: list[str]) -> int:
    """Import, and print how to predict. Returns 1 if a checkpoint is not from the fork, or OUT already exists."""
    arguments = _parser().parse_args(argv)
    # After the arguments: `--help` loads no torch.
    from ..checkpoints.safe_loading import CheckpointError
    from ..released.model_folder import import_released

    try:
        checkpoints = import_released(arguments.checkpoint, arguments.out, overwrite=arguments.overwrite)
    except CheckpointError as error:
        print(f"{PROGRAM}: {escape_terminal(error)}", file=sys.stderr)
        return 1
    first = checkpoints[0]
    parameters = sum(tensor.numel() for tensor in first.weights.values())
    folds = [checkpoint.fold for checkpoint in checkpoints]
    model = ("-m", arguments.out, "-f", *folds)
    name = f"{first.trainer.__name__}__{first.plans.get('plans_name', 'nnUNetPlans')}__{first.configuration}"
    what = f"{first.trainer.__name__}, {first.configuration}, fold {' '.join(map(str, folds))}"
    print(
        escape_terminal(f"{arguments.out}: {what}, {parameters:,} parameters.\nPredict:"),
        f"  {shell_line('nnUNetv2_predict_from_modelfolder', '-i', 'IMAGES', '-o', 'PREDICTIONS', *model)}",
        escape_terminal(f"In the data set's folder below nnUNet_results, named {name}, nnUNetv2_predict finds it too."),
        sep="\n",
    )
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog=PROGRAM,
        description="Turn checkpoints that were trained with the authors' fork of nnU-Net (LightM-UNet, nnU-Net 2.1.1) "
        "into a model folder with which stock nnU-Net and this package predict.",
        epilog="Nothing in a checkpoint is executed. The weights also serve as -pretrained_weights of a new training; "
        "the old one cannot be continued.",
    )
    parser.add_argument(
        "checkpoint",
        type=Path,
        nargs="+",
        metavar="CHECKPOINT",
        help="checkpoint_final.pth or checkpoint_best.pth; several folds of one training go into one folder",
    )
    parser.add_argument("out", type=Path, metavar="OUT", help="the new model folder")
    parser.add_argument("--overwrite", action="store_true", help="replace a model folder that an import made")
    return parser
