"""Trains as one rank of a process group on CPUs, or alone: nnU-Net's own trainer methods, the arguments in a file.

nnU-Net's launcher (nnunetv2/run/run_training.py, run_ddp) knows CUDA alone; what differs here is the device.

    python two_ranks.py FOLDER RANK WORLD_SIZE

FOLDER holds ``cases.pt``, a list of keyword arguments of :func:`train`; ``rank_RANK.pt`` receives the results.
"""

from __future__ import annotations

import copy
import os
import sys
from pathlib import Path

import torch
from nnunetv2.training.nnUNetTrainer import nnUNetTrainer as trainer_module
from torch import Tensor
from torch import distributed as dist
from torch.nn.parallel import DistributedDataParallel

from nnunetv2_lightm.trainers import find_trainer


def train(
    *, trainer: str, backend: str, plans: dict, dataset_json: dict, deep_supervision: bool, data: Tensor, target: Tensor
) -> dict:
    """Two training steps with this rank's part of the batch.

    Returns: ``losses`` of the steps; ``gradients`` of the first one and ``weights`` after the second one, by name; the
        number of ``samples``.
    """
    os.environ["NNUNETV2_LIGHTM_BACKEND"] = backend
    rank, ranks = (dist.get_rank(), dist.get_world_size()) if dist.is_initialized() else (0, 1)
    torch.manual_seed(rank)  # DistributedDataParallel gives all ranks the weights of the first
    arguments = (copy.deepcopy(plans) | {"continue_training": False}, "2d", 0, dataset_json, torch.device("cpu"))
    nnunet_trainer = find_trainer(trainer)(*arguments)
    # With a process group nnU-Net takes the GPU of its rank.
    nnunet_trainer.device, nnunet_trainer.grad_scaler = torch.device("cpu"), None
    nnunet_trainer.enable_deep_supervision = deep_supervision
    nnunet_trainer.initialize()
    nnunet_trainer.set_deep_supervision_enabled(deep_supervision)
    if deep_supervision and ranks == 1:
        # nnU-Net leaves the lowest output out, but not with several ranks.
        weights = torch.tensor([1, 0.5, 1e-6])
        nnunet_trainer.loss.weight_factors = tuple((weights / weights.sum()).tolist())
    scales = nnunet_trainer._get_deep_supervision_scales() or [(1, 1)]
    targets = [target[:, :, :: round(1 / y), :: round(1 / x)] for y, x in scales]
    part = slice(rank * nnunet_trainer.batch_size, (rank + 1) * nnunet_trainer.batch_size)
    targets = [t[part] for t in targets]
    batch = {"data": data[part], "target": targets if deep_supervision else targets[0]}
    network = nnunet_trainer.network.module if ranks > 1 else nnunet_trainer.network
    losses = [float(nnunet_trainer.train_step(batch)["loss"])]
    gradients = {name: p.grad.clone() for name, p in network.named_parameters()}
    losses.append(float(nnunet_trainer.train_step(batch)["loss"]))
    return {"losses": losses, "gradients": gradients, "weights": network.state_dict(), "samples": len(batch["data"])}


def main(folder: Path, rank: int, ranks: int) -> None:
    torch.set_num_threads(1)
    trainer_module.DDP = lambda network, device_ids: DistributedDataParallel(network)
    dist.init_process_group("gloo", init_method=(folder / "rendezvous").as_uri(), rank=rank, world_size=ranks)
    results = [train(**case) for case in torch.load(folder / "cases.pt", weights_only=False)]
    torch.save(results, folder / f"rank_{rank}.pt")
    dist.destroy_process_group()


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]))
