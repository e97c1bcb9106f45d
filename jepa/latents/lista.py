"""LISTA: a few steps of sparse inference, unrolled and learned (Gregor & LeCun 2010; LeCun 2022, section 4.5)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from jepa.minimize import l1


class Lista(nn.Module):
    """z_0 = 0, z_{t+1} = h_θ(W (s_x, s_y) + S z_t), h_θ(v) = sign(v) max(0, |v| − θ) (Gregor & LeCun 2010, section 3).

    It learns through the energy at its own answer. Begun from a dictionary it is ISTA, step by step.
    """

    def __init__(self, context: int, target: int, outputs: int, steps: int = 5, threshold: float = 0.1) -> None:
        """Args: context, target: widths of s_x and s_y; outputs: of z; steps: T; threshold: θ at first, in units of z.

        Raises: ValueError for a target of pixels, a width below 1, steps < 1 or threshold ≤ 0.
        """
        super().__init__()
        if not isinstance(target, int):
            raise ValueError(f"target: expected a width, found pixels {list(target)}")
        if min(context, target, outputs, steps) < 1:
            what = "expected at least 1 each"
            raise ValueError(f"context, target, outputs, steps: {what}, found {context}, {target}, {outputs}, {steps}")
        if not threshold > 0:
            raise ValueError(f"threshold: expected a number above 0, found {threshold}")
        self.context, self.steps = context, steps
        self.encode = nn.Linear(context + target, outputs)
        self.inhibit = nn.Linear(outputs, outputs, bias=False)
        self.log_threshold = nn.Parameter(torch.full((outputs,), threshold).log())
        nn.init.zeros_(self.inhibit.weight)

    @torch.no_grad()
    def begin(self, dictionary: Tensor, alpha: float) -> None:
        """Become ISTA for E = ‖s_y − A z‖² + α Σ |z_i|, with L = 2 ‖A‖² (spectral norm).

            W = 2/L Aᵀ on s_y and 0 on s_x,   S = 1 − 2/L AᵀA,   θ = α / L

        Args: dictionary: A [D, Z]; alpha: α, above 0.
        Raises: ValueError for another shape, or alpha ≤ 0.
        """
        shape = (self.encode.in_features - self.context, self.encode.out_features)
        if tuple(dictionary.shape) != shape:
            raise ValueError(f"dictionary: expected shape {list(shape)}, found {list(dictionary.shape)}")
        if not alpha > 0:
            raise ValueError(f"alpha: expected a number above 0, found {alpha}")
        lipschitz = 2 * torch.linalg.matrix_norm(dictionary, 2).square()
        self.encode.weight.zero_()
        self.encode.bias.zero_()
        self.encode.weight[:, self.context :] = 2 / lipschitz * dictionary.T
        self.inhibit.weight.copy_(torch.eye(shape[1]).to(dictionary) - 2 / lipschitz * dictionary.T @ dictionary)
        self.log_threshold.fill_(float((alpha / lipschitz).log()))

    def forward(self, s_x: Tensor, s_y: Tensor) -> Tensor:
        """Return z [B, Z] of s_x [B, D_x] and s_y [B, D]; a single context serves all targets.

        Raises: ValueError for a shape that does not fit.
        """
        if s_x.shape[-1] != self.context or len(s_x) not in (1, len(s_y)):
            what = f"expected [{len(s_y)}, {self.context}] or a single context"
            raise ValueError(f"s_x: {what}, found shape {list(s_x.shape)}")
        drive, threshold = self.encode(torch.cat([s_x.expand(len(s_y), -1), s_y], -1)), self.log_threshold.exp()
        z = torch.zeros_like(drive)
        for _ in range(self.steps):
            z = l1(1.0).proximal(drive + self.inhibit(z), threshold)
        return z
