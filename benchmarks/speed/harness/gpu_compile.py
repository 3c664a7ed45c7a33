"""The kernels that a network needs at some sizes, found on fake tensors, and compiled ahead by many processes.

    python -m benchmarks.speed.harness.gpu_compile kernels cuda large 0 8
    python -m benchmarks.speed.harness.gpu_compile network ours contiguous

Triton compiles one kernel after the other in a process, but keeps each for all of them; so does torch.compile.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from unittest import mock

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode

from .gpu_setting import Plan, Record, Setting, command_record, run_command

COMPILE_SECONDS = 110
KERNEL_PROCESSES = 6
# Each of its kernels takes longest to compile.
FIRST = "backward_chunks"
# Kernel, grid, arguments with a dtype in the place of each tensor, and named ones.
Launch = tuple[Any, tuple[int, ...], tuple, dict[str, Any]]


def compile_ahead(setting: Setting) -> Iterator[Record]:
    """What the timings of our network need, and torch.compile's code for both networks, on processes side by side."""
    processes = 1 if setting.small else KERNEL_PROCESSES
    size = "small" if setting.small else "large"
    jobs = [("kernels", setting.device, size, str(share), str(processes)) for share in range(processes)]
    if setting.on_gpu and not setting.small:
        jobs += [("network", *candidate) for candidate in _networks()]

    def compile_one(job: tuple[str, ...]) -> Record:
        command = [sys.executable, "-m", __spec__.name, *job]
        outcome = run_command(command, COMPILE_SECONDS, {"TORCHINDUCTOR_COMPILE_THREADS": "3"})
        record = command_record(outcome, COMPILE_SECONDS)
        output = record.pop("output")
        return {"compiled": " ".join(job)} | record | {"output" if "failed" in record else "done": output.strip()}

    with ThreadPoolExecutor(len(jobs)) as pool:
        yield from pool.map(compile_one, jobs)


def _networks() -> tuple[tuple[str, str], ...]:
    from .gpu_turns import WITH_AS_TRAINED

    return WITH_AS_TRAINED


def launches_of(plan: Plan) -> dict[tuple, Launch]:
    """Every different kernel of our network's training step and of its prediction."""
    from nnunetv2_lightm.ops.backends import triton_gpu

    from .cuda_autocast import cuda_rules
    from .gpu_turns import workload_of
    from .models import OURS
    from .step_count import Operators, as_on_a_gpu
    from .training_step import Step

    found: dict[tuple, Launch] = {}

    def note(kernel: Any, grid: tuple[int, ...], *arguments: object, **named: object) -> None:
        given = tuple(a.dtype if isinstance(a, Tensor) else a for a in arguments)
        found.setdefault(variant(kernel, given, named), (kernel, grid, given, named))

    class InsideOurs(Operators):
        def ran(self, *_: object) -> None:
            """Only the launches count."""

    with FakeTensorMode(), cuda_rules(), as_on_a_gpu(triton_gpu.NAME, note), InsideOurs():
        Step(workload_of(plan, OURS)).forward(torch.float16).backward()
        Step(workload_of(plan, OURS, batch=1)).predict(torch.float16)
    return found


def variant(kernel: Any, arguments: tuple, named: dict[str, Any]) -> tuple:
    """What makes Triton compile a kernel anew: its constants, dtypes, absent tensors, and of the sizes that it
    specialises whether they are 1 or divisible by 16."""
    given = dict(zip((p.name for p in kernel.params if not p.is_constexpr), arguments, strict=False)) | named
    key: list[object] = [kernel.fn.__name__]
    for param in kernel.params:
        value = given[param.name]
        if param.is_constexpr or not isinstance(value, int):
            key.append(str(value))
        else:
            wide = not -(2**31) <= value < 2**31
            key.append((wide, None if param.do_not_specialize else (value == 1, value % 16 == 0)))
    return tuple(key)


def compile_share(setting: Setting, share: int, processes: int) -> int:
    """Compile every ``processes``-th kernel of each plan, those that take longest first. Returns how many."""
    known: set[tuple] = set()
    compiled = 0
    for plan in setting.plans:
        new = {key: launch for key, launch in launches_of(plan).items() if key not in known}
        known |= new.keys()
        keys = sorted(new, key=lambda key: (key[0] != FIRST, str(key)))[share::processes]
        for key in keys[-1:] if setting.small else keys:
            kernel, grid, arguments, named = new[key]
            kernel.warmup(*arguments, grid=grid, **named)
            compiled += 1
    return compiled


def for_an_absent_gpu() -> None:
    """From now on, compile in this process for a GPU of compute capability 9.0 that need not be there."""
    from triton.backends.compiler import GPUTarget
    from triton.runtime import driver

    passing = mock.Mock()
    passing.get_current_target.return_value, passing.get_current_device.return_value = GPUTarget("cuda", 90, 32), 0
    driver.set_active(passing)


def compile_network(name: str, layout: str) -> None:
    """The first compiled training step of the first plan."""
    from .gpu_turns import TrainingStep, workload_of

    setting = Setting("cuda", small=False)
    torch.backends.cudnn.benchmark = True
    TrainingStep(workload_of(setting.plans[0], name), layout, setting, compiled=True).run()
    setting.synchronise()


if __name__ == "__main__":
    if sys.argv[1] == "network":
        compile_network(*sys.argv[2:])
    else:
        device, size, *shares = sys.argv[2:]
        if device == "cpu":
            for_an_absent_gpu()
        print(compile_share(Setting(device, size == "small"), *map(int, shares)), "kernels")
