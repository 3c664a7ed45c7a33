"""Cold start to written file: `lightm segment` next to nnUNetv2_predict, with our model and with stock nnU-Net's.

python -m benchmarks.speed.deploy --ours MODEL_FOLDER --stock MODEL_FOLDER --images FOLDER -o deploy.md

Both models share a data set and plans (deploy_models.py makes such models); the images are one or more cases, as for
nnUNetv2_predict. With --onnx also ONNX Runtime, by the script that `export --onnx` writes, for the first image. Each
command runs in its own process, in turns, `--repeats` times; the smallest time counts. Memory is the peak of the summed
resident memory of the command and its children, shared memory counted once, sampled ten times a second or less.
Needs lightm-runtime: pip install ./runtime
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import SimpleITK as sitk

from nnunetv2_lightm.measure.machine import machine

PERIOD_S = 0.1
SAMPLING = 0.1  # at most this share of a core: reading the memory of a process of gigabytes takes a while
SHOWN = 3000  # characters of a failed command's output
OUT = "{out}"  # in a command: the folder of its segmentations


def main(argv: list[str] | None = None) -> int:
    arguments = parse(argv)
    scripts = Path(sys.executable).parent
    with tempfile.TemporaryDirectory() as work:
        bundle = Path(work, "model.lightm")
        measure(export(arguments, arguments.ours, bundle, *(["--float32"] if arguments.float32 else [])))
        predict = [scripts / "nnUNetv2_predict_from_modelfolder", "-device", "cpu", "-f", "0"]
        predict += ["-i", arguments.images, "-o", OUT]
        commands = {
            "`lightm segment`": [scripts / "lightm", "segment", bundle, arguments.images, "-o", OUT],
            "`nnUNetv2_predict`, LightMUNet": [*predict, "-m", arguments.ours],
            "`nnUNetv2_predict`, stock network": [*predict, "-m", arguments.stock],
        }
        if arguments.onnx:
            commands |= onnx_commands(arguments, Path(work))
        rows = {name: [] for name in commands}
        for turn in range(arguments.repeats):
            for number, (name, command) in enumerate(commands.items()):
                out = Path(work, f"out_{number}")
                shutil.rmtree(out, ignore_errors=True)
                out.mkdir()
                rows[name].append(measure([str(part).replace(OUT, str(out)) for part in command]))
                print(f"turn {turn + 1}: {name}: {rows[name][-1][0]:.2f} s", file=sys.stderr)
        equal = share_of_equal_voxels(Path(work, "out_0"), Path(work, "out_1"))
        arguments.out.write_text(report(arguments, rows, equal), encoding="utf-8")
    return 0


def export(arguments: argparse.Namespace, model: Path, out: Path, *options: str) -> list[str]:
    program = Path(sys.executable).with_name("nnUNetv2_lightm")
    return [*map(str, (program, "export", model, out, "-f", "0", "--check-images", arguments.images, *options))]


def onnx_commands(arguments: argparse.Namespace, work: Path) -> dict[str, list]:
    """Exports both networks."""
    image, commands = sorted(arguments.images.iterdir())[0], {}
    for name, model in (("LightMUNet", arguments.ours), ("stock network", arguments.stock)):
        folder = work / f"onnx_{model.name}"
        measure(export(arguments, model, folder, "--onnx"))
        segmentation = f"{OUT}/{image.name.replace('_0000', '', 1)}"
        commands[f"ONNX Runtime, {name}"] = [sys.executable, folder / "predict.py", segmentation, image]
    return commands


def measure(command: list[str]) -> tuple[float, float]:
    """Seconds and peak MiB of a command with all its children.

    Raises: SystemExit: with the end of what it said, if it fails.
    """
    with tempfile.TemporaryFile("w+") as said:
        begin = time.perf_counter()
        process = subprocess.Popen(command, stdout=said, stderr=said)
        peak, pause = 0.0, PERIOD_S
        while not ended(process, pause):
            sampled = time.perf_counter()
            peak = max(peak, sum(map(resident_mib, family(process.pid))))
            pause = max(PERIOD_S, (time.perf_counter() - sampled) / SAMPLING)
        seconds = time.perf_counter() - begin
        if process.returncode:
            said.seek(0)
            raise SystemExit(f"{' '.join(command)}: exit code {process.returncode}\n{said.read()[-SHOWN:]}")
    return seconds, peak


def ended(process: subprocess.Popen, within_s: float) -> bool:
    try:
        process.wait(within_s)
    except subprocess.TimeoutExpired:
        return False
    return True


def family(pid: int) -> list[int]:
    """A process and all its living descendants."""
    members = [pid]
    for member in members:
        for children in Path("/proc", str(member), "task").glob("*/children"):
            try:
                members += map(int, children.read_text().split())
            except OSError:  # it has ended meanwhile
                continue
    return members


def resident_mib(pid: int) -> float:
    """Resident memory; what several processes share, such as a library, counts once among them."""
    try:
        text = Path("/proc", str(pid), "smaps_rollup").read_text()
    except OSError:  # it has ended meanwhile
        return 0.0
    return sum(int(line.split()[1]) for line in text.splitlines() if line.startswith("Pss:")) / 1024


def share_of_equal_voxels(first: Path, second: Path) -> float:
    equal = total = 0
    for path in sorted(first.iterdir()):
        a, b = (sitk.GetArrayFromImage(sitk.ReadImage(str(p))) for p in (path, second / path.name))
        equal, total = equal + int(np.sum(a == b)), total + a.size
    return equal / total


def report(arguments: argparse.Namespace, rows: dict[str, list[tuple[float, float]]], equal: float) -> str:
    best = {name: (min(s for s, _ in runs), max(mib for _, mib in runs)) for name, runs in rows.items()}
    (seconds, mib), *_ = best.values()
    files = sorted(arguments.images.iterdir())
    sizes = {" x ".join(map(str, sitk.ReadImage(str(path)).GetSize()[::-1])) for path in files}
    facts = ", ".join(f"{key} {value}" for key, value in machine("lightm-runtime", "SimpleITK", "onnxruntime").items())
    lines = [
        f"{len(files)} file(s) of {', '.join(sorted(sizes)[:3])} voxels, {arguments.repeats} turns; {facts}",
        "",
        "| command | seconds | times the engine's | peak memory, MiB | times the engine's |",
        "|---|---|---|---|---|",
        *(f"| {n} | {s:.2f} | {s / seconds:.1f} | {m:.0f} | {m / mib:.1f} |" for n, (s, m) in best.items()),
        "",
        f"Labels of the engine and of nnUNetv2_predict with LightMUNet agree in {100 * equal:.4f} % of the voxels.",
    ]
    return "\n".join(lines) + "\n"


def parse(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--ours", type=Path, required=True, help="model folder of nnUNetTrainerLightMUNet")
    parser.add_argument("--stock", type=Path, required=True, help="model folder of nnUNetTrainer, of the same plans")
    parser.add_argument("--images", type=Path, required=True)
    parser.add_argument("--float32", action="store_true", help="weights of the bundle, for networks not trained")
    parser.add_argument("--onnx", action="store_true", help="also ONNX Runtime; needs the extra onnx")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("-o", "--out", type=Path, required=True)
    return parser.parse_args(argv)


if __name__ == "__main__":
    sys.exit(main())
