"""Encoders of windows of codes: pooling over time (LeCun 2022, section 4.6).

| pooling       | s of a window c_1 … c_W                  |                                                      |
|---------------|------------------------------------------|------------------------------------------------------|
| `convolution` | f(c_1, …, c_W), side by side             | a convolution over time, as wide as the stride       |
| `mean`        | f(mean_t c_t)                            | cannot see what changes within the window            |
| `last`        | f(c_W)                                   | the same at a lower rate: striding, no pooling       |
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from jepa.encoders import Shape, perceptron

POOLINGS = ("convolution", "mean", "last")


class Pooled(nn.Module):
    """A perceptron on a window of codes that are pooled over time (module docstring)."""

    def __init__(
        self,
        inputs: Shape,
        outputs: int = 16,
        frames: int = 1,
        pooling: str = "convolution",
        hidden: Sequence[int] = (128, 128),
    ) -> None:
        """Args: inputs: W D, codes side by side; outputs: D of the window's code; frames: W; pooling: how; hidden: of
        f's hidden layers, none for a linear f.

        Raises: ValueError for pixels, a width that is no multiple of W, or an unknown pooling.
        """
        super().__init__()
        if not isinstance(inputs, int) or frames < 1 or inputs % frames:
            raise ValueError(f"inputs: expected a multiple of the {frames} codes of a window, found {inputs}")
        if pooling not in POOLINGS:
            raise ValueError(f"pooling: expected one of {', '.join(POOLINGS)}, found {pooling!r}")
        self.inputs, self.outputs, self.frames, self.pooling = inputs, outputs, frames, pooling
        self.layers = perceptron([inputs if pooling == "convolution" else inputs // frames, *hidden, outputs])

    def forward(self, x: Tensor) -> Tensor:
        """Return s [..., D] of windows x [..., W D]. Raises: ValueError if the feature axis does not fit."""
        if x.shape[-1] != self.inputs:
            raise ValueError(f"x: expected {self.inputs} features on the last axis, found shape {list(x.shape)}")
        codes = x.unflatten(-1, (self.frames, -1))
        pooled = {"convolution": x, "mean": codes.mean(-2), "last": codes[..., -1, :]}[self.pooling]
        return self.layers(pooled)
