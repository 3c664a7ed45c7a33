"""The selective scan compared with Mamba's reference loop, mamba.py's parallel scan, and the exps alone.

    python -m benchmarks.speed.scan
    python -m benchmarks.speed.scan --quick --out quick

Writes scan.json. Batch 1, 64 channels, 16 states, 32768 tokens, float32; delta's bias and softplus and the skip D are
included on every side.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor

from nnunetv2_lightm.extras import install_command
from nnunetv2_lightm.layers import Mamba1Block
from nnunetv2_lightm.measure.timing import Spread, alternate
from nnunetv2_lightm.ops import select_backend, selective_scan

from .harness.checks import backend, scan_failure, scan_inputs
from .harness.models import on_threads, ours_name
from .harness.results import SHARE, Result, Row, argument_parser, parse
from .harness.scan_rivals import LOOP_NAME, ExpRate, channels_first, mamba_py_name, mamba_py_scan, reference_loop

LENGTH, QUICK_LENGTH, D_INNER, D_STATE = 32768, 512, 64, 16
CHUNKED = "torch_chunked"
NO_MAMBA_PY = f"mambapy is not installed: {install_command('mambapy')}"
NO_KERNEL = "needs the compiled library, whose vectorised exp is the yardstick"
Run = Callable[[], object]


def main(argv: list[str] | None = None) -> int:
    arguments, effort = parse(argument_parser(__doc__), argv)
    result = Result("scan", effort, torch.get_num_threads())
    length = QUICK_LENGTH if effort.quick else LENGTH
    inputs = scan_inputs(1, length, D_INNER, D_STATE, torch.float32)
    failure = scan_failure(select_backend("cpu"))
    against_rivals(result, inputs, failure)
    if failure is None:
        against_itself(result, inputs)
        against_pytorch(result, inputs)
    result.write(arguments.out)
    return 0


def against_rivals(result: Result, inputs: dict[str, Tensor], failure: str | None) -> None:
    """The rows with goals.

    Args:
        failure: Why our backend must not be timed; None: it may be.
    """
    row = partial(Row, ours_name=ours_name(), threads=result.threads, not_measured=failure)
    work, mamba_py = f"scan forward, {shape(inputs)}", mamba_py_scan()
    ours = None if failure else forward(our_scan(), inputs)
    loop = forward(reference_loop, channels_first(inputs))
    rival = mamba_py and forward(mamba_py, inputs)
    times = alternate({"ours": ours, "loop": loop, "mamba.py": rival}, result.effort)
    result.add(row("scan_forward_reference_loop", work, baseline_name=LOOP_NAME).measured(times["ours"], times["loop"]))
    empty = row("scan_forward_mamba_py", work, baseline_name=mamba_py_name())
    result.add(empty.measured(times["ours"], times["mamba.py"], NO_MAMBA_PY))

    exps = ExpRate() if failure is None and select_backend("cpu") == "cpu_native" else None
    count = inputs["u"].numel() * D_STATE
    name = f"{count / 1e6:.1f} M exps alone ({exps.instruction_set if exps else 'compiled'}, level-1 cache)"
    empty = row("scan_forward_exps", work, baseline_name=name, kind=SHARE)
    times = against_exps(ours, exps, count, result) if exps else (None, None)
    result.add(empty.measured(*times, NO_KERNEL))

    ours = None if failure else forward_backward(our_scan(), inputs)
    rival = mamba_py and forward_backward(mamba_py, inputs)
    times = alternate({"ours": ours, "mamba.py": rival}, result.effort)
    work = f"scan forward + backward, {shape(inputs)}"
    empty = row("scan_training_mamba_py", work, baseline_name=mamba_py_name())
    result.add(empty.measured(times["ours"], times["mamba.py"], NO_MAMBA_PY))


def against_exps(scan: Run, exps: ExpRate, count: int, result: Result) -> tuple[Spread, Spread]:
    """Times of the scan, and of ``count`` exps shared among as many threads."""
    seconds = []
    times = alternate({"ours": scan, "exps": lambda: seconds.append(exps.seconds())}, result.effort)
    # The first sample is slow.
    return times["ours"], Spread.of([count / result.threads * one for one in seconds[1:]])


def against_itself(result: Result, inputs: dict[str, Tensor]) -> None:
    """One and two threads, bf16 inputs."""
    work, ours = f"scan forward, {shape(inputs)}", forward(our_scan(), inputs)
    for threads in sorted({1, 2} - {result.threads}):
        times = alternate({"few": on_threads(ours, threads), "all": ours}, result.effort)
        same = f"the same, threads: {result.threads}"
        empty = Row(f"scan_forward_threads_{threads}", f"{work}, threads: {threads}", ours_name(), same)
        result.add(empty.measured(times["few"], times["all"]))
    # As under autocast: activations in bf16, parameters in float32.
    narrow = {key: t.bfloat16() if key in ("u", "delta", "B", "C") else t for key, t in inputs.items()}
    times = alternate({"bf16": forward(our_scan(), narrow), "float32": ours}, result.effort)
    empty = Row("scan_forward_bf16", f"{work}, bf16 inputs", ours_name(), "the same with float32 inputs")
    result.add(empty.measured(times["bf16"], times["float32"]))


def against_pytorch(result: Result, inputs: dict[str, Tensor]) -> None:
    """The scan and the stock Mamba-1 block on the selected backend, compared with our own backend in pure PyTorch."""
    if select_backend("cpu") == CHUNKED:
        return
    torch.manual_seed(0)
    length, d_model = inputs["u"].shape[1], D_INNER // 2
    block, x = Mamba1Block(d_model), torch.randn(1, length, d_model)

    def inference() -> None:
        with torch.inference_mode():
            block(x)

    def training() -> None:
        block.zero_grad()
        block(x).square().mean().backward()

    failure = scan_failure(CHUNKED)
    failure = failure and f"{CHUNKED}: {failure}"
    mamba1 = f"stock Mamba-1 block, (1, {length}, {d_model}),"
    for name, work, run in (
        ("scan_forward_torch_chunked", f"scan forward, {shape(inputs)}", forward(our_scan(), inputs)),
        ("mamba1_forward", f"{mamba1} forward", inference),
        ("mamba1_training", f"{mamba1} forward + backward", training),
    ):
        candidates = {"ours": run, CHUNKED: None if failure else on_backend(run, CHUNKED)}
        times = alternate(candidates, result.effort)
        empty = Row(name, work, ours_name(), f"the same on {CHUNKED}", threads=result.threads, not_measured=failure)
        result.add(empty.measured(times["ours"], times[CHUNKED]))


def our_scan() -> Callable[..., Tensor]:
    return partial(selective_scan, delta_softplus=True)


def forward(scan: Callable[..., Tensor], inputs: dict[str, Tensor]) -> Run:
    return torch.inference_mode()(partial(scan, **inputs))


def forward_backward(scan: Callable[..., Tensor], inputs: dict[str, Tensor]) -> Run:
    """Output and the gradients of all inputs."""
    leaves = {key: t.clone().requires_grad_() for key, t in inputs.items()}
    grad = torch.randn(inputs["u"].shape, generator=torch.Generator().manual_seed(5))
    return lambda: torch.autograd.grad(scan(**leaves), list(leaves.values()), grad)


def on_backend(run: Run, name: str) -> Run:
    def forced() -> object:
        with backend(name):
            return run()

    return forced


def shape(inputs: dict[str, Tensor]) -> str:
    return f"{tuple(inputs['u'].shape)}, N = {inputs['A'].shape[1]}"


if __name__ == "__main__":
    sys.exit(main())
