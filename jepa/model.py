"""The joint embedding predictive architecture, and its baselines as configurations (LeCun 2022, section 4.4).

    E(x, y, z) = D(Enc_y(y), Pred(Enc_x(x), z)) + R(z)            equation 10

| architecture                      | Enc_x    | Enc_y    | predictor | latent |
|-----------------------------------|----------|----------|-----------|--------|
| JEPA                              | any      | any      | any       | any    |
| generative latent-variable model  | any      | identity | any       | any    |
| auto-encoder (context = y)        | narrow   | identity | decoder   | none   |
| joint embedding                   | any      | any      | identity  | none   |
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor, nn

from jepa.encoders import Identity
from jepa.energy import energy, free_energy
from jepa.latents.interface import LatentVariable
from jepa.minimize import Cost, Minimum, refined


class Representations(NamedTuple):
    """What the two encoders make of a pair."""

    s_x: Tensor  # [B, D_x]
    s_y: Tensor  # [B, D]

    def first(self, count: int) -> Representations:
        """Return the first pairs."""
        return Representations(self.s_x[:count], self.s_y[:count])


class JEPA(nn.Module):
    """Two encoders, a predictor with a latent, and the expanders that only the loss sees."""

    def __init__(
        self,
        encoder_x: nn.Module,
        encoder_y: nn.Module,
        predictor: nn.Module,
        latent: LatentVariable,
        expanders: tuple[nn.Module, nn.Module] | None = None,
        inference: nn.Module | None = None,
    ) -> None:
        """Args: encoder_x, encoder_y: x -> s_x [B, D_x], y -> s_y [B, D] (the same module: shared weights);
        predictor: (s_x, a, z [B, K, Z]) -> [B, K, D]; latent: z; expanders: s_x -> v_x [B, E_x] and s_y -> v_y
        [B, E], None for identities; inference: (s_x, s_y) -> a proposal of z [B, Z], with the number of steps that
        `refine` it as an attribute if there are any; None to minimize over z.

        Raises: ValueError where finitely many values were to be refined by gradient descent.
        """
        super().__init__()
        self.encoder_x, self.encoder_y = encoder_x, encoder_y
        self.predictor, self.latent, self.inference = predictor, latent, inference
        if getattr(inference, "refine", 0) and latent.codes is not None:
            what = "expected 0 steps for a latent of finitely many values"
            raise ValueError(f"refine: {what}, found {inference.refine}")
        self.expander_x, self.expander_y = expanders or (nn.Identity(), nn.Identity())

    @property
    def generative(self) -> bool:
        """Whether y itself is predicted."""
        return isinstance(self.encoder_y, Identity)

    def encode(self, x: Tensor, y: Tensor) -> Representations:
        """Return s_x and s_y of x [B, …] and y [B, …]. Raises: ValueError if the batches differ."""
        if len(x) != len(y):
            raise ValueError(f"y: expected a batch of {len(x)} as for x, found {len(y)}")
        return Representations(self.encoder_x(x), self.encoder_y(y))

    def cost(self, s: Representations, a: Tensor | None = None) -> Cost:
        """Return the energy as a function of z alone, [B or 1, K, Z] -> [B, K] (LeCun 2022, equation 10)."""

        def at(z: Tensor) -> Tensor:
            """Return D + R, with D the mean over what the predictor hears of z."""
            heard = self.latent.heard(z)  # [B or 1, K, J, Z]
            distances = energy(s.s_y, self.predict(s.s_x, heard.flatten(1, 2), a))
            return distances.unflatten(1, heard.shape[1:3]).mean(-1) + self.latent.regularize(z)

        return at

    def energy(self, x: Tensor, y: Tensor, z: Tensor, a: Tensor | None = None) -> Tensor:
        """Return E(x, y, z) [B, K] of candidates z [B or 1, K, Z] (LeCun 2022, equation 10)."""
        return self.cost(self.encode(x, y), a)(z)

    def infer(self, x: Tensor, y: Tensor, a: Tensor | None = None) -> Minimum:
        """Return ž, F(x, y) and the trace of the inference, without gradient (LeCun 2022, equations 11 and 12)."""
        with torch.no_grad():
            return self.minimum(self.encode(x, y), a)

    @torch.no_grad()
    def minimum(self, s: Representations, a: Tensor | None = None) -> Minimum:
        """Return ž, F and the trace for representations; a single context s_x [1, D_x] serves all targets.

        Where a network infers ž, its one proposal is taken, and refined as the network says.
        """
        cost = self.cost(s, a)
        if self.inference is None:
            return self.latent.infer(cost)
        z, _ = self.latent.project(self.inference(*s))
        return refined(cost, z, getattr(self.inference, "refine", 0))

    def free_energy(self, s: Representations, a: Tensor | None = None, beta: float = math.inf) -> Tensor:
        """Return F_β [B] with the gradient of the weights (LeCun 2022, equation 12).

        For β = ∞ that is the gradient of the energy at ž, held fixed (the envelope theorem); where a network infers
        ž, the gradient reaches that network too, and what its proposal costs is added.

        Args: s: representations; a: [B, A]; beta: inverse temperature, one over the energy's unit.
        Raises: ValueError for a finite beta where z has no finite list of values.
        """
        cost = self.cost(s, a)
        if not math.isinf(beta):
            if self.latent.codes is None or self.inference is not None:
                raise ValueError(f"beta: expected infinity, because this latent is not summed over, found {beta}")
            return free_energy(cost(self.latent.codes.unsqueeze(0)), beta)
        if self.inference is None:
            return cost(self.minimum(s, a).argmin.unsqueeze(1)).squeeze(1)
        z, price = self.latent.project(self.inference(*s))
        return cost(z.unsqueeze(1)).squeeze(1) + price

    def predictions(self, x: Tensor, z: Tensor, a: Tensor | None = None) -> Tensor:
        """Return s̃_y [B, K, D] for candidates z [B or 1, K, Z]: the set of plausible predictions (section 4.4)."""
        return self.predict(self.encoder_x(x), z, a)

    def predict(self, s_x: Tensor, z: Tensor, a: Tensor | None = None) -> Tensor:
        """Return s̃_y [B, K, D] of a representation s_x [B, D_x], candidates z [B or 1, K, Z] and actions [B, A]."""
        return self.predictor(s_x, s_x.new_zeros(len(s_x), 0) if a is None else a, z)
