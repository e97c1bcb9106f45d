"""Encoders Enc(x) = s_x (LeCun 2022, figure 12)."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

Shape = int | tuple[int, int, int]  # of what an encoder sees: a width D, or C, H, W of pixels


class Identity(nn.Module):
    """The encoder that keeps everything: s = x. With it a JEPA is a generative latent-variable model."""

    def __init__(self, inputs: Shape, outputs: int | None = None) -> None:
        """Args: inputs: D, or C, H, W of pixels; outputs: must be as many. Raises: ValueError if it is not."""
        super().__init__()
        pixels = not isinstance(inputs, int)
        self.inputs = tuple(inputs) if pixels else inputs
        self.outputs = math.prod(inputs) if pixels else inputs
        if outputs not in (None, self.outputs):
            raise ValueError(f"outputs: expected {self.outputs} as at the input of an identity, found {outputs}")

    def forward(self, x: Tensor) -> Tensor:
        """Return x [..., D] itself, pixels [..., C, H, W] in one row. Raises: ValueError for other shapes."""
        if isinstance(self.inputs, int):
            return x
        if x.shape[-3:] != self.inputs:
            raise ValueError(f"x: expected pixels [..., {_list(self.inputs)}], found shape {list(x.shape)}")
        return x.flatten(-3)


def perceptron(widths: Sequence[int], activation: Callable[[], nn.Module] = nn.SiLU) -> nn.Sequential:
    """Return linear layers with an activation between them, weights drawn so that the scale of the input survives.

    W ~ N(0, 2 / fan_in) before an activation (He et al. 2015), N(0, 1 / fan_in) at the end; biases 0. PyTorch's own
    default shrinks the signal threefold in variance per layer, and a representation that starts near a constant makes
    a poor unit for measuring collapse.

    Args: widths: of the input, the hidden layers and the output; activation: makes what is between them.
    Raises: ValueError for a width below 1.
    """
    if min(widths) < 1:
        raise ValueError(f"widths: expected at least 1 everywhere, found {list(widths)}")
    layers: list[nn.Module] = []
    for index, (wide, narrow) in enumerate(zip(widths[:-1], widths[1:], strict=True)):
        linear = nn.Linear(wide, narrow)
        nn.init.normal_(linear.weight, std=math.sqrt((1 if index == len(widths) - 2 else 2) / wide))
        nn.init.zeros_(linear.bias)
        layers += [linear, activation()]
    return nn.Sequential(*layers[:-1])


class MLP(nn.Module):
    """A multi-layer perceptron, s = W_n φ(… φ(W_1 x + b_1)) + b_n with φ = SiLU."""

    def __init__(self, inputs: int, outputs: int, hidden: Sequence[int] = (64, 64)) -> None:
        """Args: inputs, outputs: widths; hidden: of the hidden layers.

        Raises: ValueError for a width below 1, or for pixels.
        """
        super().__init__()
        if not isinstance(inputs, int):
            raise ValueError(f"inputs: expected a width, found pixels {list(inputs)}, which a convolutional one reads")
        self.inputs, self.outputs = inputs, outputs
        self.layers = perceptron([inputs, *hidden, outputs])

    def forward(self, x: Tensor) -> Tensor:
        """Return s [..., D] of x [..., inputs]. Raises: ValueError if the feature axis does not fit."""
        if x.shape[-1] != self.inputs:
            raise ValueError(f"x: expected {self.inputs} features on the last axis, found shape {list(x.shape)}")
        return self.layers(x)


class Convolutional(nn.Module):
    """Patches, strided convolutions and a perceptron, s = W_2 φ(W_1 φ(conv … φ(patches(x)))) with φ = SiLU.

    The first layer sees patches that overlap by half, every further one halves the picture.
    """

    def __init__(
        self, inputs: Shape, outputs: int, channels: Sequence[int] = (16, 32), patch: int = 4, hidden: int = 512
    ) -> None:
        """Args: inputs: C, H, W; outputs: D; channels: of each convolution; patch: distance of the patches, half
        their side, in pixels; hidden: width of the perceptron's hidden layer.

        Raises: ValueError if there are no pixels, a width is below 1, or the picture cannot be cut into patches.
        """
        super().__init__()
        depth, height, width = _pixels(inputs, patch)
        self.inputs, self.outputs = (depth, height, width), outputs
        if not channels or min(*channels, hidden, outputs) < 1:
            what = "expected widths of at least 1 and at least one convolution"
            raise ValueError(f"channels, hidden, outputs: {what}, found {list(channels)}, {hidden}, {outputs}")
        height, width = height // patch, width // patch
        layers: list[nn.Module] = [nn.Conv2d(depth, channels[0], 2 * patch, patch, patch // 2), nn.SiLU()]
        for wide, narrow in zip(channels[:-1], channels[1:], strict=True):
            layers += [nn.Conv2d(wide, narrow, 3, stride=2, padding=1), nn.SiLU()]
            height, width = (height + 1) // 2, (width + 1) // 2
        for layer in layers[::2]:
            nn.init.kaiming_normal_(layer.weight)
            nn.init.zeros_(layer.bias)
        self.layers = nn.Sequential(*layers, nn.Flatten(), perceptron([channels[-1] * height * width, hidden, outputs]))

    def forward(self, x: Tensor) -> Tensor:
        """Return s [B, D] of x [B, C, H, W], or of its pixels in one row. Raises: ValueError for another shape."""
        if x.shape[1:] not in (self.inputs, (math.prod(self.inputs),)):
            raise ValueError(f"x: expected [B, {_list(self.inputs)}], found shape {list(x.shape)}")
        return self.layers(x.reshape(-1, *self.inputs))


class Coupling(nn.Module):
    """An encoder that can be undone and keeps every volume as it is, by additive coupling (Dinh et al. 2015).

        b ← b + m_1(a),   a ← a + m_2(b), …     a, b: the first and the second half of the pictures;  s = (a, b)

    It says all of y, and it cannot say less: what cannot be predicted stays in s (LeCun 2022, section 4.5).
    """

    def __init__(self, inputs: Shape, outputs: int | None = None, steps: int = 2, channels: int = 16) -> None:
        """Args: inputs: C, H, W with even C; outputs: must be as many; steps: couplings; channels: of each m.

        Raises: ValueError if there are no pixels, the pictures cannot be halved, or the outputs are not as many.
        """
        super().__init__()
        if isinstance(inputs, int) or inputs[0] % 2:
            raise ValueError(f"inputs: expected C, H, W with an even number of pictures C, found {inputs}")
        self.inputs, self.outputs = tuple(inputs), math.prod(inputs)
        if outputs not in (None, self.outputs):
            raise ValueError(f"outputs: expected {self.outputs} as at the input of an invertible map, found {outputs}")
        if min(steps, channels) < 1:
            raise ValueError(f"steps, channels: expected at least 1, found {steps}, {channels}")
        half = self.inputs[0] // 2
        self.maps = nn.ModuleList(
            nn.Sequential(nn.Conv2d(half, channels, 3, padding=1), nn.SiLU(), nn.Conv2d(channels, half, 3, padding=1))
            for _ in range(steps)
        )

    def forward(self, x: Tensor) -> Tensor:
        """Return s [B, C H W] of x [B, C, H, W]. Raises: ValueError for another shape."""
        check_pixels(x, self.inputs)
        a, b = x.chunk(2, 1)
        for step in self.maps:
            a, b = b + step(a), a
        return torch.cat([a, b], 1).flatten(1)

    def invert(self, s: Tensor) -> Tensor:
        """Return the x [B, C, H, W] that s [B, C H W] represents. Raises: ValueError for another width."""
        if s.shape[1:] != (self.outputs,):
            raise ValueError(f"s: expected {self.outputs} features on the last axis, found shape {list(s.shape)}")
        a, b = s.unflatten(1, self.inputs).chunk(2, 1)
        for step in reversed(self.maps):
            a, b = b, a - step(b)
        return torch.cat([a, b], 1)


def pixels(inputs: Shape) -> tuple[int, int, int]:
    """Return C, H, W. Raises: ValueError if `inputs` is no picture."""
    if isinstance(inputs, int):
        raise ValueError(f"inputs: expected pixels, C, H, W, found a width of {inputs}")
    return tuple(inputs)


def check_pixels(x: Tensor, inputs: tuple[int, int, int]) -> None:
    """Raises: ValueError unless x is [B, *inputs]."""
    if x.shape[1:] != inputs:
        raise ValueError(f"x: expected [B, {_list(inputs)}], found shape {list(x.shape)}")


def _pixels(inputs: Shape, patch: int) -> tuple[int, int, int]:
    """Return C, H, W. Raises: ValueError if `inputs` is no picture, or none that patches tile."""
    depth, height, width = pixels(inputs)
    if patch < 2 or patch % 2 or height % patch or width % patch:
        raise ValueError(f"patch: expected an even number that divides {height} and {width}, found {patch}")
    return depth, height, width


def _list(shape: tuple[int, ...]) -> str:
    """Return the numbers of a shape, for messages."""
    return ", ".join(map(str, shape))


ENCODERS = {  # by name
    "identity": Identity,
    "mlp": MLP,
    "convolutional": Convolutional,
    "coupling": Coupling,
    "keypoints": "jepa.keypoints:Keypoints",
    "strided": "jepa.strided:Strided",
    "pooled": "jepa.pooling:Pooled",
}
