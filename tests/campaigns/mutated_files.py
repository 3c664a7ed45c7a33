"""Mutated NIfTI and PNG files through the converters and `evaluate`: each a clear error or the right result.

    python tests/campaigns/mutated_files.py --count 200 --seed 0

A sound file is damaged (tests/campaigns/mutations.py) and given to the commands in a process of its own. Counted are
refusals that name the file, results that are said to be repaired or noted, and silent results that are right: equal to
those of the sound file, or to what an independent reader (nibabel, Pillow, scikit-image) makes of the damaged one. All
else is a failure: a crash, a traceback, a wrong number, more than 60 s of computing, or more than 300 MiB. Failures are
printed as they come.
"""

from __future__ import annotations

import argparse
import contextlib
import itertools
import json
import multiprocessing
import os
import re
import resource
import shutil
import sys
import tempfile
import traceback
import warnings
from collections import Counter
from pathlib import Path

import nibabel
import numpy as np
import SimpleITK as sitk
from PIL import Image, ImageOps
from skimage import io

import nnunetv2_lightm.evaluation.folders  # noqa: F401  loaded once, before the forks: it takes seconds
from nnunetv2_lightm.commands import evaluate
from nnunetv2_lightm.dataset_conversion import Dataset801_LiTS, Dataset802_MontgomeryShenzhen

if __package__:
    from .mutations import NIFTI, PNG
else:
    sys.path.insert(0, str(Path(__file__).parent))
    from mutations import NIFTI, PNG

SHAPE, PIXELS = (12, 10, 8), (40, 32)
AFFINE = np.array([[-0.7, 0, 0, 50], [0, 0.7, 0, 20], [0, 0, 1.6, -300], [0, 0, 0, 1]])
# What the converters take for rounding, and leave in a file: a quarter of the shortest edge of a voxel.
ROUNDING_MM = 0.25 * 0.7
MAX_SECONDS, MAX_MIB = 60, 300
HANG_SECONDS = 600  # of waiting: a machine may be busy


class Wrong(Exception):
    """Neither a clear error nor the right result."""


