"""The check on a GPU: training steps and predictions of our network and nnU-Net's, which take turns."""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial

import torch

from .gpu_setting import Plan, Record, Setting, attempt
from .models import CONTIGUOUS, LAYOUTS, NNUNET, OURS, RESENC, memory_format, update
from .training_step import OUR_RESOLUTIONS, Step, Workload

WARM_UP_STEPS, MOST_SKIPPED = 2, 20
TURNS = 3
# Our network as our trainer has it, with one output and Muon; all others have deep supervision and nnU-Net's SGD.
AS_TRAINED = "ours as trained"
# Network and layout.
CANDIDATES = ((OURS, CONTIGUOUS), *((NNUNET, layout) for layout in LAYOUTS))
WITH_AS_TRAINED = (*CANDIDATES, (AS_TRAINED, CONTIGUOUS))


def workload_of(plan: Plan, name: str, batch: int | None = None) -> Workload:
    """A plan's work for AS_TRAINED or one of the networks; batch: another one than the plan's."""
    as_trained = name == AS_TRAINED
    which = OURS if as_trained else name
    strides = plan.strides[:OUR_RESOLUTIONS] if which == OURS else plan.strides
    options = {"which": which, "kernels": plan.kernels, "as_trained": as_trained}
    return Workload(plan.patch, strides, plan.batch if batch is None else batch, **options)


class TrainingStep:
    """Network, loss, optimizer, scaler and a batch on the device, as nnU-Net's trainer has them.

    Args:
        workload: Network, patch and batch.
        layout: Memory layout.
        setting: Where.
        compiled: Under torch.compile, for this one size.
    """

    def __init__(self, workload: Workload, layout: str, setting: Setting, *, compiled: bool = False) -> None:
        self.setting = setting
        torch.manual_seed(0)
        self._before = setting.allocated_gib()
        step = Step(workload)
        format_ = memory_format(len(workload.patch), layout)
        self.network = step.network.to(setting.device).to(memory_format=format_)
        self.run_network = torch.compile(self.network, dynamic=False) if compiled else self.network
        self.image = torch.randn_like(step.image).to(setting.device).contiguous(memory_format=format_)
        labels = step.labels if isinstance(step.labels, list) else [step.labels]
        labels = [torch.randint_like(label, workload.classes).to(setting.device) for label in labels]
        self.labels = labels if isinstance(step.labels, list) else labels[0]
        self.loss, self.optimizer = step.loss, step.make_optimizer(self.network)
        self.scaler = torch.amp.GradScaler(setting.device, enabled=setting.on_gpu)
        self.last_loss = torch.tensor(math.nan)

    def run(self) -> None:
        with self.setting.autocast():
            loss = self.loss(self.run_network(self.image), self.labels)
        self.last_loss = loss.detach()
        self.scaler.scale(loss).backward()
        self.scaler.unscale_(self.optimizer)
        update(self.network, _Stepper(self.scaler, self.optimizer))
        self.scaler.update()
        self.optimizer.zero_grad(set_to_none=True)

    def prepare(self) -> Record:
        """Steps that do not count. Raises: ArithmeticError: if this network yields no finite losses or gradients."""
        self.setting.forget_peak()
        begin = time.perf_counter()
        self.run()
        self.setting.synchronise()
        first = time.perf_counter() - begin
        skipped = self._warm_up()
        peak = self.setting.peak_gib() - self._before
        self.own = self.setting.allocated_gib() - self._before
        loss, scale = float(self.last_loss), self.scaler.get_scale()
        if not math.isfinite(loss):
            raise ArithmeticError(f"the loss is {loss}, at a scale of {scale:g}")
        return {"first step, s": first, "steps skipped before": skipped, "loss": loss, "scale": scale} | (
            {"peak of the first steps, GiB": peak} if self.setting.on_gpu else {}
        )

    def _warm_up(self) -> int:
        """Until the scaler has found its scale: a step that it skips costs less. Returns: how many it skipped."""
        done = skipped = 0
        while done < WARM_UP_STEPS:
            scale = self.scaler.get_scale()
            self.run()
            whole = self.scaler.get_scale() >= scale
            done, skipped = done + whole, skipped + (not whole)
            if skipped >= MOST_SKIPPED:
                raise ArithmeticError(f"no finite gradients in {skipped} steps, at a scale of {scale:g}")
        return skipped


class _Stepper:
    """What ``update`` steps with: the scaler's step of an optimizer."""

    def __init__(self, scaler: torch.amp.GradScaler, optimizer: torch.optim.Optimizer) -> None:
        self._scaler, self._optimizer = scaler, optimizer

    def step(self) -> None:
        self._scaler.step(self._optimizer)


