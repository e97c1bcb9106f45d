"""Encoders Enc(x) = s_x, and the expander, the head that only the loss sees (LeCun 2022, figures 12 and 14)."""

from __future__ import annotations

import math
from collections.abc import Sequence

from torch import Tensor, nn


class Identity(nn.Module):
    """The encoder that keeps everything: s = x. With it a JEPA is a generative latent-variable model."""

    def __init__(self, inputs: int, outputs: int | None = None) -> None:
        """Args: inputs: D; outputs: must equal inputs. Raises: ValueError if it does not."""
        super().__init__()
        if outputs not in (None, inputs):
            raise ValueError(f"outputs: expected {inputs} as at the input of an identity, found {outputs}")
        self.inputs = self.outputs = inputs

    def forward(self, x: Tensor) -> Tensor:
        """Return x [..., D] itself."""
        return x


def perceptron(widths: Sequence[int]) -> nn.Sequential:
    """Return linear layers with SiLU between them, weights drawn so that the scale of the input survives.

    W ~ N(0, 2 / fan_in) before an activation (He et al. 2015), N(0, 1 / fan_in) at the end; biases 0. PyTorch's own
    default shrinks the signal threefold in variance per layer, and a representation that starts near a constant makes
    a poor unit for measuring collapse.

    Args: widths: of the input, the hidden layers and the output.
    Raises: ValueError for a width below 1.
    """
    if min(widths) < 1:
        raise ValueError(f"widths: expected at least 1 everywhere, found {list(widths)}")
    layers: list[nn.Module] = []
    for index, (wide, narrow) in enumerate(zip(widths[:-1], widths[1:], strict=True)):
        linear = nn.Linear(wide, narrow)
        nn.init.normal_(linear.weight, std=math.sqrt((1 if index == len(widths) - 2 else 2) / wide))
        nn.init.zeros_(linear.bias)
        layers += [linear, nn.SiLU()]
    return nn.Sequential(*layers[:-1])


class MLP(nn.Module):
    """A multi-layer perceptron, s = W_n φ(… φ(W_1 x + b_1)) + b_n with φ = SiLU."""

    def __init__(self, inputs: int, outputs: int, hidden: Sequence[int] = (64, 64)) -> None:
        """Args: inputs, outputs: widths; hidden: of the hidden layers. Raises: ValueError for a width below 1."""
        super().__init__()
        self.inputs, self.outputs = inputs, outputs
        self.layers = perceptron([inputs, *hidden, outputs])

    def forward(self, x: Tensor) -> Tensor:
        """Return s [..., D] of x [..., inputs]. Raises: ValueError if the feature axis does not fit."""
        if x.shape[-1] != self.inputs:
            raise ValueError(f"x: expected {self.inputs} features on the last axis, found shape {list(x.shape)}")
        return self.layers(x)


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
