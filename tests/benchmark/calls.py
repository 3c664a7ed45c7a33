"""How the tests call the benchmark, and the commands that it runs then, as the stand-ins write them down."""

from __future__ import annotations

TRAINERS = ("nnUNetTrainer", "nnUNetTrainerLightMUNet")
RUNS = tuple(f"{trainer}_2epochs_3iters_seed0" for trainer in TRAINERS)
AFTER_TRAINING = ("nnUNetv2_predict {}", "nnUNetv2_lightm evaluate")


def arguments(root, *more, budget=("--budget", "2epochs_3iters")):
    trainers = ("-tr", *TRAINERS) if "-tr" not in more else ()
    return ["-d", "950", "-c", "2d", *trainers, "-o", str(root / "study"), *budget, "-device", "cpu", *more]


def after_training(run):
    return [line.format(run) for line in AFTER_TRAINING]


def all_of(run):
    return [f"nnUNetv2_train {run}", *after_training(run)]


def preparation():
    return [*(f"nnUNetv2_lightm {trainer} complexity" for trainer in TRAINERS), f"python {' '.join(TRAINERS)}"]