def main(argv: list[str] | None = None) -> int:
    """Run the campaign. Returns 1 if anything went wrong."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=200, help="mutated files, half NIfTI, half PNG (default: 200)")
    parser.add_argument("--seed", type=int, default=0, help="same seed, same files (default: 0)")
    parser.add_argument("--keep", type=Path, metavar="FOLDER", help="keep what went wrong here")
    arguments = parser.parse_args(argv)
    outcomes, failures = run(arguments.count, arguments.seed, arguments.keep)
    for (command, outcome), count in sorted(outcomes.items()):
        print(f"{command:<28}{outcome:<24}{count:>5}")
    print(f"{arguments.count} files, {sum(outcomes.values())} runs, {len(failures)} wrong")
    return 1 if failures else 0


def run(count: int, seed: int, keep: Path | None = None) -> tuple[Counter, list[str]]:
    """Returns: how often each command ended in each way; and what went wrong."""
    outcomes: Counter = Counter()
    failures = []
    for number in range(count):
        for command in (convert_nifti, evaluate_nifti) if number % 2 else (convert_png, evaluate_png):
            name = f"{number}: {command.__name__}"
            with tempfile.TemporaryDirectory() as folder:
                outcome = in_own_process(command, Path(folder), [seed, number])
                if outcome.startswith("WRONG"):
                    failures.append(f"{name}: {outcome}")
                    print(failures[-1], flush=True)
                    if keep is not None:
                        shutil.copytree(folder, keep / f"{number}_{command.__name__}", symlinks=True)
                elif outcome != "no label":
                    outcomes[command.__name__.replace("_", " "), outcome] += 1
        if number % 20 == 19:
            print(f"{number + 1} files, {len(failures)} wrong", flush=True)
    return outcomes, failures


def in_own_process(command, folder: Path, seed: list[int]) -> str:
    """What became of it; a crash, a hang and a blow-up of memory are seen from outside."""
    process = multiprocessing.get_context("fork").Process(target=_child, args=(command, folder, seed))
    process.start()
    process.join(HANG_SECONDS)
    if process.is_alive():
        process.kill()
        process.join()
        return f"WRONG: not finished after {HANG_SECONDS} s"
    result = folder / "outcome"
    if not result.exists():
        return f"WRONG: ended with exit code {process.exitcode}"
    return result.read_text()


def _child(command, folder: Path, seed: list[int]) -> None:
    resource.setrlimit(resource.RLIMIT_CPU, (MAX_SECONDS, MAX_SECONDS))  # killed by SIGKILL or SIGXCPU
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for name, number in (("stdout", 1), ("stderr", 2)):  # those of C++ too
        os.dup2(os.open(folder / name, os.O_CREAT | os.O_WRONLY), number)
    sys.stdout, sys.stderr = (os.fdopen(number, "w", buffering=1, closefd=False) for number in (1, 2))
    for name in ("raw", "preprocessed", "results"):
        os.environ[f"nnUNet_{name}"] = str(folder / name)
    warnings.simplefilter("ignore")
    try:
        outcome = command(folder, np.random.default_rng(seed))
    except Wrong as error:
        outcome = f"WRONG: {error}"
    except BaseException:  # whatever comes out of a command is a failure of it
        outcome = f"WRONG: {traceback.format_exc()}"
    grown_mib = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
    if grown_mib > MAX_MIB:
        outcome = f"WRONG: {grown_mib:.0f} MiB"
    partial = folder / "outcome.partial"
    partial.write_text(outcome)
    partial.rename(folder / "outcome")


def convert_nifti(folder: Path, rng: np.random.Generator) -> str:
    """One file of a LiTS case is damaged, the other case is sound."""
    source = folder / "source"
    source.mkdir()
    for number in range(2):
        ending = rng.choice([".nii", ".nii.gz"])
        for name, values in (("volume", _ct(rng)), ("segmentation", _label(rng))):
            _save(source / f"{name}-{number}{ending}", values, rng)
    role = rng.choice(["volume", "segmentation"])
    damaged = source / f"{role}-1{ending}"
    sound = {name: _nibabel_values(source / f"{name}-1{ending}") for name in ("volume", "segmentation")}
    damaged.write_bytes(rng.choice(NIFTI)(rng, damaged.read_bytes()))
    entry = _convert(Dataset801_LiTS.main, folder, "Dataset801_LiTS", "LiTS_001", damaged)
    if isinstance(entry, str):
        return entry
    written = {
        "volume": folder / "raw/Dataset801_LiTS/imagesTr/LiTS_001_0000.nii.gz",
        "segmentation": folder / "raw/Dataset801_LiTS/labelsTr/LiTS_001.nii.gz",
    }
    for name, path in written.items():
        values = _nibabel_values(path)
        candidates = [sound[name]] + ([_nibabel_values(damaged)] if name == role else [])
        if not any(_equal(values, candidate) for candidate in candidates):
            raise Wrong(f"{name} has other voxels: {entry}")
        apart = _shift_mm(nibabel.load(path).affine, nibabel.load(written["volume"]).affine)
        if not apart <= ROUNDING_MM:
            raise Wrong(f"image and label lie {apart:.3g} mm apart: {entry}")
    said = bool(entry["repairs"] or entry["notes"])
    affine, itk = nibabel.load(written["volume"]).affine, sitk.ReadImage(str(written["volume"]))
    same = np.allclose(affine, AFFINE, atol=1e-3) and np.allclose(itk.GetSpacing(), (0.7, 0.7, 1.6), rtol=1e-3)
    if not same and not said:
        raise Wrong(f"another geometry, and no word: {affine.tolist()}")
    return "repaired or noted" if said else "right"


def _shift_mm(first: np.ndarray, second: np.ndarray) -> float:
    """How far the corner of a volume that moves most is from one geometry to the other."""
    corners = np.array([(*corner, 1) for corner in itertools.product(*((0, n - 1) for n in SHAPE))])
    return float(np.linalg.norm((corners @ (first - second).T)[:, :3], axis=1).max())


def evaluate_nifti(folder: Path, rng: np.random.Generator) -> str:
    """A damaged prediction, or a damaged reference."""
    ending = str(rng.choice([".nii", ".nii.gz"]))
    files = [folder / name / f"c1{ending}" for name in ("pred", "ref")]
    for file in files:
        file.parent.mkdir()
        _save(file, _label(rng), rng)
        _save(file.with_name(f"c0{ending}"), _label(rng), rng)
    sound = [_nibabel_values(file) for file in files]
    which = int(rng.integers(2))
    files[which].write_bytes(rng.choice(NIFTI)(rng, files[which].read_bytes()))
    scores = _evaluate(folder, ending, {"background": 0, "liver": 1, "tumor": 2}, files[which])
    if isinstance(scores, str):
        return scores
    candidates = [sound, [_nibabel_values(file) if i == which else sound[i] for i, file in enumerate(files)]]
    return _compare_scores(scores, candidates, (1, 2))


def convert_png(folder: Path, rng: np.random.Generator) -> str:
    """The X-ray or the mask of a case is damaged."""
    source = folder / "source"
    sound = {}
    for number in range(2):
        for name, pixels in (("CXR_png", _xray(rng)), ("masks", _mask(rng))):
            file = source / name / f"MCUCXR_{number:04d}_0.png"
            file.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(pixels).save(file)
            sound[name] = pixels
    role = str(rng.choice(["CXR_png", "masks"]))
    damaged = source / role / "MCUCXR_0001_0.png"
    damaged.write_bytes(rng.choice(PNG)(rng, damaged.read_bytes()))
    name = "Dataset802_MontgomeryShenzhen"
    entry = _convert(Dataset802_MontgomeryShenzhen.main, folder, name, "MCUCXR_0001_0", damaged)
    if isinstance(entry, str):
        return entry
    sound["masks"] = (sound["masks"] >= 128).astype(np.uint8)
    for part, path in (("CXR_png", "imagesTr/MCUCXR_0001_0_0000.png"), ("masks", "labelsTr/MCUCXR_0001_0.png")):
        pixels = io.imread(folder / "raw" / name / path)
        if not _equal(pixels, sound[part]) and not (part == role and _equal(pixels, _pillow(damaged, part))):
            raise Wrong(f"{part} has other pixels: {entry}")
    return "repaired or noted" if entry["repairs"] or entry["notes"] else "right"


def evaluate_png(folder: Path, rng: np.random.Generator) -> str:
    """A damaged prediction, or a damaged reference."""
    files = [folder / name / "c1.png" for name in ("pred", "ref")]
    for file in files:
        file.parent.mkdir()
        for name in ("c0.png", "c1.png"):
            Image.fromarray(_mask(rng) // 255).save(file.with_name(name))
    sound = [np.asarray(Image.open(file)) for file in files]
    which = int(rng.integers(2))
    files[which].write_bytes(rng.choice(PNG)(rng, files[which].read_bytes()))
    scores = _evaluate(folder, ".png", {"background": 0, "lung": 1}, files[which])
    if isinstance(scores, str):
        return scores
    candidates = [sound, [_skimage(file) if i == which else sound[i] for i, file in enumerate(files)]]
    return _compare_scores(scores, candidates, (1,))


def _convert(convert, folder: Path, dataset: str, case: str, damaged: Path) -> dict | str:
    """The report on the damaged case, or how it was refused."""
    code = convert([str(folder / "source"), "--split", "none", "--workers", "1"])
    _look_for_tracebacks(folder)
    if code != 0:
        raise Wrong(f"exit code {code}, though a case is sound: {(folder / 'stderr').read_text()}")
    report = json.loads((folder / "raw" / dataset / "conversion_report.json").read_text())
    entries = {entry["case"]: entry for entry in report["cases"]}
    if sum(entry["status"] != "refused" for entry in entries.values()) < (entries[case]["status"] != "refused") + 1:
        raise Wrong(f"the sound case was refused: {entries}")
    if entries[case]["status"] != "refused":
        return entries[case]
    reason = entries[case]["reason"]
    # What concerns both files at once names them as image and label, or mask.
    if damaged.name not in reason and not re.match(r"image and (label|mask) ", reason):
        raise Wrong(f"a refusal without a name: {reason}")
    return "refused by name"


def _evaluate(folder: Path, ending: str, labels: dict[str, int], damaged: Path) -> dict | str:
    (folder / "dataset.json").write_text(json.dumps({"labels": labels, "file_ending": ending}))
    output = folder / "scores.json"
    with contextlib.suppress(FileNotFoundError):
        output.unlink()
    code = evaluate.main([str(folder / "pred"), str(folder / "ref"), "--json", str(output), "--workers", "1"])
    _look_for_tracebacks(folder)
    if code == 1:
        said = (folder / "stderr").read_text()
        if str(damaged) not in said:
            raise Wrong(f"an error without the file's name: {said}")
        if output.exists() or (folder / "stdout").read_text():
            raise Wrong("an error, and a table")
        return "refused by name"
    return json.loads(output.read_text())["cases"]["c1"]


def _look_for_tracebacks(folder: Path) -> None:
    text = (folder / "stdout").read_text(errors="replace") + (folder / "stderr").read_text(errors="replace")
    if "Traceback" in text:
        raise Wrong(f"a traceback: {text}")


def _compare_scores(scores: dict, candidates: list, values: tuple[int, ...]) -> str:
    for pair in candidates:
        if any(one is None for one in pair) or pair[0].shape != pair[1].shape:
            continue
        expected = [_dice(pair[0] == value, pair[1] == value) for value in values]
        found = [classes["DSC"] for classes in scores.values()]
        if len(found) == len(expected) and all(map(_same_score, found, expected)):
            return "right"
    raise Wrong(f"scores of neither file: {scores}")


def _same_score(first: float | None, second: float | None) -> bool:
    return first is second is None or (None not in (first, second) and abs(first - second) < 1e-9)


def _dice(first: np.ndarray, second: np.ndarray) -> float | None:
    total = int(first.sum()) + int(second.sum())
    return 2 * int((first & second).sum()) / total if total else None


def _equal(ours: np.ndarray, theirs: np.ndarray | None) -> bool:
    if theirs is None:
        return False
    ours, theirs = np.squeeze(np.asarray(ours, np.float64)), np.squeeze(np.asarray(theirs, np.float64))
    return ours.shape == theirs.shape and bool(np.allclose(ours, theirs, rtol=1e-6, atol=0))


def _nibabel_values(file: Path) -> np.ndarray | None:
    try:
        return np.asanyarray(nibabel.load(file).dataobj)
    except Exception:  # nibabel does not read it: then only the sound file's values are right
        return None


def _pillow(file: Path, role: str) -> np.ndarray | None:
    try:
        pixels = np.asarray(ImageOps.exif_transpose(Image.open(file)))
    except Exception:  # as above
        return None
    return (pixels >= 128).astype(np.uint8) if role == "masks" else pixels


def _skimage(file: Path) -> np.ndarray | None:
    try:
        return io.imread(file)
    except Exception:  # as above
        return None


def _save(file: Path, values: np.ndarray, rng: np.random.Generator) -> None:
    """By one of two libraries, which write headers differently."""
    nibabel.save(nibabel.Nifti1Image(values, AFFINE), file)
    if rng.random() < 0.5:
        sitk.WriteImage(sitk.ReadImage(str(file)), str(file))


def _ct(rng: np.random.Generator) -> np.ndarray:
    return rng.normal(0, 300, SHAPE).astype(rng.choice([np.int16, np.float32]))


def _label(rng: np.random.Generator) -> np.ndarray:
    return rng.integers(0, 3, SHAPE).astype(rng.choice([np.uint8, np.int16, np.float32]))


def _xray(rng: np.random.Generator) -> np.ndarray:
    high, dtype = (2**16, np.uint16) if rng.random() < 0.3 else (2**8, np.uint8)
    return rng.integers(0, high, PIXELS).astype(dtype)


def _mask(rng: np.random.Generator) -> np.ndarray:
    return np.where(rng.random(PIXELS) < 0.5, 255, 0).astype(np.uint8)


if __name__ == "__main__":
    sys.exit(main())
