"""The polar factor of matrices, from matrix products alone.

Muon steps along the polar factor of the momentum: U V^T, where U S V^T is its singular value decomposition. Odd matrix
polynomials that bring all singular values near 1 approximate it without a decomposition ("Newton-Schulz").
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

# (a, b, c) of the polynomial a x + b x^3 + c x^5, for each step.
Coefficients = Sequence[tuple[float, float, float]]

# Amsel, Persson, Musco, Gower 2025, "The Polar Express", arXiv:2505.16932: each step uses the polynomial that is
# optimal for the range of singular values left by the steps before, which starts as [smallest, 1]; slackened by 1.01,
# as in the paper's algorithm 1, to absorb the rounding of bfloat16. A test recomputes them.
SLACK = 1.01


def slackened(*steps: tuple[float, float, float]) -> Coefficients:
    """The polynomials of x / SLACK."""
    return tuple((a / SLACK, b / SLACK**3, c / SLACK**5) for a, b, c in steps)


# For [0.01, 1]: within 0.27 of 1 after three steps, about as close as those of Jordan et al. 2024 get in five.
THREE_STEPS = slackened(
    (8.093369, -23.620432, 17.446153),
    (3.636586, -2.721927, 0.536546),
    (2.661300, -1.977155, 0.452616),
)

# Columns to a row from which one Gram matrix is used. Counted, three steps on m rows and n columns take 2 m^2 n + 9 m^3
# multiply-adds instead of 6 m^2 n + 3 m^3: less than two thirds from here on, 0.38 for kernels of 3x3x3 with n = 27 m.
WIDE = 4


def polar_factor(matrices: Tensor, coefficients: Coefficients, dtype: torch.dtype | None = None) -> Tensor:
    """Approximate polar factors: singular values near 1, unless those of the matrix are tiny.

    Args:
        matrices: (batch, rows, columns).
        coefficients: One polynomial for each step.
        dtype: Dtype of the matrix products; None: :func:`fast_dtype`.

    Returns: The same shape and dtype as the matrices. The factor of a zero matrix is zero.
    """
    tall = matrices.shape[-2] > matrices.shape[-1]
    x = matrices.mT if tall else matrices  # the smaller of the two Gram matrices
    # Scale by the largest entry first: squares of tiny entries would vanish.
    x = x / x.abs().amax(dim=(-2, -1), keepdim=True).clamp(min=torch.finfo(x.dtype).tiny)
    norm = torch.linalg.vector_norm(x, dim=(-2, -1), keepdim=True)  # Frobenius: bounds the singular values
    x = (x / norm.clamp(min=1)).to(dtype or fast_dtype(x.device))
    wide = x.shape[-1] >= WIDE * x.shape[-2]
    # In bfloat16 the rounding error of a single Gram matrix would stay; a new one in each step corrects it.
    exact = x.dtype in (torch.float32, torch.float64)
    x = (_from_one_gram if wide and exact else _from_new_grams)(x, coefficients)
    return (x.mT if tall else x).to(matrices.dtype)


def _from_new_grams(x: Tensor, coefficients: Coefficients) -> Tensor:
    """The polynomials as they are: two products with the whole matrix in each step."""
    for a, b, c in coefficients:
        gram = x @ x.mT
        x = torch.baddbmm(x, torch.baddbmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    return x


def _from_one_gram(x: Tensor, coefficients: Coefficients) -> Tensor:
    """The same, with two products with the whole matrix in all: each step multiplies it by a polynomial of the Gram
    matrix, which therefore follows from the one before. The others are as small as the rows, which pays for wide
    matrices, such as kernels of 3x3x3."""
    gram = x @ x.mT
    product = None
    for step, (a, b, c) in enumerate(coefficients, start=1):
        factor = torch.baddbmm(gram, gram, gram, beta=b, alpha=c)
        factor.diagonal(dim1=-2, dim2=-1).add_(a)
        product = factor if product is None else factor @ product
        if step < len(coefficients):
            gram = factor @ gram @ factor
    return product @ x


def fast_dtype(device: torch.device) -> torch.dtype:
    """bfloat16 if the hardware multiplies matrices in it, as far as PyTorch can tell; otherwise float32.

    Where several GPUs train one network, all of them have to: each steps by itself, and their weights must stay equal.
    """
    if device.type == "cuda":
        together = torch.distributed.is_available() and torch.distributed.is_initialized()
        gpus = range(torch.cuda.device_count()) if together else [device]
        native = torch.version.hip is not None or all(torch.cuda.get_device_capability(gpu) >= (8, 0) for gpu in gpus)
    elif device.type == "cpu" and hasattr(torch.cpu, "get_capabilities"):  # not in older versions of PyTorch
        capabilities = torch.cpu.get_capabilities()
        native = bool(capabilities.get("avx512_bf16") or capabilities.get("amx_bf16"))
    else:
        native = False
    return torch.bfloat16 if native else torch.float32
