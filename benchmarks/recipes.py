"""Which recipe trains LightM-UNet? The stock commands on two real data sets, the same plans and budget for each.

    python benchmarks/recipes.py hippocampus --work ~/recipes [--threads 2]
    python benchmarks/recipes.py chest-xray --work ~/recipes

Hippocampus (MSD Task04, 3d_fullres) is scored on the validation cases of fold 0; chest X-rays (Montgomery & Shenzhen,
2d) on the test cases of the converter's 7:1:2 split. Needs the data folder in NNUNETV2_LIGHTM_DATA. Interrupted and
started again, it goes on. The result goes to benchmarks/results/recipes_<data>.json, with machine and versions.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
from dataclasses import asdict, dataclass
from pathlib import Path

from harness.machine import machine

from nnunetv2_lightm.study._demo_steps import training_continuation
from nnunetv2_lightm.study._pipeline import Pipeline, Step
from nnunetv2_lightm.study.tables import format_markdown, write_text
from nnunetv2_lightm.study.training_log import read_training_log

RESULTS = Path(__file__).resolve().parent / "results"
PLANS = "nnUNetPlans_recipes"


@dataclass(frozen=True)
class DataSet:
    """A data set and what is trained on it.

    Attributes:
        name: On the command line.
        source: Folder below NNUNETV2_LIGHTM_DATA.
        dataset: nnU-Net's name.
        configuration: nnU-Net's configuration.
        gpu_memory_gb: What nnU-Net's planner plans for: decides the batch size, the same for every trainer.
        trainers: In the order in which they run.
    """

    name: str
    source: str
    dataset: str
    configuration: str
    gpu_memory_gb: float
    trainers: tuple[str, ...]

    @property
    def dataset_id(self) -> str:
        return str(int(self.dataset[7:10]))


def trainers(budget: str) -> tuple[str, ...]:
    """The rivals: stock nnU-Net, our recipe, the paper's recipe."""
    return tuple(
        f"{t}_{budget}" for t in ("nnUNetTrainer", "nnUNetTrainerLightMUNet", "nnUNetTrainerLightMUNetPaperSGD")
    )


DATA_SETS = {
    data.name: data
    for data in (
        DataSet(
            *("hippocampus", "Task04_Hippocampus", "Dataset004_Hippocampus", "3d_fullres"),
            gpu_memory_gb=0.25,
            trainers=trainers("15epochs_20iters"),
        ),
        DataSet(
            *("chest-xray", "chest_xray_masks_and_labels_256", "Dataset802_MontgomeryShenzhen", "2d"),
            gpu_memory_gb=0.33,
            trainers=trainers("15epochs_20iters"),
        ),
    )
}


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", choices=DATA_SETS)
    parser.add_argument("--work", type=Path, required=True, help="folder for nnU-Net's folders and the logs")
    parser.add_argument("--threads", type=int, default=os.cpu_count(), help="of the training process")
    arguments = parser.parse_args(argv)
    data_root = os.environ.get("NNUNETV2_LIGHTM_DATA")
    if not data_root:
        parser.error("NNUNETV2_LIGHTM_DATA is not set: it must name the folder that holds the real data")
    data = DATA_SETS[arguments.data]
    folder = arguments.work.absolute() / data.name
    folders = {name: folder / name for name in ("nnUNet_raw", "nnUNet_preprocessed", "nnUNet_results")}
    steps = make_steps(data, Path(data_root).absolute() / data.source, folders)
    environment = {
        **{name: str(path) for name, path in folders.items()},
        **{"nnUNet_n_proc_DA": "2", "nnUNet_def_n_proc": "2", "OMP_NUM_THREADS": str(arguments.threads)},
    }
    pipeline = Pipeline(folder, steps, environment=environment, version="1")
    pipeline.run(
        lambda step, text, seconds: None,
        on_skip=lambda step: print(f"{step.name}: complete", flush=True),
        on_end=lambda step, seconds: (
            print(f"{step.name}: {seconds:.0f} s", flush=True),
            report(data, folders, arguments),
        ),
    )
    print(table(report(data, folders, arguments)))
    return 0


