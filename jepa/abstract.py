"""The predictor of an upper level that plans: its latent z is an *abstract action* (LeCun 2022, 4.7, figure 16).

    s̃ = s + reach · f(m(s), z)        m(s): what a map says where the state is, read coarsely

What z stands for is decided by what it is inferred from, by a network, in training:

| of        | z is inferred from                  | what it says                | what may not exist               |
|-----------|-------------------------------------|-----------------------------|----------------------------------|
| `actions` | all actions of the level below, a   | a code of what will be done | nothing: whatever is done is one |
| `outcome` | m(s), s and what came of it, s'     | a condition on what will be | outcomes that no action has      |
| `subgoal` | it is (s' − s) / reach itself       | where to be next            | places that no way leads to      |

The latents of the first two are told with noise and a price (`jepa.latents.stochastic.Gaussian`), so that little
information passes and all z near 0 mean something. Two heads say what f does not: whether a state can be at all
(`plausible`), and whether a step can end there (`reachable`); both learn from what has been and what was drawn at
random, without a label: places all over the picture, and the ends of steps from elsewhere.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from jepa.bound import Bound
from jepa.encoders import Shape, perceptron
from jepa.maps import Look, motion

OF = ("actions", "outcome", "subgoal")


class Abstract(nn.Module):
    """The predictor of an upper level whose latent is an abstract action (module docstring)."""

    def __init__(
        self, inputs: int, outputs: int, action: int, latent: int, static: Shape = (2, 28, 28), of: str = "outcome",
        channels: Sequence[int] = (16, 24, 24, 24, 16), strides: Sequence[int] = (1, 2, 1, 1, 1),
        hidden: Sequence[int] = (128, 128), narrow: Sequence[int] = (64,), limit: float = 1.0, reach: float = 1.0,
    ) -> None:  # fmt: skip
        """Args: inputs, outputs: D, two numbers a place; action: A, of all actions of the level below in one step;
        latent: Z; static: C, H, W of the map; of: what z is inferred from; channels, strides: of the map's
        convolutions; hidden, narrow: widths of hidden layers, of what predicts and of the heads; limit: what actions
        are divided by; reach: what a step of 1 of f moves the state by, in its units.

        Raises: ValueError for widths that are no pairs, or differ, no latent, a subgoal that is not as wide as the
            state, an unknown `of`, or a map without pixels.
        """
        super().__init__()
        if inputs != outputs or inputs % 2 or inputs < 2:
            raise ValueError(f"inputs, outputs: expected the same, two numbers a place, found {inputs}, {outputs}")
        if of not in OF:
            raise ValueError(f"of: expected one of {', '.join(OF)}, found {of!r}")
        if latent < 1 or (of == "subgoal" and latent != inputs):
            expected = f"{inputs}, as the state" if of == "subgoal" else "at least 1"
            raise ValueError(f"latent: expected a width of {expected} for {of!r}, found {latent}")
        if not (limit > 0 and reach > 0):
            raise ValueError(f"limit, reach: expected numbers above 0, found {limit}, {reach}")
        self.of, self.limit, self.reach, self.latent = of, limit, reach, latent
        self.map = Look(static, channels, strides)
        read = self.map.outputs * inputs // 2
        self.motion = motion([read + latent, *hidden, outputs]) if of != "subgoal" else None
        told = {"actions": action, "outcome": read + inputs, "subgoal": 0}[of]
        self.network = perceptron([told, *hidden, 2 * latent]) if told else None
        self.fine = Look(static, (16, 16))  # whether a place can be is decided where walls are thin
        self.plausible = perceptron([self.fine.outputs * inputs // 2, *narrow, 1])
        self.reachable = perceptron([2 * read + inputs, *narrow, 1])

    @property
    def static(self) -> tuple[int, int, int]:
        """C, H, W of the map."""
        return self.map.static

    def bind(self, static: Tensor) -> Bound:
        """Return the step on maps static [G, C, H, W], each of B/G trajectories. Raises: ValueError for a shape."""
        return self.on(self.map(static), "step")

    def on(self, maps: Tensor, what: str) -> Bound:
        """Return a function of three parts [B, K, ·] on what was made of maps, [G, H' W', F], each of B/G trajectories.

        step: (s, a, z) -> s̃; a is not asked. inferred: (s, a, s') -> (μ, log σ) [B, K, 2 Z] of z; of a subgoal μ is
        exact and log σ is −∞. place: (s, ·, ·) -> log odds [B, K, 1] that a state can be. end: (s, s', ·) -> log odds
        that a step from s can end at s'. doubts: (s, s', ·) -> the least log odds of a step: that s' and what is a
        third and two thirds of the straight way to it can be. That steps are nearly straight is assumed.
        """
        return Bound(getattr(self, f"_{what}"), maps)

    def forward(self, s: Tensor, a: Tensor, z: Tensor) -> Tensor:
        """Raises: ValueError, because it is told no map."""
        raise ValueError("static: expected a map, found none; a step that is told one is made by `bind(static)`")

    def _step(self, maps: Tensor, rows: Tensor, s: Tensor, a: Tensor, z: Tensor) -> Tensor:
        """Return s̃ [B, K, D] of s [B, K, D] on the maps [G, H' W', F] of rows [B]; a is what z was inferred from."""
        if self.motion is None:
            return s + self.reach * z
        read = self.map.at(maps, rows, s)
        return s + self.reach * self.motion(torch.cat([read, z.expand(*read.shape[:2], -1)], -1))

    def _inferred(self, maps: Tensor, rows: Tensor, s: Tensor, a: Tensor, after: Tensor) -> Tensor:
        """Return (μ, log σ) [B, K, 2 Z] of s [B, K, D], a [B, K, A] and what came of it [B, K, D]."""
        moved = (after - s) / self.reach
        if self.network is None:
            return torch.cat([moved, torch.full_like(moved, -torch.inf)], -1)
        if self.of == "actions":
            return self.network(a / self.limit)
        return self.network(torch.cat([self.map.at(maps, rows, s), moved], -1))

    def _place(self, maps: Tensor, rows: Tensor, s: Tensor, a: Tensor, z: Tensor) -> Tensor:
        """Return the log odds [B, K, 1] that places s [B, K, D] can be."""
        return self.plausible(self.fine.at(maps, rows, s))

    def _end(self, maps: Tensor, rows: Tensor, s: Tensor, after: Tensor, z: Tensor) -> Tensor:
        """Return the log odds [B, K, 1] that a step from s [B, K, D] can end at `after`."""
        both = [self.map.at(maps, rows, place) for place in (s, after)]
        return self.reachable(torch.cat([*both, (after - s) / self.reach], -1))

    def _doubts(self, maps: Tensor, rows: Tensor, s: Tensor, after: Tensor, z: Tensor) -> Tensor:
        """Return the least log odds [B, K, 1] of a step from s to `after` [B, K, D]."""
        places = [torch.lerp(s, after, share) for share in (1 / 3, 2 / 3, 1.0)]
        return torch.stack([self._place(maps, rows, place, after, z) for place in places]).amin(0)
