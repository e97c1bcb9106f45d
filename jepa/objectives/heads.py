"""Heads that only the loss sees: expanders v = Exp(s), on which variance and covariance act (LeCun 2022, figure 14)."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from jepa.encoders import Identity


class RandomFeatures(nn.Module):
    """The expander v = (s, max(0, W s + b)) with W and b drawn once and never trained.

    Decorrelating random non-linear features is what makes the components of s independent (Mialon et al. 2022). A
    trained expander does so too, but it may also scale s up, and then the energy shrinks at no cost; one that is not
    trained passes the criteria's scale on to s.
    """

    def __init__(self, inputs: int, features: int = 128, scale: float = 2.0) -> None:
        """Args: inputs: D; features: of the random layer, E = D + features; scale: standard deviation of W s for s of
        standard deviation 1.

        Raises: ValueError for a width below 1.
        """
        super().__init__()
        if min(inputs, features) < 1:
            raise ValueError(f"inputs, features: expected widths of at least 1, found {inputs}, {features}")
        self.inputs, self.outputs = inputs, inputs + features
        self.register_buffer("weight", torch.randn(features, inputs) * scale / math.sqrt(inputs))
        self.register_buffer("bias", torch.randn(features))

    def forward(self, s: Tensor) -> Tensor:
        """Return v [B, E] of s [B, D]. Raises: ValueError if the feature axis does not fit."""
        if s.shape[-1] != self.inputs:
            raise ValueError(f"s: expected {self.inputs} features on the last axis, found shape {list(s.shape)}")
        return torch.cat([s, nn.functional.linear(s, self.weight, self.bias).relu()], -1)


class Expander(nn.Module):
    """The head v = Exp(s) on which variance and covariance act: linear, batch norm, ReLU, as Bardes et al. (2022).

    Their widths are 8192 three times; the default here suits representations of tens of features.
    """

    def __init__(self, inputs: int, outputs: int = 128, hidden: Sequence[int] = (128,)) -> None:
        """Args: inputs: D; outputs: E; hidden: widths between. Raises: ValueError for a width below 1."""
        super().__init__()
        widths = [inputs, *hidden, outputs]
        if min(widths) < 1:
            raise ValueError(f"inputs, hidden, outputs: expected widths of at least 1, found {widths}")
        self.inputs, self.outputs = inputs, outputs
        layers: list[nn.Module] = []
        for wide, narrow in zip(widths[:-2], widths[1:-1], strict=True):
            layers += [nn.Linear(wide, narrow, bias=False), nn.BatchNorm1d(narrow), nn.ReLU()]
        self.layers = nn.Sequential(*layers, nn.Linear(widths[-2], outputs, bias=False))

    def forward(self, s: Tensor) -> Tensor:
        """Return v [B, E] of s [B, D]. Raises: ValueError if the feature axis does not fit."""
        if s.shape[-1] != self.inputs:
            raise ValueError(f"s: expected {self.inputs} features on the last axis, found shape {list(s.shape)}")
        return self.layers(s)


EXPANDERS = {"identity": Identity, "expander": Expander, "random_features": RandomFeatures}  # by name
