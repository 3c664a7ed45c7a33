"""MuonAdamW: PyTorch's own Muon and AdamW where they can be compared, and all that nnU-Net does with an optimiser."""

from __future__ import annotations

import copy
import io

import pytest
import torch
from nnunetv2.training.lr_scheduler.polylr import PolyLRScheduler
from torch import nn

from nnunetv2_lightm.optim import MuonAdamW

JORDAN = ((3.4445, -4.7750, 2.0315),) * 5  # PyTorch's coefficients and steps


def make_network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 12), nn.LayerNorm(12), nn.Linear(12, 6), nn.Linear(6, 12), nn.Linear(12, 12))


def groups(network: nn.Module, **options: object) -> list[dict]:
    matrices = [p for p in network.parameters() if p.ndim > 1]
    others = [p for p in network.parameters() if p.ndim == 1]
    return [{"params": others, "weight_decay": 0.0}, {"params": matrices, "muon": True, **options}]


def train(network: nn.Module, *optimizers: torch.optim.Optimizer, steps: range = range(4)) -> None:
    for step in steps:
        torch.manual_seed(step)
        network.zero_grad()
        network(torch.randn(5, 6)).square().mean().backward()
        for optimizer in optimizers:
            optimizer.step()


def weights(network: nn.Module) -> list[torch.Tensor]:
    return [p.detach().clone() for p in network.parameters()]


@pytest.mark.parametrize("momentum", [0.0, 0.9])
def test_steps_are_those_of_pytorchs_muon(momentum):
    """PyTorch multiplies in bfloat16, one matrix after the other; the gradients of a step are the same for both."""
    torch.manual_seed(0)
    start = [torch.randn(shape) for shape in [(24, 12), (12, 24), (12, 24), (16, 16)]]
    ours, theirs = ([nn.Parameter(matrix.clone()) for matrix in start] for _ in range(2))
    options = {"muon_lr_factor": 3.0, "momentum": momentum, "coefficients": JORDAN, "dtype": torch.bfloat16}
    muon = torch.optim.Muon(theirs, 3e-2, 0.1, momentum=momentum, adjust_lr_fn="match_rms_adamw")
    optimizer = MuonAdamW([{"params": ours, "muon": True}], lr=1e-2, weight_decay=0.1, **options)
    for _ in range(3):
        for a, b in zip(ours, theirs):
            a.grad = b.grad = torch.randn(a.shape)
        optimizer.step()
        muon.step()
    for before, a, b in zip(start, ours, theirs):
        moved = torch.linalg.matrix_norm(b - before)
        assert moved > 0.05
        assert torch.linalg.matrix_norm(a - b) < 0.03 * moved


def test_groups_without_muon_are_pytorchs_adamw_exactly():
    ours, theirs = make_network(), make_network()
    train(ours, MuonAdamW([{"params": list(ours.parameters())}], lr=1e-2, weight_decay=0.1))
    train(theirs, torch.optim.AdamW(theirs.parameters(), lr=1e-2, weight_decay=0.1, fused=True))
    torch.testing.assert_close(weights(ours), weights(theirs), rtol=0, atol=0)


