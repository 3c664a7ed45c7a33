"""A trained fold predicts by the engine's command and by nnU-Net's."""

from __future__ import annotations

from pathlib import Path

from lightm_runtime import cli
from nnunetv2.inference.predict_from_raw_data import predict_entry_point_modelfolder

from nnunetv2_lightm import cli as package_cli

from ..nnunet_in_process import Nnunet


def predict_both(nnunet: Nnunet, fold: Path, images: Path, out: Path) -> list[tuple[Path, Path]]:
    """The files of the engine and of nnU-Net."""
    model, which = fold.parent, fold.name.removeprefix("fold_")
    bundle = out / "model.lightm"
    assert package_cli.main(["export", str(model), str(bundle), "-f", which]) == 0
    options = ("-i", images, "-m", model, "-f", which, "-device", "cpu", "-npp", 1, "-nps", 1)
    nnunet.run(predict_entry_point_modelfolder, "-o", out / "nnunet", *options)
    assert cli.main(["segment", str(bundle), str(images), "-o", str(out / "engine"), "--threads", "1"]) == 0
    names = sorted(path.name for path in (out / "engine").iterdir())
    return [(out / "engine" / name, out / "nnunet" / name) for name in names]
