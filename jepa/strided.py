"""A plain convolutional encoder of pictures of any size."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from jepa.encoders import Shape, check_pixels, perceptron, pixels


class Strided(nn.Module):
    """s = norm(W φ(conv … φ(conv(x)))) with φ = ReLU, every convolution at half the resolution of the one before."""

    def __init__(
        self, inputs: Shape, outputs: int, channels: Sequence[int] = (16, 32, 32), normalize: bool = True
    ) -> None:
        """Args: inputs: C, H, W; outputs: D; channels: of each convolution of 3 × 3; normalize: whether s is divided by
        its standard deviation over D, and then scaled number by number, as a recurrent predictor likes it.

        Raises: ValueError if there are no pixels, or a width is below 1.
        """
        super().__init__()
        self.inputs = pixels(inputs)
        if not channels or min(*channels, outputs) < 1:
            raise ValueError(f"channels, outputs: expected widths of at least 1, found {list(channels)}, {outputs}")
        self.outputs = outputs
        (_, height, width), layers = inputs, []
        for wide, narrow in zip([inputs[0], *channels[:-1]], channels, strict=True):
            layer = nn.Conv2d(wide, narrow, 3, stride=2, padding=1)
            nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
            nn.init.zeros_(layer.bias)
            layers += [layer, nn.ReLU()]
            height, width = (height + 1) // 2, (width + 1) // 2
        last = perceptron([channels[-1] * height * width, outputs])
        self.layers = nn.Sequential(*layers, nn.Flatten(), last, nn.LayerNorm(outputs) if normalize else nn.Identity())

    def forward(self, x: Tensor) -> Tensor:
        """Return s [B, D] of x [B, C, H, W]. Raises: ValueError for another shape."""
        check_pixels(x, self.inputs)
        return self.layers(x)
