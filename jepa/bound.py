"""A step that is bound to what stays the same throughout a trajectory, such as a map (`Trajectories.static`)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor


class Bound:
    """A step (s, a, z) -> s̃ of B trajectories, of which B/G in a row share one of G static parts."""

    def __init__(self, step: Callable[..., Tensor], parts: Tensor, index: Tensor | None = None) -> None:
        """Args: step: (parts [G, …], rows [B], s [B, K, D], a, z) -> s̃ [B, K, D]; parts: [G, …] what was made of the
        static parts, once; index: [B] whose part each trajectory has, None for B/G in a row.
        """
        self._step, self._parts, self._index = step, parts, index

    def __call__(self, s: Tensor, a: Tensor, z: Tensor) -> Tensor:
        """Return s̃ [B, K, D] of s [B, K or 1, D], a [B or 1, K or 1, A] and z [B or 1, K or 1, Z].

        Raises: ValueError if B is no multiple of G, or another number than there are rows.
        """
        batch, candidates = (max(part.shape[axis] for part in (s, a, z)) for axis in (0, 1))
        return self._step(self._parts, self._rows(batch), s.expand(batch, candidates, -1), a, z)

    def rows(self, index: Tensor) -> Bound:
        """Return the step of the trajectories `index` [n], of which some may be left out and others repeated.

        Where one part serves several trajectories, `index` counts parts unless rows were chosen before.
        """
        return Bound(self._step, self._parts, index if self._index is None else self._index[index])

    def _rows(self, batch: int) -> Tensor:
        """Return whose part each of `batch` trajectories has."""
        if self._index is None:
            count = len(self._parts)
            if not count or batch % count:
                raise ValueError(f"static: expected a number of parts that divides the batch of {batch}, found {count}")
            return torch.arange(count, device=self._parts.device).repeat_interleave(batch // count)
        if batch != len(self._index):
            raise ValueError(f"s: expected a batch of {len(self._index)}, as rows were chosen, found {batch}")
        return self._index


def check_static(static: Any, shape: tuple[int, ...]) -> None:
    """Raises: ValueError unless `static` is [G, *shape]."""
    if not isinstance(static, Tensor) or static.shape[1:] != shape:
        found = list(static.shape) if isinstance(static, Tensor) else type(static).__name__
        raise ValueError(f"static: expected [G, {', '.join(map(str, shape))}], found {found}")
