"""`kill -9` at random moments, each followed by the same command: nothing lost, nothing half-written, the same result.

    python tests/campaigns/kill9.py convert|train|benchmark [--moments 50] [--seed 0]

`convert` compares every byte of the data set with that of an undisturbed run, in turns into an empty folder and over an
older data set. `train` and `benchmark` kill one training, one comparison, again and again, and look at what is there
after each kill and at the end. Ends with counts, and exit code 1 if anything was wrong.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

from nnunetv2_lightm.dataset_conversion.phantoms import write_chest_xray_phantoms
from nnunetv2_lightm.files import RECORD_FILE
from nnunetv2_lightm.nnunet_faults import is_torn_checkpoint

XRAYS = "Dataset802_MontgomeryShenzhen"
TRAINER, EPOCHS = "nnUNetTrainerLightMUNet", 40
FEW = {"nnUNet_n_proc_DA": "1", "nnUNet_def_n_proc": "1", "OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "PASSIVE"}


class Workspace:
    """nnU-Net's folders, and the counts of what was seen."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.raw, self.preprocessed, self.results = (folder / name for name in ("raw", "preprocessed", "results"))
        self.environment = {**os.environ, **FEW} | {
            f"nnUNet_{name}": str(folder / name) for name in ("raw", "preprocessed", "results")
        }
        self.seen: Counter[str] = Counter()
        self.wrong: list[str] = []
        self.moments = 0

    def run(self, *command: str) -> subprocess.CompletedProcess[str]:
        """To its end; in a session of its own, as all commands here."""
        return subprocess.run(command, env=self.environment, capture_output=True, text=True, start_new_session=True)

    def must_run(self, *command: str) -> None:
        process = self.run(*command)
        if process.returncode:
            raise SystemExit(f"{' '.join(command)}: exit code {process.returncode}\n{process.stdout}{process.stderr}")

    def kill(self, seconds: float, *command: str) -> bool:
        """Start a command and kill it, itself alone, after that time. Returns: whether it was still at work."""
        process = subprocess.Popen(
            command,
            env=self.environment,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        try:
            process.wait(seconds)
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGKILL)
            process.wait()
            return True
        return False

    def note(self, killed: bool) -> None:
        """Count a moment, and show how far it is."""
        self.moments += 1
        self.seen["killed" if killed else "had ended before"] += 1
        if self.moments % 10 == 0:
            print(f"{self.moments} moments, {len(self.wrong)} wrong", flush=True)

    def expect(self, holds: bool, what: str) -> None:
        if not holds:
            self.wrong.append(what)
            print(f"  WRONG: {what}", flush=True)


def program(name: str) -> str:
    """A console script of this environment."""
    return str(Path(sys.executable).with_name(name))


def digest(folder: Path) -> str | None:
    """Of all names and contents, but for the record, which holds times; None if there is no such folder."""
    if not folder.exists():
        return None
    sums = hashlib.sha256()
    for path in sorted(folder.rglob("*")):
        if path.name != RECORD_FILE:
            sums.update(f"{path.relative_to(folder)}\0".encode())
            sums.update(path.read_bytes() if path.is_file() else b"")
    return sums.hexdigest()


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


def convert(space: Workspace, moments: int, rng: random.Random) -> None:
    """Each moment in folders of its own."""
    source = make_xrays(space, 40, 128)
    older = make_older(space, source)
    command = [program("nnUNetv2_lightm"), "convert", "montgomery-shenzhen", str(source), "--resize", "96", "96"]
    begin = time.monotonic()
    space.must_run(*command)
    seconds = time.monotonic() - begin
    targets = (space.raw / XRAYS, space.preprocessed / XRAYS)
    new = tuple(map(digest, targets))
    print(f"{len(list(targets[0].rglob('*.png')))} files, {seconds:.1f} s undisturbed", flush=True)
    for moment in range(moments):
        overwrite = moment % 2 == 1
        for folder in (space.raw, space.preprocessed):
            shutil.rmtree(folder, ignore_errors=True)
        before = (None, None)
        if overwrite:
            for folder in (space.raw, space.preprocessed):
                shutil.copytree(older / folder.name, folder)
            before = tuple(map(digest, targets))
        again = [*command, *(["--overwrite"] if overwrite else [])]
        killed = space.kill(rng.uniform(0.05, 1.05) * seconds, *again)
        space.note(killed)
        state = tuple(map(digest, targets))
        whole = state in (before, new)
        if not whole:
            # Between the renames of the exchange; the next run has to bring back the old or the new.
            space.seen["killed in the exchange"] += 1
        process = space.run(*again)
        complete_already = not overwrite and state == new and "exists already" in process.stderr
        space.seen["complete already"] += complete_already
        name = f"moment {moment}{', overwriting' if overwrite else ''}"
        space.expect(process.returncode == 0 or complete_already, f"{name}: {process.stderr[-500:]}")
        space.expect(tuple(map(digest, targets)) == new, f"{name}: another result")
        left = [path for folder in (space.raw, space.preprocessed) for path in folder.glob(".*")]
        left += space.preprocessed.glob("replaced*")
        space.expect(not left, f"{name}: left behind: {left}")


def make_older(space: Workspace, source: Path) -> Path:
    """What a conversion of another size has made: the older data set."""
    space.must_run(program("nnUNetv2_lightm"), "convert", "montgomery-shenzhen", str(source), "--resize", "64", "64")
    older = space.folder / "older"
    older.mkdir()
    for folder in (space.raw, space.preprocessed):
        folder.rename(older / folder.name)
    return older


