"""The command that makes a model to hand out, whole: on drawn images, killed in the training, installed elsewhere."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
from scipy.ndimage import gaussian_filter

from release.weights.models import HELD_OUT, MODELS, TRAINER

from ..prediction import assert_same_segmentations

pytestmark = pytest.mark.end_to_end

KEPT_OUT = HELD_OUT["hippocampus"]
TRAINING = [f"hippocampus_9{number:02d}" for number in range(6)]
# With fewer, or with classes that are not apart, many voxels lie so close between two of them that float16 decides.
BUDGET = "2epochs_20iters"


def write_msd(folder: Path) -> None:
    """As the challenge has it, with images of a few voxels: a third is one class, a third another."""
    rng = np.random.default_rng(0)
    for part in ("imagesTr", "labelsTr", "imagesTs"):
        (folder / part).mkdir(parents=True)
    for case in (*KEPT_OUT, *TRAINING):
        smooth = gaussian_filter(rng.normal(size=(16, 20, 16)), sigma=2)
        label = np.digitize(smooth, np.quantile(smooth, (1 / 3, 2 / 3)))
        image = 100 * label + rng.normal(size=smooth.shape, scale=10)
        for part, values in (("imagesTr", image.astype(np.float32)), ("labelsTr", label.astype(np.uint8))):
            sitk.WriteImage(sitk.GetImageFromArray(values), str(folder / part / f"{case}.nii.gz"))
    content = {"labels": {"0": "background", "1": "Anterior", "2": "Posterior"}, "modality": {"0": "MRI"}}
    more = {"name": "Hippocampus", "training": [], "test": [], "numTraining": len(KEPT_OUT) + len(TRAINING)}
    (folder / "dataset.json").write_text(json.dumps(content | more))


def test_a_model_is_made_and_predicts_elsewhere(workspace, repository):
    data, folder = workspace.root / "data", workspace.root / "weights"
    write_msd(data / "Task04_Hippocampus")
    command = [sys.executable, "-m", "release.weights", "hippocampus", str(folder), "--budget", BUDGET]
    environment = workspace.environment | {"NNUNETV2_LIGHTM_DATA": str(data)}

    def run(**options) -> subprocess.CompletedProcess[str]:
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
        return subprocess.run(command, cwd=repository, env=environment, check=False, **pipes, **options)

    killed = subprocess.Popen(command, cwd=repository, env=environment, stdout=subprocess.PIPE, text=True)
    for line in killed.stdout:
        if "] train" in line:
            killed.kill()
    assert killed.wait() < 0
    assert not (folder / "hippocampus.zip").exists()
    finished = run()
    while "another run is working" in finished.stdout:  # its children are being ended
        finished = run()
    assert finished.returncode == 0, finished.stdout[-6000:]
    assert "preprocess" in finished.stdout and "complete already" in finished.stdout
    out = folder / "hippocampus.zip"
    before = out.read_bytes()
    assert "nnU-Net" in (folder / "hippocampus.md").read_text(encoding="utf-8")

    again = run()
    assert again.returncode == 0 and " done" not in again.stdout
    assert out.read_bytes() == before and len(before) < 6e6

    for name in ("nnUNet_raw", "nnUNet_preprocessed"):
        del workspace.environment[name]
    workspace.environment["nnUNet_results"] = str(workspace.root / "elsewhere")
    card = (folder / "hippocampus.md").read_text(encoding="utf-8")
    install, predict = re.search(r"```bash\nexport [^\n]*\n(.*?)\n(.*?)\n```", card, re.DOTALL).groups()
    workspace.run(*install.replace("hippocampus.zip", str(out)).split())
    predictions, images = (
        workspace.root / "predictions",
        folder / "hippocampus" / "raw" / "Dataset004_Hippocampus" / "imagesTs",
    )
    given = {"IMAGES": str(images), "SEGMENTATIONS": str(predictions)}
    workspace.run(*(given.get(word, word) for word in predict.split()), "-device", "cpu")
    # What the card's scores are of. How little float16 changes in it, the command has checked before it wrote the zip.
    scored = folder / "hippocampus" / "predictions" / "as_installed"
    assert_same_segmentations([(predictions / f"{case}.nii.gz", scored / f"{case}.nii.gz") for case in KEPT_OUT])
    assert sorted(path.name for path in images.iterdir()) == [f"{case}_0000.nii.gz" for case in sorted(KEPT_OUT)]
    assert TRAINER in card and MODELS["hippocampus"].licence in card and os.sep not in card.splitlines()[0]
