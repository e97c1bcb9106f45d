"""Predictors Pred(s, a, z) = s̃, and their repeated application (LeCun 2022, equation 10).

A predictor is a step: every argument has a candidate axis K, of size 1 where all candidates share it,

    (s [B or 1, K or 1, D], a [B or 1, K or 1, A], z [B or 1, K or 1, Z]) -> s̃ [B, K, D]

Without an action A = 0, without a latent Z = 0: zero-width tensors, never None.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from jepa.encoders import perceptron

Step = Callable[[Tensor, Tensor, Tensor], Tensor]  # (s, a, z) -> s̃ [B, K, D], all with a candidate axis


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
        return s.expand(*(max(part.shape[axis] for part in (s, a, z)) for axis in (0, 1)), -1)


class MLP(nn.Module):
    """A perceptron on (s, a, z) side by side; what (s, a) adds to the first layer is computed once for all z."""

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
        """Return s̃ [B, K, D] of s, a and z as above. Raises: ValueError for a width that does not fit."""
        known = self.inputs + self.action
        base = nn.functional.linear(_side_by_side(self, s, a, z), self.first.weight[:, :known], self.first.bias)
        return self.rest(base + z @ self.first.weight[:, known:].T)


class Additive(nn.Module):
    """A perceptron on (s, a) plus a dictionary, linear in z: s̃ = f(s, a) + W z (LeCun 2022, section 4.5).

    With atoms (columns of W) of unit length a small z cannot stand for a large effect, and the L1 norm of z means
    something.
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
        whether atoms have length 1.

        Raises: ValueError for a latent of width 0, or a hidden width below 1.
        """
        super().__init__()
        if latent < 1:
            raise ValueError(f"latent: expected a width of at least 1, found {latent}")
        self.inputs, self.action, self.latent, self.unit = inputs, action, latent, unit
        self.mean = perceptron([inputs + action, *hidden, outputs])
        self.atoms = nn.Parameter(torch.randn(outputs, latent) / outputs**0.5)

    @property
    def dictionary(self) -> Tensor:
        """W [D, Z]."""
        return nn.functional.normalize(self.atoms, dim=0) if self.unit else self.atoms

    def forward(self, s: Tensor, a: Tensor, z: Tensor) -> Tensor:
        """Return s̃ [B, K, D] of s, a and z as above. Raises: ValueError for a width that does not fit."""
        return self.mean(_side_by_side(self, s, a, z)) + z @ self.dictionary.T


class Shifted(nn.Module):
    """A perceptron on the last W codes side by side, which predicts the next one and drops the first.

    s̃ = (s_2, …, s_W, f(s_1, …, s_W, a, z)): a step of one code with a context of W.
    """

    def __init__(
        self,
        inputs: int,
        outputs: int,
        action: int = 0,
        latent: int = 0,
        frames: int = 1,
        hidden: Sequence[int] = (64, 64),
    ) -> None:
        """Args: inputs, outputs: W D; action, latent: widths of a and z; frames: W; hidden: of f's hidden layers.

        Raises: ValueError if inputs and outputs differ, or are no multiple of W.
        """
        super().__init__()
        if inputs != outputs or frames < 1 or inputs % frames:
            what = "expected inputs = outputs, codes side by side"
            raise ValueError(f"predictor: {what}, found {inputs}, {outputs} and {frames} frames")
        self.width = inputs // frames
        self.next = MLP(inputs, self.width, action, latent, hidden)

    def forward(self, s: Tensor, a: Tensor, z: Tensor) -> Tensor:
        """Return s̃ [B, K, W D] of s, a and z as above. Raises: ValueError for a width that does not fit."""
        new = self.next(s, a, z)
        return torch.cat([s[..., self.width :].expand(*new.shape[:-1], -1), new], -1)


class Recurrent(nn.Module):
    """A gated recurrent unit whose memory is the state, s̃ = GRU((a, z), s) (Cho et al. 2014)."""

    def __init__(self, inputs: int, outputs: int, action: int = 0, latent: int = 0, limit: float = 1.0) -> None:
        """Args: inputs, outputs: D; action, latent: widths of a and z; limit: what an action is divided by.

        Raises: ValueError if inputs and outputs differ, there is neither action nor latent, or limit ≤ 0.
        """
        super().__init__()
        if inputs != outputs or action + latent < 1 or not limit > 0:
            what = "expected inputs = outputs, something that drives it and a limit above 0"
            raise ValueError(f"predictor: {what}, found {inputs}, {outputs}, {action} + {latent}, {limit}")
        self.inputs, self.action, self.latent, self.limit = inputs, action, latent, limit
        self.unit = nn.GRUCell(action + latent, inputs)

    def forward(self, s: Tensor, a: Tensor, z: Tensor) -> Tensor:
        """Return s̃ [B, K, D] of s, a and z as above. Raises: ValueError for a width that does not fit."""
        together = _side_by_side(self, s, a, z)  # checks the widths
        batch, candidates = (max(part.shape[axis] for part in (together, z)) for axis in (0, 1))
        s, a, z = (part.expand(batch, candidates, -1).flatten(0, 1) for part in (s, a / self.limit, z))
        return self.unit(torch.cat([a, z], -1), s).unflatten(0, (batch, candidates))


def rollout(step: Step, s: Tensor, a: Tensor, z: Tensor) -> Tensor:
    """Return the predictions of T steps, s̃_{t+1} = Pred(s̃_t, a_t, z_t), s̃_0 = s (LeCun 2022, section 4.6).

    T = 1 is the step itself, to the bit.

    Args: step: (s, a, z) -> [B, K, D]; s: [B, K or 1, D]; a: [B or 1, K or 1, T, A]; z: [B or 1, K or 1, T, Z].
    Returns: [B, K, T, D].
    Raises: ValueError if a and z have other axes or differ in T, or if T is 0.
    """
    for name, tensor in (("a", a), ("z", z)):
        if tensor.ndim != 4 or tensor.shape[2] != a.shape[2] or tensor.shape[2] < 1:
            what = f"expected [B, K, T, width] with the same T of at least 1 in a {list(a.shape)} and z {list(z.shape)}"
            raise ValueError(f"{name}: {what}, found {list(tensor.shape)}")
    states = []
    for a_t, z_t in zip(a.unbind(2), z.unbind(2), strict=True):
        s = step(s, a_t, z_t)
        states.append(s)
    return torch.stack(states, 2)


def _side_by_side(predictor: MLP | Additive | Recurrent, s: Tensor, a: Tensor, z: Tensor) -> Tensor:
    """Return (s, a) [B, K or 1, D + A]. Raises: ValueError for a shape that does not fit the predictor."""
    for name, tensor, width in (("s", s, predictor.inputs), ("a", a, predictor.action), ("z", z, predictor.latent)):
        if tensor.ndim != 3 or tensor.shape[-1] != width:
            raise ValueError(f"{name}: expected [B, K, {width}], found {list(tensor.shape)}")
    batch, candidates = (max(s.shape[axis], a.shape[axis]) for axis in (0, 1))
    return torch.cat([s.expand(batch, candidates, -1), a.expand(batch, candidates, -1)], -1)


PREDICTORS = {  # by name
    "identity": Identity,
    "mlp": MLP,
    "additive": Additive,
    "shifted": Shifted,
    "recurrent": Recurrent,
    "map_reader": "jepa.maps:MapReader",
    "map_code": "jepa.maps:MapCode",
    "abstract": "jepa.abstract:Abstract",
}
