"""What users have in scripts, plans files and checkpoints must keep working: names, options, state dicts, results.

A line here may be added; one that goes breaks somebody's script.
"""

from __future__ import annotations

import hashlib
import importlib
import re
from pathlib import Path

import pytest

from nnunetv2_lightm import LightMUNet, cli
from nnunetv2_lightm.benchmark.results import load_results
from nnunetv2_lightm.networks import LightMUNetReleased
from nnunetv2_lightm.trainers import TRAINERS, find_trainer

ROOT = Path(__file__).resolve().parent.parent
OPTIONS = {
    "doctor": "--dataset --plans --json --print-trainer-path",
    "backends": "",
    "complexity": "--paper -tr -d -c -p -device --count-only --format -o --overwrite",
    "convert lits": (
        "--dry-run --id --name --link --copy --overwrite --resize --seed --spacings --split --strict --workers"
    ),
    "convert montgomery-shenzhen": (
        "--dry-run --id --name --link --copy --only --overwrite --resize --seed --split --strict --workers"
    ),
    "plan": "-p --batch-size --gpu-memory-gb --plans-name --overwrite",
    "demo": "--folder --device --trainer --num-cases --shape",
    "evaluate": "--against --surface --nsd-tolerance-mm --dataset-json --csv --json --chill --overwrite --workers",
    "benchmark": (
        "-d -c -tr -p -o --budget --wall-clock --calibration-of --folds --seeds -device --launcher --slurm --surface "
        "--no-timings --nsd-tolerance-mm --title"
    ),
    "benchmark-report": "-o --output --title --no-pictures",
    "import-released": "--overwrite",
    "export": "-f -chk --float32 --onnx --web --zip --check-images --overwrite",
}
ENGINE_OPTIONS = {
    "": "--version",
    "segment": "-o --output --threads --no-mirroring --volumes --overwrite",
    "info": "",
}
NAMES = (
    "nnunetv2_lightm.LightMUNet",
    "nnunetv2_lightm.selective_scan",
    "nnunetv2_lightm.__version__",
    "nnunetv2_lightm.ops.selective_scan",
    "nnunetv2_lightm.ops.selective_scan_reference",
    "nnunetv2_lightm.ops.backend_table",
    "nnunetv2_lightm.ops.select_backend",
    # Plans files name these classes.
    "nnunetv2_lightm.networks.LightMUNet",
    "nnunetv2_lightm.networks.lightm_unet.LightMUNet",
    "nnunetv2_lightm.networks.LightMUNetReleased",
    "nnunetv2_lightm.networks.UMambaBot",
    "nnunetv2_lightm.networks.UMambaEnc",
    "nnunetv2_lightm.networks.segresnet",
    "nnunetv2_lightm.networks.unetr",
    "nnunetv2_lightm.networks.swin_unetr",
    "nnunetv2_lightm.layers.RVMLayer",
    "nnunetv2_lightm.layers.VSSModule",
    "nnunetv2_lightm.layers.Mamba1Block",
    "nnunetv2_lightm.layers.SelectiveSSM",
    "nnunetv2_lightm.layers.DecoderBlock",
)
TRAINER_NAMES = {
    f"nnUNetTrainer{name}"
    for name in (
        "LightMUNet",
        "LightMUNetPaperSGD",
        "LightMUNetConv3",
        "LightMUNetSelfAttention",
        "LightMUNetNoAdjustment",
        "LightMUNetNoResidual",
        "LightMUNetReleased",
        "LightMUNetReleasedFirst",
        "SegResNet",
        "UNETR",
        "SwinUNETR",
        "UMambaBot",
        "UMambaEnc",
        "LightMUNetAdamW",
        "PlainMuon",
    )
}


@pytest.mark.parametrize("command", OPTIONS)
def test_options(command, capsys):
    assert set(OPTIONS[command].split()) <= options_in_help(cli.main, command, capsys)


@pytest.mark.parametrize("command", ENGINE_OPTIONS)
def test_options_of_the_engine(command, capsys):
    engine = pytest.importorskip("lightm_runtime.cli", reason="lightm-runtime is not installed: pip install ./runtime")
    assert set(ENGINE_OPTIONS[command].split()) <= options_in_help(engine.main, command, capsys)


def options_in_help(main, command, capsys) -> set[str]:
    with pytest.raises(SystemExit) as end:
        raise SystemExit(main([*command.split(), "--help"]))
    assert end.value.code == 0
    return set(re.findall(r"(?<![\w-])--?[a-z][\w-]*", capsys.readouterr().out))


def test_commands():
    assert {command.split()[0] for command in OPTIONS} <= set(cli.COMMANDS)


@pytest.mark.parametrize(
    ("arguments", "code"),
    [(["--version"], 0), (["no-such-command"], 2), (["evaluate"], 2), (["evaluate", "a", "b"], 1)],
)
def test_exit_codes(arguments, code, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as end:
        raise SystemExit(cli.main(arguments))
    assert end.value.code == code


@pytest.mark.parametrize("name", NAMES)
def test_imports(name):
    module, _, attribute = name.rpartition(".")
    assert getattr(importlib.import_module(module), attribute) is not None


def test_trainers():
    assert set(TRAINERS) >= TRAINER_NAMES
    assert find_trainer("nnUNetTrainerLightMUNet_20epochs_50iters_seed1").__name__.endswith("_20epochs_50iters_seed1")


@pytest.mark.parametrize(
    ("network", "entries", "digest"),
    [
        (lambda: LightMUNet(1, 2, spatial_dims=2), 194, "c76c6d1ecdd5b6f9"),
        (lambda: LightMUNet(1, 3, spatial_dims=3, deep_supervision=True), 202, "683d633c50fabfc3"),
        (lambda: LightMUNetReleased(1, 2, spatial_dims=2), 362, "0983a8f7d840d3b5"),
    ],
    ids=["2d", "3d", "released"],
)
def test_state_dicts(network, entries, digest):
    """Names and shapes, in order. A change makes users' checkpoints unreadable."""
    lines = [f"{name} {tuple(tensor.shape)}" for name, tensor in network().state_dict().items()]
    assert (len(lines), hashlib.sha256("\n".join(lines).encode()).hexdigest()[:16]) == (entries, digest)


@pytest.mark.parametrize("name", ["chest_seconds", "chest_iterations", "hippocampus_seconds", "hippocampus_iterations"])
def test_results_of_earlier_versions(name):
    assert load_results(ROOT / "benchmarks" / "accuracy" / "results" / f"{name}.json").runs
