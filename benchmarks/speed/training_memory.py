"""Memory of LightMUNet's training step, from which `nnUNetv2_lightm plan` plans: counts, measures and fits it.

    python -m benchmarks.speed.training_memory
    python -m benchmarks.speed.training_memory --quick --out quick

Writes training_memory.json and prints the coefficients for nnunetv2_lightm/planning/memory_model.py:

- on a GPU: saved bytes and peaks counted on fake tensors under autocast (harness/step_count.py), nothing measured;
- with the compiled layers on a CPU: what autograd saves, counted; the peak RSS minus the RSS before, by
  transient_memory.py, which needs Linux.

Worst errors are relative to what was counted or measured.
"""

from __future__ import annotations

import statistics
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace

import numpy as np
import torch
from scipy.optimize import differential_evolution

from nnunetv2_lightm import LightMUNet
from nnunetv2_lightm.measure.peak_rss import not_measurable_reason
from nnunetv2_lightm.ops.backends import cpu_native, triton_gpu
from nnunetv2_lightm.ops.backends.recomputing import slabs
from nnunetv2_lightm.planning.memory_model import StepMemory, voxels_at

from . import transient_memory
from .harness.checks import backend
from .harness.models import CONTIGUOUS, OURS
from .harness.results import Result, argument_parser, parse
from .harness.step_count import count_saved, count_step
from .harness.training_step import Workload

# Stride of a pooling along an axis that is halved, and along a thin one, which is not.
HALVED, THIN = 2, 1
# LightMUNet's channels at full resolution.
FEATURES = 32
SAVED_PATCHES = ((128, 192), (32, 48, 64))
# Patch and batch; the last ones fill slabs.
PEAKS = (
    ((32, 32, 32), 1),
    ((64, 64, 64), 2),
    ((256, 256), 4),
    ((96, 96, 96), 2),
    ((512, 512), 6),
)
QUICK_PEAKS = (((16, 32, 32), 1), ((64, 64), 2), ((64, 64, 64), 2), ((96, 96, 96), 2))
RSS_PATCHES = ((64, 64, 64), (96, 96, 96), (512, 512), (768, 768))
QUICK_RSS_PATCHES = ((16, 16, 16), (32, 32, 32), (64, 64), (128, 128))
MANY_CLASSES = 128
# In the fit: of backward and slab in bytes, of fixed_mib, and of per_class beyond the saved bytes.
BOUNDS = ((0, 3_000), (0, 10_000), (0, 500), (0, 100))
MIB = 2**20


def main(argv: list[str] | None = None) -> int:
    arguments, effort = parse(argument_parser(__doc__), argv)
    result = Result("training_memory", effort, torch.get_num_threads())
    models = {"GPU": gpu_model(result), "CPU_COMPILED": compiled_model(result)}
    result.facts["coefficients"] = {name: asdict(model) for name, model in models.items() if model}
    for name, model in models.items():
        print(f"{name} = {model}")
    result.write(arguments.out)
    return 0