def test_a_matrix_moves_as_far_in_a_group_as_alone():
    """Matrices of one shape are multiplied together."""
    together, alone = make_network(), make_network()
    train(together, MuonAdamW(groups(together, dtype=torch.float32)))
    others, matrices = (group["params"] for group in groups(alone))
    each = [{"params": [matrix], "muon": True, "dtype": torch.float32} for matrix in matrices]
    train(alone, MuonAdamW([{"params": others, "weight_decay": 0.0}, *each]))
    torch.testing.assert_close(weights(together), weights(alone), rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("channels", [(4, 6), (60, 2)], ids=["wide", "tall"])
def test_a_kernel_is_the_matrix_of_its_outputs(layout, channels):
    kernel = nn.Parameter(torch.randn(*channels, 3, 3).contiguous(memory_format=layout))
    matrix = nn.Parameter(kernel.detach().flatten(1).clone())
    gradient = torch.randn(matrix.shape)
    kernel.grad, matrix.grad = gradient.view(kernel.shape).contiguous(memory_format=layout), gradient
    for parameter in (kernel, matrix):
        MuonAdamW([{"params": [parameter], "muon": True, "dtype": torch.float32}]).step()
    torch.testing.assert_close(kernel.flatten(1), matrix)


def test_the_update_is_as_large_as_adamws():
    """A fifth of the learning rate in the root mean square, whatever the shape (Liu et al. 2025)."""
    for shape in [(64, 64), (128, 32), (32, 128)]:
        matrix = nn.Parameter(torch.zeros(shape))
        matrix.grad = torch.randn(shape)
        MuonAdamW([{"params": [matrix], "muon": True}], lr=1e-2, muon_lr_factor=1.0).step()
        assert float(matrix.detach().square().mean().sqrt()) == pytest.approx(0.2e-2, rel=0.15)


def test_one_schedule_for_all_groups():
    network = make_network()
    optimizer = MuonAdamW(groups(network), lr=1e-3)
    PolyLRScheduler(optimizer, 1e-3, 10).step(5)
    assert {group["lr"] for group in optimizer.param_groups} == {1e-3 * 0.5**0.9}
    before = weights(network)
    PolyLRScheduler(optimizer, 1e-3, 10).step(10)
    train(network, optimizer)
    torch.testing.assert_close(weights(network), before, rtol=0, atol=0)


def test_continued_from_a_checkpoint_bit_for_bit():
    whole = make_network()
    train(whole, MuonAdamW(groups(whole), momentum=0.9), steps=range(6))
    first = make_network()
    optimizer = MuonAdamW(groups(first), momentum=0.9)
    train(first, optimizer, steps=range(3))
    file = io.BytesIO()
    torch.save({"network": first.state_dict(), "optimizer": optimizer.state_dict()}, file)
    checkpoint = torch.load(io.BytesIO(file.getvalue()), weights_only=True)
    second = make_network()
    second.load_state_dict(checkpoint["network"])
    continued = MuonAdamW(groups(second))  # its own momentum comes with the state
    continued.load_state_dict(checkpoint["optimizer"])
    train(second, continued, steps=range(3, 6))
    torch.testing.assert_close(weights(second), weights(whole), rtol=0, atol=0)
    assert copy.deepcopy(continued).state_dict()["param_groups"] == continued.state_dict()["param_groups"]


def test_a_loss_scale_is_taken_out_and_an_overflow_skipped():
    scaled, plain = make_network(), make_network()
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**10)
    optimizer = MuonAdamW(groups(scaled, dtype=torch.float32))
    image = torch.randn(5, 6)

    def step(factor: float) -> None:
        optimizer.zero_grad()
        scaler.scale(scaled(image).square().mean() * factor).backward()
        scaler.unscale_(optimizer)
        nn.utils.clip_grad_norm_(scaled.parameters(), 12)
        scaler.step(optimizer)
        scaler.update()

    step(1.0)
    plain(image).square().mean().backward()
    MuonAdamW(groups(plain, dtype=torch.float32)).step()
    torch.testing.assert_close(weights(scaled), weights(plain))
    step(float("inf"))
    torch.testing.assert_close(weights(scaled), weights(plain))
    assert scaler.get_scale() == 2.0**9


def test_parameters_without_a_gradient_stay():
    network = make_network()
    optimizer = MuonAdamW(groups(network))
    before = weights(network)
    optimizer.step()
    torch.testing.assert_close(weights(network), before, rtol=0, atol=0)
    assert optimizer.step(lambda: torch.tensor(3.0)) == 3


def test_a_vector_is_no_matrix():
    with pytest.raises(ValueError, match=r"shape \(12,\) belongs to AdamW"):
        MuonAdamW([{"params": list(make_network().parameters()), "muon": True}])