def make_steps(data: DataSet, source: Path, folders: dict[str, Path]) -> list[Step]:
    """The stock commands: convert, plan and preprocess, then train (and predict) and evaluate each trainer."""
    raw, preprocessed = (folders[name] / data.dataset for name in ("nnUNet_raw", "nnUNet_preprocessed"))
    convert = (
        ("nnUNetv2_convert_MSD_dataset", "-i", str(source), "-np", "2")
        if data.name == "hippocampus"
        else ("nnUNetv2_lightm", "convert", "montgomery-shenzhen", str(source))
    )
    plan = ("-d", data.dataset_id, "-c", data.configuration, "-npfp", "2", "-np", "2")
    steps = [
        Step("convert", convert, outputs=(raw / "dataset.json",), leftovers=(raw, preprocessed)),
        Step(
            "plan_and_preprocess",
            (
                *("nnUNetv2_plan_and_preprocess", *plan, "--verify_dataset_integrity"),
                *("-overwrite_plans_name", PLANS, "-gpu_memory_target", f"{data.gpu_memory_gb:g}"),
            ),
            outputs=(preprocessed / f"{PLANS}.json", preprocessed / "gt_segmentations"),
        ),
    ]
    for trainer in data.trainers:
        steps += trainer_steps(data, trainer, raw, preprocessed, model_folder(data, trainer, folders) / "fold_0")
    return steps


def trainer_steps(data: DataSet, trainer: str, raw: Path, preprocessed: Path, fold: Path) -> list[Step]:
    """Training with nnU-Net's final validation, prediction of the test cases if there are any, evaluation."""
    model = ("-d", data.dataset_id, "-c", data.configuration, "-f", "0", "-tr", trainer, "-p", PLANS, "-device", "cpu")
    train = ("nnUNetv2_train", data.dataset_id, data.configuration, "0", "-tr", trainer, "-p", PLANS, "-device", "cpu")
    steps = [
        Step(
            f"train_{trainer}",
            train,
            outputs=(fold / "checkpoint_final.pth", fold / "validation" / "summary.json"),
            leftovers=(fold,),
            continuation=lambda: training_continuation(fold),
        )
    ]
    predictions, references = fold / "validation", preprocessed / "gt_segmentations"
    if data.name == "chest-xray":
        predictions, references = fold.parent / "predicted_test", raw / "labelsTs"
        predict = (
            "nnUNetv2_predict",
            "-i",
            str(raw / "imagesTs"),
            "-o",
            str(predictions),
            *model,
            "-npp",
            "1",
            "-nps",
            "1",
        )
        steps.append(
            Step(f"predict_{trainer}", predict, outputs=(predictions / "plans.json",), leftovers=(predictions,))
        )
    output = fold / "evaluation.json"
    evaluate = (
        *("nnUNetv2_lightm", "evaluate", str(predictions), str(references), "--chill"),
        *("--dataset-json", str(raw / "dataset.json"), "--json", str(output)),
    )
    return [*steps, Step(f"evaluate_{trainer}", evaluate, outputs=(output,), leftovers=(output,))]


def model_folder(data: DataSet, trainer: str, folders: dict[str, Path]) -> Path:
    return folders["nnUNet_results"] / data.dataset / f"{trainer}__{PLANS}__{data.configuration}"


def report(data: DataSet, folders: dict[str, Path], arguments: argparse.Namespace) -> dict:
    """Write what is there so far; returns it."""
    plans_file = folders["nnUNet_preprocessed"] / data.dataset / f"{PLANS}.json"
    if not plans_file.exists():
        return {"runs": {}}
    configuration = json.loads(plans_file.read_text())["configurations"][data.configuration]
    runs = {}
    for trainer in data.trainers:
        fold = model_folder(data, trainer, folders) / "fold_0"
        evaluation = fold / "evaluation.json"
        if evaluation.exists():
            scores = json.loads(evaluation.read_text())
            epochs = read_training_log(fold)
            runs[trainer] = {
                "average": scores["average"],
                "classes": scores["classes"],
                "cases": len(scores["cases"]),
                "median_epoch_seconds": statistics.median(epoch.seconds for epoch in epochs),
                "epochs": [asdict(epoch) for epoch in epochs],
            }
    result = {
        "data": data.name,
        "command": f"python benchmarks/recipes.py {data.name}",
        "patch_size": configuration["patch_size"],
        "batch_size": configuration["batch_size"],
        "threads": arguments.threads,
        "machine": machine(),
        "runs": runs,
    }
    RESULTS.mkdir(exist_ok=True)
    write_text(RESULTS / f"recipes_{data.name}.json", json.dumps(result, indent=1) + "\n")
    return result


def table(result: dict) -> str:
    """The runs as a Markdown table: mean and standard deviation over the cases of the average over the classes."""
    rows = [["trainer", "DSC", "mIoU", "cases", "median epoch, s"]]
    for trainer, run in result["runs"].items():
        scores = [f"{run['average'][m]['mean']:.4f} ± {run['average'][m]['std']:.4f}" for m in ("DSC", "IoU")]
        rows.append([trainer, *scores, str(run["cases"]), f"{run['median_epoch_seconds']:.0f}"])
    return format_markdown(rows)


if __name__ == "__main__":
    sys.exit(main())