def gpu_model(result: Result) -> StepMemory:
    """Coefficients on a GPU, from fake tensors alone."""
    saved = fit_saved(torch.float16, triton_gpu.NAME, result)
    saved = replace(saved, slab_voxels=slabs.SLAB_ELEMENTS // FEATURES)
    workloads = [
        Workload(patch, strides_of(len(patch)), batch)
        for patch, batch in (QUICK_PEAKS if result.effort.quick else PEAKS)
    ]
    workloads += [replace(workload, classes=MANY_CLASSES) for workload in (workloads[1], workloads[2])]
    peaks = [Peak(workload, count_step(workload).peak, saved) for workload in workloads]
    backward, slab, fixed_mib, loss = fit_peaks("peak of all allocations, counted, float16", peaks, result)
    # Weights and momentum are there before the step.
    fixed_mib += 2 * parameter_bytes() / MIB
    return rounded(replace(saved, backward=backward, slab=slab, per_class=saved.per_class + loss, fixed_mib=fixed_mib))


def compiled_model(result: Result) -> StepMemory | None:
    """From fake tensors on a CPU, and the resident memory of steps; None: not compiled, or not Linux."""
    reason = not_measurable_reason() or cpu_native.not_supported_reason("cpu")
    if reason:
        print(f"  with the compiled layers: not measured: {reason}")
        return None
    saved = fit_saved(None, cpu_native.NAME, result)
    with backend(cpu_native.NAME):
        repetitions = 1 if result.effort.quick else transient_memory.REPETITIONS
        peaks = []
        for patch in QUICK_RSS_PATCHES if result.effort.quick else RSS_PATCHES:
            mib = [
                transient_memory.measure_in_new_process(OURS, "training", patch, CONTIGUOUS) for _ in range(repetitions)
            ]
            peaks.append(Peak(Workload(patch, strides_of(len(patch))), statistics.median(mib) * MIB, saved))
    backward, _, fixed_mib, _ = fit_peaks("peak RSS minus RSS before, compiled layers", peaks, result)
    # What the measured steps already had: weights and, with AdamW, two moments.
    return rounded(replace(saved, backward=backward, fixed_mib=fixed_mib + 3 * parameter_bytes() / MIB))


def fit_saved(autocast: torch.dtype | None, scan: str, result: Result) -> StepMemory:
    """What autograd saves, as bytes per voxel of each resolution and per voxel and class: linear, so a least-squares
    fit finds it."""
    workloads = [
        Workload(patch, strides_of(len(patch), thin), batch, classes)
        for patch in SAVED_PATCHES
        for thin in ((), (1,), (2, 3), (1, 2, 3))
        for batch, classes in ((2, 3), (1, 64))
    ]
    terms = [[1.0, *(workload.batch * n for n in (*voxels(workload), logits(workload)))] for workload in workloads]
    counted = [count_saved(workload, autocast, scan) for workload in workloads]
    relative = np.array(terms) / np.array(counted)[:, None]
    solution = np.linalg.lstsq(relative, np.ones(len(counted)), rcond=None)[0]
    error = float(np.abs(relative @ solution - 1).max())
    _, *saved, per_class = map(float, solution)
    name = f"saved bytes, 2D and 3D, {scan}, autocast {autocast or 'off'}".replace("torch.", "")
    print(f"  {name}: {len(workloads)} workloads, worst error {error:.2%}", flush=True)
    result.tables[name] = [
        *({"per voxel of resolution": f"1/{2**i}", "bytes": round(value, 1)} for i, value in enumerate(saved)),
        {"per voxel of resolution": "each, and class", "bytes": round(per_class, 1)},
        {"per voxel of resolution": "worst error", "bytes": round(error, 6)},
    ]
    return StepMemory(tuple(saved), 0.0, 0.0, 0, per_class, 0.0)


def fit_peaks(name: str, peaks: Sequence[Peak], result: Result) -> tuple[float, float, float, float]:
    """Memory beyond the saved bytes: `backward`, `slab`, `fixed_mib`, and bytes per class in the loss."""
    nothing = (0, 0)
    varied = BOUNDS[3] if len({peak.workload.classes for peak in peaks}) > 1 else nothing
    in_slabs = BOUNDS[1] if peaks[0].saved.slab_voxels else nothing

    def errors(values: Sequence[float]) -> list[float]:
        return [peak.estimate(*values) / peak.nbytes - 1 for peak in peaks]

    # The estimate is a maximum, so its errors are not smooth: a global search for the smallest worst error.
    bounds = (BOUNDS[0], in_slabs, BOUNDS[2], varied)
    fitted = differential_evolution(lambda values: max(map(abs, errors(values))), bounds, seed=0, tol=1e-8)
    result.tables[name] = [
        {
            "patch": "x".join(map(str, peak.workload.patch)),
            "batch": peak.workload.batch,
            "classes": peak.workload.classes,
            "measured, MiB": round(peak.nbytes / MIB, 1),
            "estimated, MiB": round(float(peak.estimate(*fitted.x)) / MIB, 1),
        }
        for peak in peaks
    ]
    for record in result.tables[name]:
        print(f"  {name}: {record}", flush=True)
    print(f"  {name}: worst error {max(map(abs, errors(fitted.x))):.1%}", flush=True)
    return tuple(map(float, fitted.x))


@dataclass(frozen=True)
class Peak:
    """The peak of one training step, and the model of what autograd saves in it.

    Attributes:
        workload: The step.
        nbytes: Its peak, counted or measured.
        saved: The coefficients fitted to the saved bytes.
    """

    workload: Workload
    nbytes: float
    saved: StepMemory

    def estimate(self, backward: float, slab: float, fixed_mib: float, loss: float) -> float:
        """Bytes of the peak, for coefficients of what comes on top of the saved bytes."""
        beyond = {"backward": backward, "slab": slab, "fixed_mib": fixed_mib}
        model = replace(self.saved, **beyond, per_class=self.saved.per_class + loss)
        return model.gib(self.workload.patch, self.workload.strides, self.workload.batch, self.workload.classes) * 2**30


def voxels(workload: Workload) -> list[int]:
    return voxels_at(workload.patch, workload.strides)


def logits(workload: Workload) -> int:
    """Voxels at which there are logits, times the classes."""
    return workload.classes * sum(voxels(workload)[:-1])


def strides_of(dims: int, thin: tuple[int, ...] = ()) -> list[list[int]]:
    """Halves each axis three times, but not the first one at the poolings ``thin``."""
    halving = [[THIN if level in thin else HALVED, *[HALVED] * (dims - 1)] for level in (1, 2, 3)]
    return [[1] * dims, *halving]


def parameter_bytes() -> int:
    return sum(parameter.nbytes for parameter in LightMUNet(1, 3, spatial_dims=3).parameters())


def rounded(model: StepMemory) -> StepMemory:
    """Rounded to whole bytes and MiB: more digits would be noise."""
    return StepMemory(
        tuple(round(value) for value in model.saved),
        *(round(value) for value in (model.backward, model.slab, model.slab_voxels, model.per_class, model.fixed_mib)),
    )


if __name__ == "__main__":
    sys.exit(main())
