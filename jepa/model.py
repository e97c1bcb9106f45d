"""The joint embedding predictive architecture, and its baselines as configurations (LeCun 2022, section 4.4).

    E(x, y, z) = D(Enc_y(y), Pred(Enc_x(x), a, z)) + R(z)            equation 10, with an action a

| architecture                      | encoder  | target encoder | predictor | latent |
|-----------------------------------|----------|----------------|-----------|--------|
| JEPA                              | any      | any            | any       | any    |
| generative latent-variable model  | any      | identity       | any       | any    |
| auto-encoder (context = y)        | narrow   | identity       | decoder   | none   |
| joint embedding                   | any      | any            | identity  | none   |

The model brings the distance D as a function of z; R(z), and how z is inferred, are the latent's (`jepa.latents.base`).
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor, nn

from jepa.encoders import Identity
from jepa.energy import distance
from jepa.latents.base import Latent
from jepa.minimize import Cost, Minimum
from jepa.predictors import Step


class Representations(NamedTuple):
    """What the two encoders make of a pair."""

    s_x: Tensor  # [B, D_x]
    s_y: Tensor  # [B, D]

    def first(self, count: int) -> Representations:
        """Return the first pairs."""
        return Representations(self.s_x[:count], self.s_y[:count])


class JEPA(nn.Module):
    """Two encoders and a predictor with a latent."""

    def __init__(self, encoder: nn.Module, target_encoder: nn.Module, predictor: nn.Module, latent: Latent) -> None:
        """Args: encoder, target_encoder: x -> s_x [B, D_x], y -> s_y [B, D] (the same module: shared weights);
        predictor: a step, (s_x [B, 1, D_x], a [B, 1, A], z [B or 1, K, Z]) -> [B, K, D]; latent: z.
        """
        super().__init__()
        self.encoder, self.target_encoder = encoder, target_encoder
        self.predictor, self.latent = predictor, latent

    def forward(self, x: Tensor, y: Tensor, a: Tensor | None = None) -> Tensor:
        """Return the free energy F(x, y) [B] of contexts x [B, …], targets y [B, …] and actions a [B, A], if any."""
        s_x, s_y = self.encode(x, y)
        return self.free_energy(s_x, _action(s_x, a), s_y)

    def encode(self, x: Tensor, y: Tensor) -> Representations:
        """Return s_x and s_y of x [B, …] and y [B, …].

        Raises: ValueError if the batches differ, or an encoder returns anything but [B, D] of floating-point numbers.
        """
        if len(x) != len(y):
            raise ValueError(f"y: expected a batch of {len(x)} as for x, found {len(y)}")
        encoded = self.encoder(x), self.target_encoder(y)
        names = ("encoder", "target_encoder")
        return Representations(*(_floating(name, s, (len(x),)) for name, s in zip(names, encoded, strict=True)))

    def representation(self, y: Tensor) -> Tensor:
        """Return s_y [B, D] of y [B, …]. Raises: ValueError as `encode`."""
        return _floating("target_encoder", self.target_encoder(y), (len(y),))

    def step(self, s: Tensor, a: Tensor, z: Tensor) -> Tensor:
        """Return s̃ [B, K, D] of s [B, K or 1, D], a [B, K or 1, A] and what a predictor is given of z [B or 1, K, Z].

        Raises: ValueError if the predictor returns anything else.
        """
        return _predicted(self.predictor, s, a, z)

    def bound(self, static: Tensor) -> Step:
        """Return the step of trajectories that share static [G, …] in their order (`Trajectories.static`), once made.

        A predictor that uses what stays the same has `bind(static)`, which returns a step; one that has not is not
        told.
        """
        bind = getattr(self.predictor, "bind", None)
        return Checked(self.predictor if bind is None else bind(static))

    def D(self, s_x: Tensor, a: Tensor, s_y: Tensor) -> Cost:
        """Return D(s_y, Pred(s_x, a, z)) as a function of z alone, [B or 1, K, Z] -> [B, K] (LeCun 2022, equation 10).

        It is the mean over what the predictor is given of z (`Latent.predictor_input`).

        Args: s_x: [B, D_x], or [1, D_x], a single context that serves all targets; a: [B or 1, A]; s_y: [B, D].
        Raises: where it is asked, ValueError if the predictor returns anything but [B, K, D].
        """

        def at(z: Tensor) -> Tensor:
            """Return D [B, K]."""
            given = self.latent.predictor_input(z)  # [B or 1, K, J, Z]
            predicted = self.step(s_x.unsqueeze(1), a.unsqueeze(1), given.flatten(1, 2))
            if predicted.shape[-1] != s_y.shape[-1]:
                expected = [*predicted.shape[:-1], s_y.shape[-1]]
                raise ValueError(f"predictor: expected {expected}, as wide as s_y, found {list(predicted.shape)}")
            distances = distance(predicted, s_y.unsqueeze(1))
            return distances.unflatten(1, given.shape[1:3]).mean(-1)

        return at

    def E(self, s_x: Tensor, a: Tensor, s_y: Tensor) -> Cost:
        """Return E = D + R as a function of z alone, [B or 1, K, Z] -> [B, K] (LeCun 2022, equation 10).

        Args: as for `D`.
        """
        return self.latent.energy(self.D(s_x, a, s_y))

    def minimum(self, s_x: Tensor, a: Tensor, s_y: Tensor) -> Minimum:
        """Return ž, F and the trace of the inference, without gradient (LeCun 2022, equations 11 and 12).

        Args: as for `D`.
        """
        return self.latent.infer(self.D(s_x, a, s_y), (s_x, s_y))

    def free_energy(self, s_x: Tensor, a: Tensor, s_y: Tensor, beta: float = math.inf, learn: bool = False) -> Tensor:
        """Return F_β [B] with the gradient of the weights (LeCun 2022, equation 12).

        Args: s_x, a, s_y: as for `D`; beta, learn: as for `Latent.free_energy`.
        """
        return self.latent.free_energy(self.D(s_x, a, s_y), (s_x, s_y), beta, learn)

    def energy(self, x: Tensor, y: Tensor, z: Tensor, a: Tensor | None = None) -> Tensor:
        """Return E(x, y, z) [B, K] of candidates z [B or 1, K, Z] (LeCun 2022, equation 10)."""
        s_x, s_y = self.encode(x, y)
        return self.E(s_x, _action(s_x, a), s_y)(z)

    @torch.no_grad()
    def infer(self, x: Tensor, y: Tensor, a: Tensor | None = None) -> Minimum:
        """Return ž, F(x, y) and the trace of the inference, without gradient (LeCun 2022, equations 11 and 12)."""
        s_x, s_y = self.encode(x, y)
        return self.minimum(s_x, _action(s_x, a), s_y)

    def predictions(self, x: Tensor, z: Tensor, a: Tensor | None = None) -> Tensor:
        """Return s̃_y [B, K, D] for candidates z [B or 1, K, Z]: the set of plausible predictions (section 4.4)."""
        s_x = _floating("encoder", self.encoder(x), (len(x),))
        return self.step(s_x.unsqueeze(1), _action(s_x, a).unsqueeze(1), z)

    @property
    def generative(self) -> bool:
        """Whether y itself is predicted."""
        return isinstance(self.target_encoder, Identity)


class Checked:
    """A step whose result is checked; of the trajectories `rows(index)`, where it is bound to something of theirs."""

    def __init__(self, step: Step) -> None:
        """Args: step: (s, a, z) -> s̃, a predictor or what one is bound to."""
        self._step = step

    def __call__(self, s: Tensor, a: Tensor, z: Tensor) -> Tensor:
        """Return s̃ [B, K, D]. Raises: ValueError if the step returns anything else."""
        return _predicted(self._step, s, a, z)

    def rows(self, index: Tensor) -> Checked:
        """Return the step of the trajectories `index` [n], of which some may be left out and others repeated."""
        rows = getattr(self._step, "rows", None)
        return self if rows is None else Checked(rows(index))


def _predicted(step: Step, s: Tensor, a: Tensor, z: Tensor) -> Tensor:
    """Return s̃ [B, K, D] of a step. Raises: ValueError if it returns anything else."""
    batch, candidates = (max(part.shape[axis] for part in (s, a, z)) for axis in (0, 1))
    return _floating("predictor", step(s, a, z), (batch, candidates))


def _action(s: Tensor, a: Tensor | None) -> Tensor:
    """Return the actions [B, A], of width 0 where there are none. Raises: ValueError for another shape."""
    if a is None:
        return s.new_zeros(len(s), 0)
    if a.ndim != 2 or (len(s) > 1 and len(a) not in (1, len(s))):
        raise ValueError(f"a: expected [{len(s)}, A] as for x, found {list(a.shape)}")
    return a


def _floating(name: str, found: Tensor, sizes: tuple[int, ...]) -> Tensor:
    """Return what a module made. Raises: ValueError unless it is a floating-point tensor [*sizes, D]."""
    if isinstance(found, Tensor) and found.is_floating_point() and found.shape[:-1] == sizes:
        return found
    what = f"{found.dtype} {list(found.shape)}" if isinstance(found, Tensor) else type(found).__name__
    expected = ", ".join(map(str, (*sizes, "D")))
    raise ValueError(f"{name}: expected floating-point numbers [{expected}], found {what}")
