"""`kill -9` at random moments, each followed by the same command: nothing lost, nothing half-written, the same result.

    python tests/campaigns/kill9.py convert|train|benchmark [--moments 50] [--minutes M] [--seed 0]

`convert` compares every byte of the data set with that of an undisturbed run, in turns into an empty folder and over an
older data set. `train` and `benchmark` kill one training, one comparison, again and again, and look at what is there
after each kill and at the end; a comparison takes the costs of an undisturbed one, so that the moments reach its
trainings. Figures are printed as they come. Exit code 1 if anything was wrong.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from nnunetv2_lightm.checkpoints.integrity import is_torn_checkpoint
from nnunetv2_lightm.dataset_conversion.phantoms import write_chest_xray_phantoms
from nnunetv2_lightm.runs.pipeline import STATE_FILE

if __package__:
    from .kill9_workspace import Workspace, digest, end_group, program, working
else:
    sys.path.insert(0, str(Path(__file__).parent))
    from kill9_workspace import Workspace, digest, end_group, program, working

ID, XRAYS = "803", "Dataset803_MontgomeryShenzhen"
CONVERT = ("convert", "montgomery-shenzhen", "--id", ID)
TRAINER, EPOCHS = "nnUNetTrainerLightMUNet", 40


def make_xrays(space: Workspace, cases: int, size: int) -> Path:
    """Real ones where NNUNETV2_LIGHTM_DATA has them, else phantoms."""
    source = space.folder / "xrays"
    real = Path(os.environ.get("NNUNETV2_LIGHTM_DATA", "none"), "chest_xray_masks_and_labels_256")
    if not real.is_dir():
        write_chest_xray_phantoms(source, num_cases=cases, seed=1, shape=(size, size))
        return source
    masks = [path for path in real.rglob("*.png") if path.parent.name.lower() in ("mask", "masks")]
    for mask in sorted(masks)[:cases]:
        image = next(mask.parent.parent.rglob(f"CXR_png/{mask.stem.removesuffix('_mask')}.png"))
        for file, folder in ((mask, "masks"), (image, "CXR_png")):
            (source / folder).mkdir(parents=True, exist_ok=True)
            shutil.copy(file, source / folder / file.name)
    return source


def convert(space: Workspace, moments: int, minutes: float | None, rng: random.Random) -> None:
    """Each moment in folders of its own."""
    source = make_xrays(space, 40, 128)
    older = make_older(space, source)
    command = [program("nnUNetv2_lightm"), *CONVERT, str(source), "--resize", "96", "96"]
    seconds = space.must_run(*command)
    targets = (space.raw / XRAYS, space.preprocessed / XRAYS)
    new = tuple(map(digest, targets))
    print(f"{len(list(targets[0].rglob('*.png')))} files, {seconds:.1f} s undisturbed", flush=True)
    for moment in space.random_moments(moments, minutes):
        overwrite = moment % 2 == 1
        for folder in (space.raw, space.preprocessed):
            shutil.rmtree(folder, ignore_errors=True)
        before = (None, None)
        if overwrite:
            for folder in (space.raw, space.preprocessed):
                shutil.copytree(older / folder.name, folder)
            before = tuple(map(digest, targets))
        again = [*command, *(["--overwrite"] if overwrite else [])]
        space.kill(rng.uniform(0.05, 1.05) * seconds, *again)
        state = tuple(map(digest, targets))
        # Between the renames of the exchange the next run has to bring back the old or the new.
        space.seen["between the renames of the exchange"] += state not in (before, new)
        process = space.run(*again)
        complete_already = not overwrite and state == new and "exists already" in process.stderr
        space.seen["complete already"] += complete_already
        name = f"moment {moment}{', overwriting' if overwrite else ''}"
        space.expect(process.returncode == 0 or complete_already, f"{name}: {process.stderr[-500:]}")
        space.expect(tuple(map(digest, targets)) == new, f"{name}: another result")
        left = [path for folder in (space.raw, space.preprocessed) for path in folder.glob(".*")]
        space.expect(not left, f"{name}: left behind: {left}")
        aside = list(space.preprocessed.glob("replaced*"))
        space.put_aside += len(aside)
        space.expect(not aside, f"{name}: put aside, although nothing was preprocessed: {aside}")


def make_older(space: Workspace, source: Path) -> Path:
    """What a conversion of another size has made: the older data set."""
    space.must_run(program("nnUNetv2_lightm"), *CONVERT, str(source), "--resize", "64", "64")
    older = space.folder / "older"
    older.mkdir()
    for folder in (space.raw, space.preprocessed):
        folder.rename(older / folder.name)
    return older


def prepare(space: Workspace) -> None:
    """A tiny data set, planned and preprocessed."""
    source = make_xrays(space, 12, 64)
    space.must_run(
        program("nnUNetv2_lightm"), *CONVERT, str(source), "--resize", "64", "64",
    )  # fmt: skip
    space.must_run(program("nnUNetv2_plan_and_preprocess"), "-d", ID, "-c", "2d", "-np", "1", "-npfp", "1")


def check_files(space: Workspace, folder: Path, name: str) -> None:
    """Checkpoints and JSON files that are there are whole; what a killed run had not finished has another name."""
    for path in folder.rglob("*.pth"):
        if not path.name.startswith((".partial", "torn_")):
            space.expect(not is_torn_checkpoint(path), f"{name}: {path} is torn")
    for path in folder.rglob("*.json"):
        if not path.name.startswith(".partial"):
            try:
                json.loads(path.read_text())
            except ValueError:
                space.expect(False, f"{name}: {path} is half-written")


def train(space: Workspace, moments: int, minutes: float | None, rng: random.Random) -> None:
    """One training, killed again and again; then it goes on to its end."""
    prepare(space)
    trainer = f"{TRAINER}_{EPOCHS}epochs_1iters_seed0"
    command = [program("nnUNetv2_train"), ID, "2d", "0", "-tr", trainer, "-device", "cpu"]
    fold = space.results / XRAYS / f"{trainer}__nnUNetPlans__2d" / "fold_0"
    begin = time.monotonic()
    process = subprocess.Popen(command, env=space.environment, stdout=subprocess.DEVNULL, start_new_session=True)
    while not (fold / "checkpoint_latest.pth").exists() and process.poll() is None:
        time.sleep(0.1)
    seconds = time.monotonic() - begin
    end_group(process)
    print(f"{seconds:.1f} s to the first checkpoint", flush=True)
    for moment in space.random_moments(moments, minutes):
        begun = any(fold.glob("checkpoint_*.pth"))
        killed = space.kill(rng.uniform(0.1, 1.6) * seconds, *command, *(["--c"] if begun else []))
        check_files(space, fold, f"moment {moment}")
        space.seen["while a checkpoint was written"] += bool(list(fold.glob(".partial-*")))
        if not killed:
            shutil.rmtree(space.results)
    process = space.run(*command, "--c")
    space.expect(process.returncode == 0, f"the last run: {process.stdout[-800:]}{process.stderr[-800:]}")
    import torch

    check_files(space, fold, "the end")
    losses = torch.load(fold / "checkpoint_final.pth", weights_only=False)["logging"]["train_losses"]
    space.expect(len(losses) == EPOCHS, f"{len(losses)} epochs of {EPOCHS}")
    space.expect((fold / "validation" / "summary.json").is_file(), "no validation")
    left = [path.name for path in fold.iterdir() if path.name.startswith((".partial", "torn_"))]
    space.put_aside = sum(name.startswith("torn_") for name in left)
    space.expect(not left, f"left behind: {left}")


def benchmark(space: Workspace, moments: int, minutes: float | None, rng: random.Random) -> None:
    """One comparison of a stock trainer with ours, killed again and again; then it goes on to its end."""
    prepare(space)
    undisturbed, output = space.folder / "undisturbed", space.folder / "comparison"
    command = [
        program("nnUNetv2_lightm"),
        "benchmark",
        "-d",
        ID,
        "-c",
        "2d",
        "-tr",
        "nnUNetTrainer",
        TRAINER,
        "--budget",
        "3epochs_1iters",
        "-device",
        "cpu",
    ]
    seconds = space.must_run(*command, "-o", str(undisturbed))
    print(f"{seconds:.1f} s undisturbed", flush=True)
    shutil.rmtree(space.results)
    command += ["--calibration-of", str(undisturbed), "-o", str(output)]
    for moment in space.random_moments(moments, minutes):
        begin = time.time()
        killed = space.kill(rng.uniform(1, max(10, seconds / 3)), *command)
        if killed:
            space.seen[f"in {step_at_work(output, begin)}"] += 1
        deadline = time.monotonic() + 20
        while working(space.folder) and time.monotonic() < deadline:
            time.sleep(0.1)
        space.expect(not working(space.folder), f"moment {moment}: a command lives on: {working(space.folder)}")
        for folder in (space.results, output):
            check_files(space, folder, f"moment {moment}")
        if not killed:
            check_comparison(space, output, f"moment {moment}")
            shutil.rmtree(output)
            shutil.rmtree(space.results)
    process = space.run(*command)
    space.expect(process.returncode == 0, f"the last run: {process.stdout[-800:]}{process.stderr[-800:]}")
    check_comparison(space, output, "the end")


def step_at_work(output: Path, begin: float) -> str:
    """The step that a killed comparison was at, by the state that it saved last; begin: when it began, as time.time."""
    states = [path for path in output.glob(f"state/*/{STATE_FILE}") if path.stat().st_mtime >= begin]
    if not states:
        return "no step yet"
    steps = json.loads(max(states, key=lambda path: path.stat().st_mtime).read_text())["steps"]
    return next((name.split()[-1] for name, step in steps.items() if not step["complete"]), "no step, between two")


def check_comparison(space: Workspace, output: Path, name: str) -> None:
    """Of a comparison that has ended: complete, and nothing half-written left; counts what was put aside."""
    results = json.loads((output / "results.json").read_text())
    complete = len(results["runs"]) == 2 and all(run["complete"] for run in results["runs"])
    space.expect(complete, f"{name}: not complete")
    left = [*output.rglob(".partial*"), *space.results.rglob(".partial*")]
    space.expect(not left, f"{name}: left behind: {left}")
    space.put_aside += len([*output.rglob("kept_*"), *space.results.rglob("torn_*")])


CAMPAIGNS: dict[str, Callable[[Workspace, int, float | None, random.Random], None]] = {
    "convert": convert,
    "train": train,
    "benchmark": benchmark,
}


def main(argv: list[str] | None = None) -> int:
    """Returns 1 if anything was wrong."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("campaign", choices=CAMPAIGNS)
    parser.add_argument("--moments", type=int, default=50, help="default: %(default)s")
    parser.add_argument(
        "--minutes", type=float, help="no new moment after that time; the figures say how many there were"
    )
    parser.add_argument("--seed", type=int, default=0, help="default: %(default)s")
    arguments = parser.parse_args(argv)
    with (
        tempfile.TemporaryDirectory(prefix="kill_9_", ignore_cleanup_errors=True) as folder,
        Workspace(folder) as space,
    ):
        try:
            CAMPAIGNS[arguments.campaign](space, arguments.moments, arguments.minutes, random.Random(arguments.seed))
        finally:
            print(f"{arguments.campaign}: {space.figures()}", flush=True)
    return 1 if space.wrong else 0


if __name__ == "__main__":
    # So that its commands are ended, too. Not in `main`: in a process that goes on, pools that it forks would have it.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("ended by SIGTERM"))
    sys.exit(main())