class Prediction:
    """One patch through a network, as nnU-Net predicts: without deep supervision. Arguments of :class:`TrainingStep`,
    of whose workload the batch is 1."""

    def __init__(self, workload: Workload, layout: str, setting: Setting, *, compiled: bool = False) -> None:
        step = TrainingStep(workload, layout, setting, compiled=compiled)
        self.setting, self.image, self.run_network, self._before = setting, step.image, step.run_network, step._before
        step.network.eval().decoder.deep_supervision = False

    def run(self) -> None:
        with torch.inference_mode(), self.setting.autocast():
            self.logits = self.run_network(self.image)

    def prepare(self) -> Record:
        self.run()
        finite = bool(self.logits.isfinite().all())
        del self.logits
        self.own = self.setting.allocated_gib() - self._before
        if not finite:
            raise ArithmeticError("the logits are not finite")
        return {}


def in_turns(
    named: Sequence[tuple[Record, Callable[[], TrainingStep | Prediction]]], setting: Setting
) -> Iterator[Record]:
    """Builds all candidates and lets them take turns. Yields each one's record whenever it says more, the same object.

    A peak is that of the timed runs: while it warms up, cuDNN tries algorithms that need more. The memory that the
    others hold is subtracted.
    """
    candidates: dict[int, TrainingStep | Prediction] = {}

    def start(number: int, build: Callable[[], TrainingStep | Prediction]) -> Record:
        candidate = build()
        found = candidate.prepare()
        candidates[number] = candidate
        return found

    for number, (record, build) in enumerate(named):
        record.update(attempt({}, partial(start, number, build)))
        yield record
    times: dict[int, list[list[float]]] = {number: [] for number in candidates}
    for turn in range(TURNS):
        for number, candidate in candidates.items():
            record = named[number][0]
            if "failed" not in record:
                record.update(attempt({"turns": turn + 1}, partial(_turn, candidate, times[number], setting)))
                yield record


def _turn(candidate: TrainingStep | Prediction, times: list[list[float]], setting: Setting) -> Record:
    """Some more runs: the median of all, and those of the fastest and the slowest turn."""
    others = setting.allocated_gib() - candidate.own
    candidate.run()  # what it allocates anew is not part of the peak
    setting.forget_peak()
    times.append(setting.all_ms(candidate.run, max(1, setting.repetitions // 2)))
    medians = [statistics.median(turn) for turn in times]
    record: Record = {"ms": statistics.median(sum(times, [])), "fastest turn, ms": min(medians)}
    record["slowest turn, ms"] = max(medians)
    return record | ({"peak, GiB": setting.peak_gib() - others} if setting.on_gpu else {})


def _of_plans(
    setting: Setting, plans: Sequence[Plan], candidates: Sequence[tuple[str, str]], kind: type, compiled: bool = False
) -> Iterator[Record]:
    """The candidates' turns at one plan after the other."""
    for plan in plans:
        torch._dynamo.reset()  # another size would be compiled for any size, and nnU-Net has one
        named = []
        for name, layout in candidates:
            workload = workload_of(plan, name, 1 if kind is Prediction else None)
            record: Record = {"work": str(plan), "network": name, "layout": layout}
            named.append((record, partial(kind, workload, layout, setting, compiled=compiled)))
        yield from in_turns(named, setting)


def training(setting: Setting) -> Iterator[Record]:
    """The training step of nnU-Net's trainer: ours and nnU-Net's network, the first plan."""
    yield from _of_plans(setting, setting.plans[:1], WITH_AS_TRAINED, TrainingStep)


def compiled_training(setting: Setting) -> Iterator[Record]:
    """The same under torch.compile, as nnU-Net trains on CUDA by default."""
    yield from _of_plans(setting, setting.plans[:1], WITH_AS_TRAINED, TrainingStep, compiled=True)


def inference(setting: Setting) -> Iterator[Record]:
    """The prediction of one patch of the first plan."""
    yield from _of_plans(setting, setting.plans[:1], CANDIDATES, Prediction)


def other_training(setting: Setting) -> Iterator[Record]:
    """The training step of the other plans."""
    yield from _of_plans(setting, setting.plans[1:], CANDIDATES, TrainingStep)


def other_inference(setting: Setting) -> Iterator[Record]:
    """The prediction of one patch of the other plans."""
    yield from _of_plans(setting, setting.plans[1:], CANDIDATES, Prediction)


def compiled_inference(setting: Setting) -> Iterator[Record]:
    """The prediction of one patch of the first plan under torch.compile."""
    yield from _of_plans(setting, setting.plans[:1], CANDIDATES, Prediction, compiled=True)


def resenc(setting: Setting) -> Iterator[Record]:
    """The training step against the network of nnU-Net's preset ResEnc M, the first plan."""
    candidates = ((OURS, CONTIGUOUS), *((RESENC, layout) for layout in LAYOUTS))
    yield from _of_plans(setting, setting.plans[:1], candidates, TrainingStep)
