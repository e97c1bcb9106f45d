"""A code that holds locations (Finn et al. 2016).

It is a prior, and no supervision: what is represented is where things are in the picture. Two more go with it in
notebook 07: what matters of the surroundings is what is there (`jepa.maps.MapReader`), and the surroundings are what
does not move (`jepa.static`). A plain convolutional encoder with a recurrent predictor has none of the three.

Locations are in units of `UNIT` pixels from the middle of the picture, so that a larger picture needs no other code.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from jepa.encoders import Shape, check_pixels, pixels

UNIT = 8.0  # pixels for which a code of 1 stands


class Keypoints(nn.Module):
    """Each pair of numbers is the centroid of a heat map, (s_1, s_2) = Σ_p p softmax(β h(x))_p (Finn et al. 2016).

    h = conv(ReLU(conv(x))) at half the resolution. With `positive` all weights are above 0 at first, so that bright is
    where the heat is: of ten starts without it one settles on "anywhere but there" and never leaves. With `symmetric`
    the weights are those of their mirror images, too: a heat map that knows no left from right puts its centroid where
    the thing is, and not beside it, which no loss would see.
    """

    def __init__(
        self, inputs: Shape, outputs: int = 2, channels: int = 8, sharpness: float = 4.0, positive: bool = True,
        symmetric: bool = False,
    ) -> None:  # fmt: skip
        """Args: inputs: C, H, W; outputs: D, two numbers a keypoint; channels: of the first convolution; sharpness: β;
        positive: whether the first weights are above 0; symmetric: whether weights are averaged over mirror images.

        Raises: ValueError if there are no pixels, D is not even, or a number is not above 0.
        """
        super().__init__()
        self.inputs = pixels(inputs)
        if outputs < 2 or outputs % 2:
            raise ValueError(f"outputs: expected two numbers a keypoint, found {outputs}")
        if channels < 1 or not sharpness > 0:
            raise ValueError(f"channels, sharpness: expected numbers above 0, found {channels}, {sharpness}")
        self.outputs, self.sharpness, self.symmetric = outputs, sharpness, symmetric
        self.features = nn.Conv2d(inputs[0], channels, 5, stride=2, padding=2)
        self.heat = nn.Conv2d(channels, outputs // 2, 3, padding=1)
        if positive:
            with torch.no_grad():
                for layer in (self.features, self.heat):
                    layer.weight.abs_()
        across, down = ((torch.arange((size + 1) // 2) * 2.0 - (size - 1) / 2) / UNIT for size in inputs[:0:-1])
        places = torch.stack([across.repeat(len(down)), down.repeat_interleave(len(across))], -1)
        self.register_buffer("places", places, persistent=False)  # [P, 2] of the heat map's cells

    def forward(self, x: Tensor) -> Tensor:
        """Return s [B, D] of x [B, C, H, W]. Raises: ValueError for another shape."""
        check_pixels(x, self.inputs)
        x = x.contiguous(memory_format=torch.channels_last)  # on a CPU half the time for so few channels
        heat = self._convolved(self.heat, self._convolved(self.features, x).relu()).flatten(2)  # [B, D/2, P]
        return ((self.sharpness * heat).softmax(-1) @ self.places).flatten(1)

    def _convolved(self, layer: nn.Conv2d, x: Tensor) -> Tensor:
        """Return what a layer makes of x, with weights that are averaged over mirror images if asked."""
        if not self.symmetric:
            return layer(x)
        across = (layer.weight + layer.weight.flip(3)) / 2
        return nn.functional.conv2d(x, (across + across.flip(2)) / 2, layer.bias, layer.stride, layer.padding)
