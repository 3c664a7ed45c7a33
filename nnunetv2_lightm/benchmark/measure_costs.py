"""The process behind calibration.json: measures what an iteration of each trainer costs.

    python -m nnunetv2_lightm.benchmark.measure_costs -tr A B ... -o FILE

In its turn, a trainer runs one short epoch exactly as in a training: nnU-Net's own methods, real batches from its
loaders and their worker processes, scores, checkpoint and plots. The file is saved after each turn; a later call
continues there.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import torch
from nnunetv2.run.run_training import get_trainer_from_args

from ..files import NotOursError, scratch_folder
from ..measure.machine import machine
from ..option_types import whole_number
from .costs import MeasuredCosts, TrainerCosts, Turn, load_costs, missing_turns, write_costs
from .results import ResultsError

ROUNDS = 5
TURN_SECONDS = 6.0  # of training iterations, and half as many of validation
RESULTS = "nnUNet_results"
WARM_UP_ITERATIONS, LEAST_ITERATIONS = 2, 2


def measure_costs(
    trainers: Sequence[str],
    dataset: str,
    configuration: str,
    plans: str,
    fold: int,
    device: str,
    output: Path,
    *,
    rounds: int,
    turn_seconds: float,
) -> None:
    """Run the turns that are still missing, and save each one.

    Raises: ResultsError: if the existing file was measured on another device.
    """
    costs = load_costs(output) if output.exists() else MeasuredCosts(device=device, machine=machine(), trainers={})
    if costs.device != device:
        raise ResultsError(f"{output} was measured on {costs.device}, not on {device}; remove it to measure again")
    # What the trainers write must not end up among the user's results.
    with scratch_folder(output.with_suffix(".nnUNet_results")) as results, _nnunet_results(results):
        for name in missing_turns(costs, trainers, rounds):
            print(f"{name}: turn {costs.num_turns(name) + 1} of {rounds}")
            trainer = get_trainer_from_args(dataset, configuration, fold, name, plans, device=torch.device(device))
            turn = take_turn(trainer, turn_seconds)
            before = costs.trainers[name].turns if name in costs.trainers else []
            measured = TrainerCosts(
                iterations_per_epoch=trainer.num_iterations_per_epoch,
                validation_iterations_per_epoch=trainer.num_val_iterations_per_epoch,
                turns=[*before, turn],
            )
            costs = costs.with_trainers({name: measured})
            write_costs(costs, output)


def take_turn(trainer, seconds: float) -> Turn:
    """Run and time one short epoch (nnU-Net: nnUNetTrainer.run_training) after a warm-up.

    Args:
        trainer: Not initialised yet.
        seconds: Time for training iterations; validation gets half of it.
    """
    trainer.on_train_start()
    trainer.on_epoch_start()
    trainer.on_train_epoch_start()
    train_seconds, outputs = _repeat(lambda: trainer.train_step(next(trainer.dataloader_train)), seconds)
    before = time.perf_counter()
    trainer.on_train_epoch_end(outputs)
    epoch_seconds = time.perf_counter() - before
    with torch.no_grad():
        trainer.on_validation_epoch_start()
        step = lambda: trainer.validation_step(next(trainer.dataloader_val))  # noqa: E731
        validation_seconds, outputs = _repeat(step, seconds / 2)
        before = time.perf_counter()
        trainer.on_validation_epoch_end(outputs)
    trainer.on_epoch_end()
    epoch_seconds += time.perf_counter() - before
    trainer.on_train_end()
    return Turn(train_seconds=train_seconds, validation_seconds=validation_seconds, epoch_seconds=epoch_seconds)


def _repeat(step: Callable[[], dict], seconds: float) -> tuple[float, list[dict]]:
    """Mean seconds of a step, and the outputs of all steps. A step ends when its loss has reached main memory."""
    outputs = [step() for _ in range(WARM_UP_ITERATIONS)]
    begin, count = time.perf_counter(), 0
    while count < LEAST_ITERATIONS or time.perf_counter() - begin < seconds:
        outputs.append(step())
        count += 1
    return (time.perf_counter() - begin) / count, outputs


@contextmanager
def _nnunet_results(folder: Path) -> Iterator[None]:
    """Point nnU-Net's results to another folder."""
    before = os.environ[RESULTS]
    os.environ[RESULTS] = str(folder)
    try:
        yield
    finally:
        os.environ[RESULTS] = before


def main(argv: list[str]) -> int:
    """Run the process. Returns 0; 1 if the existing file was measured on another device."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("-tr", nargs="+", required=True)
    parser.add_argument("-d", required=True)
    parser.add_argument("-c", required=True)
    parser.add_argument("-p", required=True)
    parser.add_argument("-f", type=whole_number(at_least=0), required=True)
    parser.add_argument("-device", choices=("cpu", "cuda", "mps"), required=True)
    parser.add_argument("-o", type=Path, required=True)
    arguments = parser.parse_args(argv)
    # As `nnUNetv2_train` sets them (nnU-Net: run/run_training.py).
    torch.set_num_threads(multiprocessing.cpu_count() if arguments.device == "cpu" else 1)
    torch.backends.cudnn.benchmark = True
    try:
        measure_costs(
            arguments.tr,
            arguments.d,
            arguments.c,
            arguments.p,
            arguments.f,
            arguments.device,
            arguments.o.absolute(),
            rounds=ROUNDS,
            turn_seconds=TURN_SECONDS,
        )
    except (ResultsError, NotOursError) as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