def prepare(space: Workspace) -> None:
    """A tiny data set, planned and preprocessed."""
    source = make_xrays(space, 12, 64)
    space.must_run(
        program("nnUNetv2_lightm"), "convert", "montgomery-shenzhen", str(source), "--resize", "64", "64",
    )  # fmt: skip
    space.must_run(program("nnUNetv2_plan_and_preprocess"), "-d", "802", "-c", "2d", "-np", "1", "-npfp", "1")


def check_checkpoints(space: Workspace, name: str) -> None:
    for path in space.results.rglob("*.pth"):
        if not path.name.startswith((".", "torn_")):
            space.expect(not is_torn_checkpoint(path), f"{name}: {path} is torn")


def train(space: Workspace, moments: int, rng: random.Random) -> None:
    """One training, killed again and again; then it goes on to its end."""
    prepare(space)
    trainer = f"{TRAINER}_{EPOCHS}epochs_1iters_seed0"
    command = [program("nnUNetv2_train"), "802", "2d", "0", "-tr", trainer, "-device", "cpu"]
    fold = space.results / XRAYS / f"{trainer}__nnUNetPlans__2d" / "fold_0"
    begin = time.monotonic()
    process = subprocess.Popen(command, env=space.environment, stdout=subprocess.DEVNULL, start_new_session=True)
    while not (fold / "checkpoint_latest.pth").exists() and process.poll() is None:
        time.sleep(0.1)
    seconds = time.monotonic() - begin
    end_group(process)
    print(f"{seconds:.1f} s to the first checkpoint", flush=True)
    for moment in range(moments):
        begun = any(fold.glob("checkpoint_*.pth"))
        killed = space.kill(rng.uniform(0.1, 1.6) * seconds, *command, *(["--c"] if begun else []))
        space.note(killed)
        check_checkpoints(space, f"moment {moment}")
        space.seen["killed while a checkpoint was written"] += bool(list(fold.glob(".partial-*")))
        if not killed:
            shutil.rmtree(space.results)
    process = space.run(*command, "--c")
    space.expect(process.returncode == 0, f"the last run: {process.stdout[-800:]}{process.stderr[-800:]}")
    import torch

    check_checkpoints(space, "the end")
    losses = torch.load(fold / "checkpoint_final.pth", weights_only=False)["logging"]["train_losses"]
    space.expect(len(losses) == EPOCHS, f"{len(losses)} epochs of {EPOCHS}")
    space.expect((fold / "validation" / "summary.json").is_file(), "no validation")
    left = [path.name for path in fold.iterdir() if path.name.startswith((".partial", "torn_"))]
    space.expect(not left, f"left behind: {left}")


def benchmark(space: Workspace, moments: int, rng: random.Random) -> None:
    """One comparison of a stock trainer with ours, killed again and again; then it goes on to its end."""
    prepare(space)
    output = space.folder / "comparison"
    command = [
        *(program("nnUNetv2_lightm"), "benchmark", "-d", "802", "-c", "2d", "-tr", "nnUNetTrainer", TRAINER),
        *("--budget", "3epochs_1iters", "-device", "cpu", "-o", str(output)),
    ]
    for moment in range(moments):
        killed = space.kill(rng.uniform(1, 60), *command)
        space.note(killed)
        check_checkpoints(space, f"moment {moment}")
        for path in output.rglob("*.json"):
            if not path.name.startswith(".partial"):
                try:
                    json.loads(path.read_text())
                except ValueError:
                    space.expect(False, f"moment {moment}: {path} is half-written")
        deadline = time.monotonic() + 20
        while working(space.folder) and time.monotonic() < deadline:
            time.sleep(0.1)
        space.expect(not working(space.folder), f"moment {moment}: a command lives on: {working(space.folder)}")
        if not killed:
            shutil.rmtree(output)
            shutil.rmtree(space.results)
    process = space.run(*command)
    space.expect(process.returncode == 0, f"the last run: {process.stdout[-800:]}{process.stderr[-800:]}")
    results = json.loads((output / "results.json").read_text())
    space.expect(len(results["runs"]) == 2 and all(run["complete"] for run in results["runs"]), "not complete")
    left = list(output.rglob(".partial*"))
    space.expect(not left, f"left behind: {left}")
    space.seen["things put aside"] = len([*output.rglob("kept_*"), *space.results.rglob("torn_*")])


def working(folder: Path) -> list[str]:
    """Commands that are at work for this folder."""
    listed = subprocess.run(["ps", "-eo", "stat=,args="], capture_output=True, text=True, check=True).stdout
    return [line for line in listed.splitlines() if str(folder) in line and line[0] != "Z" and "kill9" not in line]


def end_group(process: subprocess.Popen) -> None:
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()


CAMPAIGNS: dict[str, Callable[[Workspace, int, random.Random], None]] = {
    "convert": convert,
    "train": train,
    "benchmark": benchmark,
}


def main(argv: list[str] | None = None) -> int:
    """Returns 1 if anything was wrong."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("campaign", choices=CAMPAIGNS)
    parser.add_argument("--moments", type=int, default=50)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args(argv)
    with tempfile.TemporaryDirectory(prefix="kill_9_", ignore_cleanup_errors=True) as folder:
        space = Workspace(Path(folder))
        CAMPAIGNS[arguments.campaign](space, arguments.moments, random.Random(arguments.seed))
    counts = ", ".join(f"{number} {what}" for what, number in space.seen.items())
    print(f"{arguments.campaign}: {arguments.moments} moments: {counts}; {len(space.wrong)} wrong")
    return 1 if space.wrong else 0


if __name__ == "__main__":
    sys.exit(main())
