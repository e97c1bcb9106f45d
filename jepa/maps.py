"""Predictors that are told a map: by reading it where the state is, or as one vector."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from jepa.bound import Bound, check_static
from jepa.encoders import Shape, perceptron
from jepa.keypoints import UNIT


class Look(nn.Sequential):
    """Features of maps, and what is read of them at places: bilinearly between the pixels of the features."""

    def __init__(self, static: Shape, channels: Sequence[int], strides: Sequence[int] = ()) -> None:
        """Args: static: C, H, W of a map; channels: of the convolutions; strides: of each, 1 where none is given.

        Raises: ValueError for a map without pixels, another number of strides, or features too few to read between.
        """
        if isinstance(static, int):
            raise ValueError(f"static: expected a map, C, H, W, found a width of {static}")
        strides = tuple(strides) or (1,) * len(channels)
        if len(strides) != len(channels) or min(strides) < 1:
            raise ValueError(f"strides: expected {len(channels)} of at least 1, found {list(strides)}")
        layers: list[nn.Module] = []
        for wide, narrow, stride in zip([static[0], *channels[:-1]], channels, strides, strict=True):
            layers += [nn.Conv2d(wide, narrow, 3, stride, padding=1), nn.ReLU()]
        super().__init__(*layers[:-1])
        self.static, self.outputs, self.scale = tuple(static), channels[-1] + 2, math.prod(strides)
        self.sides = tuple(-(-side // self.scale) for side in static[1:])  # H', W' of the features
        if min(self.sides) < 2:
            raise ValueError(f"static: expected at least 2 pixels a side to read between, found {list(static)}")

    def forward(self, static: Tensor) -> Tensor:
        """Return features [G, H' W', F] of maps static [G, C, H, W]. Raises: ValueError for another shape."""
        check_static(static, self.static)
        features = super().forward(static.contiguous(memory_format=torch.channels_last))  # [G, F, H', W']
        return features.permute(0, 2, 3, 1).flatten(1, 2)

    def at(self, maps: Tensor, rows: Tensor, s: Tensor) -> Tensor:
        """Return what is read at places s [B, K, 2 J] of the maps [G, H' W', F] of rows [B]: [B, K, J (F + 2)].

        Beside the features it is where in its pixel a place is, from −1/2 to 1/2 across and down.
        """
        (height, width), middle = self.sides, s.new_tensor([(side - 1) / 2 for side in self.static[:0:-1]])
        last = s.new_tensor([width - 1, height - 1])
        pixel = s.unflatten(-1, (-1, 2)) * UNIT + middle  # [B, K, J, 2]
        pixel = torch.minimum((pixel if self.scale == 1 else pixel / self.scale).clamp_min(0), last)
        # a state that is no number has no pixel, and what is read there is none either
        corner = torch.minimum(pixel.detach().floor(), last - 1).clamp_min(0).nan_to_num()
        within = pixel - corner  # [B, K, J, 2] from 0 to 1
        index = (corner[..., 1] * width + corner[..., 0]).long() + rows.view(-1, 1, 1) * (height * width)
        flat, (right, down) = maps.flatten(0, 1), within.split(1, -1)

        def at(offset: int) -> Tensor:
            """Return features [B, K, J, F] at a corner of the pixels."""
            return flat.index_select(0, (index + offset).flatten()).unflatten(0, index.shape)

        above = torch.lerp(at(0), at(1), right)
        below = torch.lerp(at(width), at(width + 1), right)
        return torch.cat([torch.lerp(above, below, down), within - 0.5], -1).flatten(2)


class MapReader(nn.Module):
    """s̃ = s + reach · f(m(s), p(s) − ⌊p(s)⌋ − 1/2, a, z): the predictor sees features m of the map where the state is.

    It is not told s itself, only what is there and where in its pixel it is, so what it learns at one wall holds at
    all of them. m is a convolution of the static picture, computed once for each, read bilinearly at the pixel p(s).
    """

    def __init__(
        self,
        inputs: int,
        outputs: int,
        action: int = 2,
        latent: int = 0,
        static: Shape = (1, 33, 33),
        channels: Sequence[int] = (16, 32, 16),
        hidden: Sequence[int] = (128, 128),
        limit: float = 1.0,
        reach: float = 0.2,
    ) -> None:
        """Args: inputs, outputs: D, two numbers a keypoint; action, latent: widths of a and z; static: C, H, W of the
        map; channels: of its convolutions; hidden: widths of f's hidden layers; limit: what an action is divided by;
        reach: what a step of 1 of f moves the state by, in its units.

        Raises: ValueError for widths that are no pairs, or differ, a map without pixels, or numbers not above 0.
        """
        super().__init__()
        _check(inputs, outputs, static, channels, [*hidden, limit, reach])
        if inputs % 2:
            raise ValueError(f"inputs: expected two numbers a keypoint, found {inputs}")
        self.limit, self.reach = limit, reach
        self.map = Look(static, channels)
        self.motion = motion([self.map.outputs * inputs // 2 + action + latent, *hidden, outputs])

    @property
    def static(self) -> tuple[int, int, int]:
        """C, H, W of the map."""
        return self.map.static

    def bind(self, static: Tensor) -> Bound:
        """Return the step on maps static [G, C, H, W], each of B/G trajectories. Raises: ValueError for a shape."""
        return Bound(self._step, self.map(static))

    def forward(self, s: Tensor, a: Tensor, z: Tensor) -> Tensor:
        """Raises: ValueError, because it is told no map."""
        raise _unbound()

    def _step(self, maps: Tensor, rows: Tensor, s: Tensor, a: Tensor, z: Tensor) -> Tensor:
        """Return s̃ [B, K, D] of s [B, K, D] on the maps [G, H W, F] of rows [B]."""
        read = self.map.at(maps, rows, s)
        told = [part.expand(*read.shape[:2], -1) for part in (a / self.limit, z)]
        return s + self.reach * self.motion(torch.cat([read, *told], -1))


class MapCode(nn.Module):
    """s̃ = s + reach · f(s, c, a, z): the map as a vector c = W φ(conv … φ(conv(map))), with φ = ReLU.

    Beside `MapReader`, of which it differs in this alone: nothing is looked up where the state is.
    """

    def __init__(
        self,
        inputs: int,
        outputs: int,
        action: int = 2,
        latent: int = 0,
        static: Shape = (1, 33, 33),
        channels: Sequence[int] = (16, 32, 32),
        code: int = 64,
        hidden: Sequence[int] = (128, 128),
        limit: float = 1.0,
        reach: float = 0.2,
    ) -> None:
        """Args: inputs, outputs: D; action, latent: widths of a and z; static: C, H, W of the map; channels: of its
        convolutions, each at half the resolution of the one before; code: width of c; hidden, limit, reach: as for
        `MapReader`.

        Raises: ValueError if inputs and outputs differ, the map has no pixels, or a number is not above 0.
        """
        super().__init__()
        _check(inputs, outputs, static, channels, [*hidden, code, limit, reach])
        self.static, self.limit, self.reach = tuple(static), limit, reach
        layers: list[nn.Module] = []
        height, width = static[1:]
        for wide, narrow in zip([static[0], *channels[:-1]], channels, strict=True):
            layers += [nn.Conv2d(wide, narrow, 3, stride=2, padding=1), nn.ReLU()]
            height, width = (height + 1) // 2, (width + 1) // 2
        self.map = nn.Sequential(*layers, nn.Flatten(), nn.Linear(channels[-1] * height * width, code))
        self.motion = motion([inputs + code + action + latent, *hidden, outputs])

    def bind(self, static: Tensor) -> Bound:
        """Return the step on maps static [G, C, H, W], each of B/G trajectories. Raises: ValueError for a shape."""
        check_static(static, self.static)
        return Bound(self._step, self.map(static))

    def forward(self, s: Tensor, a: Tensor, z: Tensor) -> Tensor:
        """Raises: ValueError, because it is told no map."""
        raise _unbound()

    def _step(self, codes: Tensor, rows: Tensor, s: Tensor, a: Tensor, z: Tensor) -> Tensor:
        """Return s̃ [B, K, D] of s [B, K, D] with the codes [G, C] of rows [B]."""
        told = [part.expand(*s.shape[:2], -1) for part in (codes[rows].unsqueeze(1), a / self.limit, z)]
        return s + self.reach * self.motion(torch.cat([s, *told], -1))


def motion(widths: Sequence[int]) -> nn.Module:
    """Return the perceptron of a step, with a small last layer, so that at first nothing moves much."""
    made = perceptron(widths, nn.ReLU)
    with torch.no_grad():
        made[-1].weight *= 0.1
    return made


def _check(inputs: int, outputs: int, static: Shape, channels: Sequence[int], numbers: Sequence[float]) -> None:
    """Raises: ValueError for a predictor of differing widths, a map that has no pixels, or a number not above 0."""
    numbers = [*channels, *numbers]
    if inputs != outputs or inputs < 1:
        raise ValueError(f"inputs, outputs: expected the same width, found {inputs}, {outputs}")
    if isinstance(static, int):
        raise ValueError(f"static: expected a map, C, H, W, found a width of {static}")
    if not channels or not min(numbers) > 0:
        raise ValueError(f"channels, hidden, code, limit, reach: expected numbers above 0, found {numbers}")


def _unbound() -> ValueError:
    """Return the error of a predictor that is told no map."""
    return ValueError("static: expected a map, found none; a step that is told one is made by `bind(static)`")
