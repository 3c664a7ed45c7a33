"""The process that measures: ``python -m nnunetv2_lightm.complexity.measure_trainer REQUEST``; see :mod:`.measurement`.

REQUEST holds the arguments of :func:`measure_here` as JSON; the last line of the output is the result as JSON.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from dataclasses import asdict

import torch
from nnunetv2.run.run_training import get_trainer_from_args
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer
from torch import Tensor

from ..measure.peak_rss import not_measurable_reason, transient_mib
from ..measure.timing import Effort, alternate
from ..ops import select_backend
from .measurement import TRAINING, Measurement
from .plans import PlannedConfiguration, build_network, find_trainer, read_configuration

EFFORT = Effort(seconds=10, least_rounds=3, most_rounds=10)


def measure_here(
    trainer: str, dataset: str, configuration: str, plans_identifier: str, work: str, device: str
) -> Measurement:
    """Time and memory of one run in this process, which needs nnU-Net folders of its own."""
    target = torch.device(device)
    prepare = training_step if work == TRAINING else forward_pass
    run = prepare(trainer, read_configuration(dataset, configuration, plans_identifier), target)

    def finished() -> None:
        run()
        if target.type == "cuda":
            torch.cuda.synchronize()

    seconds = alternate({work: finished}, EFFORT)[work]
    memory, not_measured = _transient_mib(finished, target)
    setting = f"{device}, {torch.get_num_threads()} threads, selective scan: {select_backend(target.type)}"
    return Measurement(seconds, memory, not_measured, setting)


def forward_pass(trainer: str, planned: PlannedConfiguration, device: torch.device) -> Callable[[], object]:
    """The network on one patch, as nnU-Net predicts: in half precision on a GPU."""
    network = build_network(find_trainer(trainer), planned).to(device).eval()
    image = torch.randn(1, *planned.sample_shape, device=device)

    def run() -> object:
        with torch.inference_mode(), torch.autocast(device.type, enabled=device.type == "cuda"):
            return network(image)

    return run


def training_step(trainer: str, planned: PlannedConfiguration, device: torch.device) -> Callable[[], object]:
    """The trainer's own step on one patch."""
    made = get_trainer_from_args(planned.dataset, planned.name, 0, trainer, planned.plans_file.stem, device=device)
    made.initialize()
    made.network.train()
    batch = random_batch(made)
    return lambda: made.train_step(batch)


def random_batch(trainer: nnUNetTrainer) -> dict[str, Tensor | list[Tensor]]:
    """A random patch and labels, put through nnU-Net's own transforms for regions, cascade and deep supervision.

    Returns: "data", (1, channels, *patch), and "target", (1, regions or 1, *patch), or a list with deep supervision.
    """
    labels, size = trainer.label_manager, trainer.configuration_manager.patch_size
    # A cascade's loader gives the previous stage's labels as a second map, which becomes channels of the image.
    maps = 2 if trainer.is_cascaded else 1
    transforms = trainer.get_validation_transforms(
        trainer._get_deep_supervision_scales(),
        is_cascaded=trainer.is_cascaded,
        foreground_labels=labels.foreground_labels,
        regions=labels.foreground_regions if labels.has_regions else None,
        ignore_label=labels.ignore_label,
    )
    channels = trainer.num_input_channels - (len(labels.foreground_labels) if trainer.is_cascaded else 0)
    known = torch.tensor(labels.all_labels, dtype=torch.int16)
    generator = torch.Generator().manual_seed(0)
    patch = transforms(
        image=torch.randn(channels, *size, generator=generator),
        segmentation=known[torch.randint(len(known), (maps, *size), generator=generator)],
    )
    target = patch["segmentation"]
    batched = [one[None] for one in target] if isinstance(target, list) else target[None]
    return {"data": patch["image"][None], "target": batched}


def _transient_mib(run: Callable[[], object], device: torch.device) -> tuple[float | None, str | None]:
    """Transient memory in MiB, or None and the reason."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        run()
        return (torch.cuda.max_memory_allocated() - before) / 2**20, None
    reason = not_measurable_reason()
    return (None, reason) if reason else (transient_mib(run), None)


def main(argv: list[str]) -> None:
    print(json.dumps(asdict(measure_here(**json.loads(argv[0])))))


if __name__ == "__main__":
    main(sys.argv[1:])
