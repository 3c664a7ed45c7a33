"""Models and images for deploy.py: a hippocampus, a chest X-ray of 512x512 and a CT-like phantom of 60x256x256.

python -m benchmarks.speed.deploy_models FOLDER

nnU-Net's own commands plan each data set; the networks of its plans and LightMUNet are saved untrained, because time
and memory do not depend on the weights (agreement of the two precisions does: hence --float32).
NNUNETV2_LIGHTM_DATA holds Task04_Hippocampus (MSD) and chest_xray_512_subset (Montgomery & Shenzhen, Kaggle's layout).
Prints the commands that measure.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import torch
from nnunetv2.utilities.find_objects import recursive_find_trainer_class_by_name
from nnunetv2.utilities.label_handling.label_handling import determine_num_input_channels
from nnunetv2.utilities.plans_handling.plans_handler import PlansManager

from nnunetv2_lightm.dataset_conversion.phantoms import write_lits_phantoms
from nnunetv2_lightm.nnunet import FOLDERS

TRAINERS = {"ours": "nnUNetTrainerLightMUNet", "stock": "nnUNetTrainer"}
CASES = 10  # from which nnU-Net plans


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, metavar="FOLDER")
    parser.add_argument("--only", nargs="+", choices=TASKS, default=list(TASKS), metavar="NAME")
    arguments = parser.parse_args(argv)
    root = arguments.folder.absolute()
    environment = os.environ | {name: str(root / name) for name in FOLDERS}
    for name in arguments.only:
        dataset, configuration, make_raw = TASKS[name]
        make_raw(root, environment)
        for command in ("nnUNetv2_extract_fingerprint", "nnUNetv2_plan_experiment"):
            run([command, "-d", dataset[7:10]], environment)
        models = write_models(root, dataset, configuration)
        images = root / f"{name}_images"
        shutil.rmtree(images, ignore_errors=True)
        images.mkdir()
        shutil.copy(sorted((root / "nnUNet_raw" / dataset / "imagesTr").iterdir())[0], images)
        options = [*(f"--{which} {folder}" for which, folder in models.items()), f"--images {images}", "--float32"]
        print(f"python -m benchmarks.speed.deploy {' '.join(options)} -o {root / f'{name}.md'}")
    return 0


def run(command: list[str], environment: dict[str, str]) -> None:
    program = Path(sys.executable).with_name(command[0])
    subprocess.run([str(program), *command[1:]], env=environment, stdout=sys.stderr, check=True)


def real_data() -> Path:
    if not os.environ.get("NNUNETV2_LIGHTM_DATA"):
        sys.exit("NNUNETV2_LIGHTM_DATA is not set: the folder of real data (see above, or --only phantom)")
    return Path(os.environ["NNUNETV2_LIGHTM_DATA"])


def hippocampus(root: Path, environment: dict[str, str]) -> None:
    source, raw = real_data() / "Task04_Hippocampus", root / "nnUNet_raw" / "Dataset004_Hippocampus"
    shutil.rmtree(raw, ignore_errors=True)
    for name in ("imagesTr", "labelsTr"):
        (raw / name).mkdir(parents=True)
    for image in sorted(source.glob("imagesTr/hippocampus_*.nii.gz"))[:CASES]:
        case = image.name.removesuffix(".nii.gz")
        shutil.copy(image, raw / "imagesTr" / f"{case}_0000.nii.gz")
        shutil.copy(source / "labelsTr" / image.name, raw / "labelsTr")
    labels = {"background": 0, "anterior": 1, "posterior": 2}
    content = {"channel_names": {"0": "MRI"}, "labels": labels, "numTraining": CASES, "file_ending": ".nii.gz"}
    (raw / "dataset.json").write_text(json.dumps(content))


def chest_x_ray(root: Path, environment: dict[str, str]) -> None:
    convert = ["nnUNetv2_lightm", "convert", "montgomery-shenzhen", str(real_data() / "chest_xray_512_subset")]
    run([*convert, "--overwrite"], environment)


def phantom(root: Path, environment: dict[str, str]) -> None:
    write_lits_phantoms(root / "phantoms", num_cases=4, seed=1, shape=(60, 256, 256))
    run(["nnUNetv2_lightm", "convert", "lits", str(root / "phantoms"), "--overwrite"], environment)


TASKS: dict[str, tuple[str, str, Callable[[Path, dict[str, str]], None]]] = {
    "hippocampus": ("Dataset004_Hippocampus", "3d_fullres", hippocampus),
    "chest_x_ray": ("Dataset802_MontgomeryShenzhen", "2d", chest_x_ray),
    "phantom": ("Dataset801_LiTS", "3d_fullres", phantom),
}


def write_models(root: Path, dataset: str, configuration: str) -> dict[str, Path]:
    """A model folder of each trainer, as nnUNetv2_predict_from_modelfolder takes it."""
    texts = {
        "plans.json": (root / "nnUNet_preprocessed" / dataset / "nnUNetPlans.json").read_text(),
        "dataset.json": (root / "nnUNet_raw" / dataset / "dataset.json").read_text(),
    }
    plans_json, dataset_json = map(json.loads, texts.values())
    plans = PlansManager(plans_json)
    settings = plans.get_configuration(configuration)
    channels = determine_num_input_channels(plans, settings, dataset_json)
    heads = plans.get_label_manager(dataset_json).num_segmentation_heads
    folders = {}
    for which, name in TRAINERS.items():
        torch.manual_seed(0)
        trainer = recursive_find_trainer_class_by_name(name)
        network = trainer.build_network_architecture(plans, settings, channels, heads, enable_deep_supervision=False)
        checkpoint = {
            "network_weights": network.state_dict(),
            "trainer_name": name,
            "init_args": {"plans": plans_json, "configuration": configuration, "fold": 0, "dataset_json": dataset_json},
            "inference_allowed_mirroring_axes": tuple(range(len(settings.patch_size))),
        }
        folders[which] = root / "nnUNet_results" / dataset / f"{name}__nnUNetPlans__{configuration}"
        (folders[which] / "fold_0").mkdir(parents=True, exist_ok=True)
        torch.save(checkpoint, folders[which] / "fold_0" / "checkpoint_final.pth")
        for file, text in texts.items():
            (folders[which] / file).write_text(text)
    return folders


if __name__ == "__main__":
    sys.exit(main())
