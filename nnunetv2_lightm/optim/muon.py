"""Muon for the matrices and AdamW for the rest, as one optimiser: nnU-Net checkpoints, scales and schedules only one.

Not ``torch.optim.Muon``: that one takes only matrices (no convolution kernels), one at a time, and computes in bfloat16
on every processor. ``tests/optim`` compares the two.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Iterable

import torch
from torch import Tensor
from torch.optim.adamw import adamw

from .polar import THREE_STEPS, Coefficients, polar_factor

# The root mean square of an AdamW update, in learning rates (Liu et al. 2025, section 2.2).
RMS_OF_ADAMW = 0.2


class MuonAdamW(torch.optim.Optimizer):
    """Muon (Jordan et al. 2024) on groups with ``muon=True``, AdamW (Loshchilov & Hutter 2019) on the others.

    With G the gradient of a matrix W and B the running mean of its gradients,

        U = polar(momentum * B + (1 - momentum) * G)
        W <- (1 - lr' * weight_decay) * W - lr' * 0.2 * sqrt(max(rows, columns)) * U

    where lr' is ``muon_lr_factor`` times the learning rate of the group. The factor with the root gives the update the
    root mean square of AdamW's, so that the two share learning rates (Liu et al. 2025, arXiv:2502.16982, equation 4).
    A kernel counts as the matrix (out, in * kernel size).

    All groups have one learning rate ``lr``, since nnU-Net's poly schedule sets the same for all.

    Args:
        params: PyTorch's parameter groups, as dictionaries.
        lr: Learning rate of AdamW.
        weight_decay: Decoupled from the gradient, as in AdamW.
        muon_lr_factor: Muon's learning rate as a multiple of AdamW's.
        momentum: Muon's momentum, in Nesterov's form.
        coefficients: Coefficients of the polynomials in :func:`.polar_factor`.
        dtype: Dtype of its matrix products; None: bfloat16 where that is fast, otherwise float32.
        betas: AdamW's decay rates of the moments.
        eps: AdamW's term for numerical stability.

    Raises:
        ValueError: if a parameter for Muon has fewer than two axes.
    """

    def __init__(
        self,
        params: Iterable[dict],
        lr: float = 1e-3,
        *,
        weight_decay: float = 1e-2,
        muon_lr_factor: float = 2.0,
        momentum: float = 0.95,
        coefficients: Coefficients = THREE_STEPS,
        dtype: torch.dtype | None = None,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
    ) -> None:
        defaults = {
            "lr": lr,
            "weight_decay": weight_decay,
            "muon": False,
            "muon_lr_factor": muon_lr_factor,
            "momentum": momentum,
            "coefficients": coefficients,
            "dtype": dtype,
            "betas": betas,
            "eps": eps,
        }
        super().__init__(params, defaults)

    def add_param_group(self, param_group: dict) -> None:
        super().add_param_group(param_group)
        group = self.param_groups[-1]
        for parameter in group["params"] if group["muon"] else ():
            if parameter.ndim < 2:
                shape = tuple(parameter.shape)
                raise ValueError(f"Muon is for matrices and kernels; a parameter of shape {shape} belongs to AdamW")

    def load_state_dict(self, state_dict: dict) -> None:
        """As PyTorch's, but step counts stay on the CPU: nnU-Net loads its checkpoints onto the GPU, where AdamW would
        wait for each count."""
        super().load_state_dict(state_dict)
        for state in self.state.values():
            if "step" in state:
                state["step"] = state["step"].cpu()

    @torch.no_grad()
    def step(self, closure: Callable[[], Tensor] | None = None) -> Tensor | None:
        """One step; parameters without a gradient stay as they are."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            parameters = [parameter for parameter in group["params"] if parameter.grad is not None]
            if parameters:
                (self._muon if group["muon"] else self._adamw)(parameters, group)
        return loss

    def _muon(self, parameters: list[Tensor], group: dict) -> None:
        lr, momentum = group["lr"] * group["muon_lr_factor"], group["momentum"]
        for parameter in parameters:
            if not self.state[parameter]:
                self.state[parameter]["momentum_buffer"] = torch.zeros_like(parameter)
        gradients = [parameter.grad for parameter in parameters]
        means = [self.state[parameter]["momentum_buffer"] for parameter in parameters]
        # PyTorch's own optimisers use these too: a few launches on a GPU instead of some for each parameter.
        torch._foreach_lerp_(means, gradients, 1 - momentum)
        updates = torch._foreach_lerp(gradients, means, momentum)
        torch._foreach_mul_(parameters, 1 - lr * group["weight_decay"])

        by_shape = defaultdict(list)  # matrices of the same shape are multiplied in one batch
        for parameter, update in zip(parameters, updates, strict=True):
            matrix = update.flatten(1)
            by_shape[matrix.shape, matrix.device, matrix.dtype].append((parameter, matrix))
        for ((rows, columns), *_), members in by_shape.items():
            factors = polar_factor(torch.stack([m for _, m in members]), group["coefficients"], group["dtype"])
            changed = [parameter for parameter, _ in members]
            steps = [factor.reshape(parameter.shape) for parameter, factor in zip(changed, factors, strict=True)]
            torch._foreach_add_(changed, steps, alpha=-lr * RMS_OF_ADAMW * math.sqrt(max(rows, columns)))

    def _adamw(self, parameters: list[Tensor], group: dict) -> None:
        for parameter in parameters:
            state = self.state[parameter]
            if not state:
                state["step"] = torch.zeros((), dtype=torch.float32)
                state["exp_avg"] = torch.zeros_like(parameter)
                state["exp_avg_sq"] = torch.zeros_like(parameter)
        states = [self.state[parameter] for parameter in parameters]
        beta1, beta2 = group["betas"]
        adamw(
            parameters,
            [parameter.grad for parameter in parameters],
            [state["exp_avg"] for state in states],
            [state["exp_avg_sq"] for state in states],
            [],
            [state["step"] for state in states],
            # On a CPU PyTorch otherwise takes longer over its loop than over the arithmetic of so many small tensors.
            fused=all(parameter.is_cpu for parameter in parameters) or None,
            amsgrad=False,
            beta1=beta1,
            beta2=beta2,
            lr=group["lr"],
            weight_decay=group["weight_decay"],
            eps=group["eps"],
            maximize=False,
        )
