"""Amortized inference: a network that proposes ž at once, where minimizing would search (LeCun 2022, section 4.5.1)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from jepa.encoders import MLP, Convolutional, Shape


class Amortized(nn.Module):
    """The network q(s_x, s_y) = W (s_x, Enc(s_y)) ≈ argmin over z of E, trained through the energy at its own answer.

    Enc is convolutional where s_y are pixels, the targets of a generative model, and a perceptron elsewhere.
    """

    def __init__(
        self,
        context: int,
        target: Shape,
        outputs: int,
        features: int = 32,
        hidden: int = 512,
        channels: Sequence[int] = (16, 32),
        patch: int = 4,
    ) -> None:
        """Args: context, outputs: widths of s_x and z; target: width of s_y, or C, H, W; features: width of Enc's
        result; hidden: of its hidden layer; channels, patch: of its convolutions.

        Raises: ValueError for a width below 1, as for a latent without any.
        """
        super().__init__()
        if outputs < 1:
            raise ValueError(f"inference: expected a latent with a width of at least 1, found {outputs}")
        pixels = not isinstance(target, int)
        self.encoder = (
            Convolutional(target, features, channels, patch, hidden) if pixels else MLP(target, features, [hidden])
        )
        self.context = context
        self.last = nn.Linear(context + features, outputs)

    def forward(self, s_x: Tensor, s_y: Tensor) -> Tensor:
        """Return z [B, Z] of s_x [B, D_x] and s_y [B, D]; a single context serves all targets.

        Raises: ValueError for a shape that does not fit.
        """
        if s_x.shape[-1] != self.context or len(s_x) not in (1, len(s_y)):
            what = f"expected [{len(s_y)}, {self.context}] or a single context"
            raise ValueError(f"s_x: {what}, found shape {list(s_x.shape)}")
        return self.last(torch.cat([s_x.expand(len(s_y), -1), self.encoder(s_y)], -1))
