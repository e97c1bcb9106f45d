"""Predictors Pred(s, a, z) = s̃, and their repeated application (LeCun 2022, equation 10).

A predictor takes the representation s [B, D], the action a [B, A] and latent candidates z [B, K, Z], and returns one
prediction per candidate, [B, K, D]. Without an action A = 0, without a latent Z = 0: zero-width tensors, never None.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from jepa.encoders import perceptron


class Identity(nn.Module):
    """No predictor: s̃ = s. With it a JEPA is a joint embedding architecture (LeCun 2022, figure 12)."""

    def __init__(self, inputs: int, outputs: int, action: int = 0, latent: int = 0) -> None:
        """Raises: ValueError unless inputs = outputs and there is neither action nor latent."""
        super().__init__()
        if inputs != outputs or action or latent:
            raise ValueError(
                "predictor: an identity expects inputs = outputs, no action and no latent, found "
                f"inputs {inputs}, outputs {outputs}, action {action}, latent {latent}"
            )

    def forward(self, s: Tensor, a: Tensor, z: Tensor) -> Tensor:
        """Return s as the one prediction of every candidate, [B, K, D]."""
        return s.unsqueeze(1).expand(-1, z.shape[1], -1)


class MLP(nn.Module):
    """A perceptron on (s, a, z) side by side; the share of (s, a) in the first layer is computed once for all z."""

    def __init__(
        self,
        inputs: int,
        outputs: int,
        action: int = 0,
        latent: int = 0,
        hidden: Sequence[int] = (64, 64),
        gain: float = 1.0,
    ) -> None:
        """Args: inputs, outputs, action, latent: widths of s, s̃, a and z; hidden: widths of the hidden layers;
        gain: of the last layer's first weights. With a small one all candidates begin alike.

        Raises: ValueError for an empty `hidden`, a hidden width below 1 or a gain ≤ 0.
        """
        super().__init__()
        if not hidden or min(hidden) < 1:
            raise ValueError(f"hidden: expected at least one width of at least 1, found {list(hidden)}")
        if not gain > 0:
            raise ValueError(f"gain: expected a number above 0, found {gain}")
        self.inputs, self.action, self.latent = inputs, action, latent
        self.first = nn.Linear(inputs + action + latent, hidden[0])
        self.rest = nn.Sequential(nn.SiLU(), perceptron([*hidden, outputs]))
        with torch.no_grad():
            self.rest[-1][-1].weight *= gain

    def forward(self, s: Tensor, a: Tensor, z: Tensor) -> Tensor:
        """Return s̃ [B, K, D] of s [B, D], a [B, A], z [B, K, Z] or [1, K, Z].

        Raises: ValueError for a width that does not fit.
        """
        _check_widths(self, s, a, z)
        known = self.inputs + self.action
        base = nn.functional.linear(torch.cat([s, a], -1), self.first.weight[:, :known], self.first.bias)
        return self.rest(base.unsqueeze(1) + z @ self.first.weight[:, known:].T)


class Additive(nn.Module):
    """A perceptron on (s, a) plus a dictionary, linear in z: s̃ = f(s, a) + W z (LeCun 2022, section 4.5).

    With columns of unit length a small z cannot stand for a large effect, and the L1 norm of z means something.
    """

    def __init__(
        self,
        inputs: int,
        outputs: int,
        action: int = 0,
        latent: int = 0,
        hidden: Sequence[int] = (64, 64),
        unit: bool = True,
    ) -> None:
        """Args: inputs, outputs, action, latent: widths of s, s̃, a and z; hidden: widths of f's hidden layers; unit:
        whether columns have length 1.

        Raises: ValueError for a latent of width 0, or a hidden width below 1.
        """
        super().__init__()
        if latent < 1:
            raise ValueError(f"latent: expected a width of at least 1, found {latent}")
        self.inputs, self.action, self.latent, self.unit = inputs, action, latent, unit
        self.known = perceptron([inputs + action, *hidden, outputs])
        self.columns = nn.Parameter(torch.randn(outputs, latent) / outputs**0.5)

    @property
    def dictionary(self) -> Tensor:
        """W [D, Z]."""
        return nn.functional.normalize(self.columns, dim=0) if self.unit else self.columns

    def forward(self, s: Tensor, a: Tensor, z: Tensor) -> Tensor:
        """Return s̃ [B, K, D] of s [B, D], a [B, A], z [B, K, Z] or [1, K, Z].

        Raises: ValueError for a width that does not fit.
        """
        _check_widths(self, s, a, z)
        return self.known(torch.cat([s, a], -1)).unsqueeze(1) + z @ self.dictionary.T


def rollout(predictor: nn.Module, s: Tensor, actions: Tensor, latents: Tensor) -> Tensor:
    """Return the predictions of T steps, s̃_{t+1} = Pred(s̃_t, a_t, z_t), s̃_0 = s (LeCun 2022, section 4.6).

    Args: predictor: (s, a, z) -> [B, K, D]; s: [B, D]; actions: [B, T, A]; latents: [B, T, Z].
    Returns: [B, T, D].
    Raises: ValueError if actions and latents differ in B or T.
    """
    if actions.shape[:2] != latents.shape[:2]:
        raise ValueError(
            f"latents: expected batch and steps {list(actions.shape[:2])}, found {list(latents.shape[:2])}"
        )
    states = []
    for a, z in zip(actions.unbind(1), latents.unbind(1), strict=True):
        s = predictor(s, a, z.unsqueeze(1)).squeeze(1)
        states.append(s)
    return torch.stack(states, 1)


def _check_widths(predictor: MLP | Additive, s: Tensor, a: Tensor, z: Tensor) -> None:
    """Raises: ValueError for a width that does not fit the predictor."""
    for name, tensor, width in (("s", s, predictor.inputs), ("a", a, predictor.action), ("z", z, predictor.latent)):
        if tensor.shape[-1] != width:
            raise ValueError(f"{name}: expected {width} features on the last axis, found shape {list(tensor.shape)}")
