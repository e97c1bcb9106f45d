"""What did not go as an upper level had foreseen, as a cost module on its transitions.

    passage(s, s') = weight · Σ_f exp(−(‖s − s_f‖² + ‖s' − s'_f‖²) / (2 σ²))

over the transitions (s_f, s'_f) that were asked for and not met, in the world or in imagination.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Memory:
    """Transitions of B episodes that failed; of states with more than D numbers the first D are compared."""

    failed: Tensor  # [B, F, 2, D] from and to
    known: Tensor  # [B, F] which of the F there are, bool
    weight: float = 10.0  # what the same transition costs more, in steps of the level
    spread: float = 2.5  # σ, in the unit of s

    @classmethod
    def empty(cls, s: Tensor, weight: float, spread: float) -> Memory:
        """Return a memory of nothing for episodes s [B, D]. Raises: ValueError for a weight < 0 or a spread ≤ 0."""
        if not (weight >= 0 and spread > 0):
            raise ValueError(f"weight, spread: expected at least 0 and above 0, found {weight} and {spread}")
        return cls(
            s.new_zeros(len(s), 0, 2, s.shape[1]), torch.zeros(len(s), 0, dtype=bool, device=s.device), weight, spread
        )

    def __call__(self, s: Tensor, after: Tensor, a: Tensor) -> Tensor:
        """Return what steps from s to `after` [B, K, D] cost, [B, K]."""
        if not self.failed.shape[1]:
            return s.new_zeros(s.shape[:2])
        width = self.failed.shape[-1]
        pair = torch.cat([s[..., :width], after[..., :width]], -1)  # [B, K, 2 D]
        apart = torch.cdist(pair, self.failed.flatten(2)).square()  # [B, K, F]
        near = torch.where(self.known.unsqueeze(1), (-apart / (2 * self.spread**2)).exp(), 0)
        return self.weight * near.sum(-1)

    def rows(self, index: Tensor) -> Memory:
        """Return the memory of the episodes index [n]."""
        return Memory(self.failed[index], self.known[index], self.weight, self.spread)

    def added(self, rows: Tensor, s: Tensor, after: Tensor) -> Memory:
        """Return the memory with transitions from s to `after` [n, D] of episodes rows [n], one each."""
        if not len(rows):
            return self
        count = self.known.sum(1)
        grown = max(self.failed.shape[1], int(count[rows].max()) + 1) - self.failed.shape[1]
        failed = torch.nn.functional.pad(self.failed, (0, 0, 0, 0, 0, grown))
        known = torch.nn.functional.pad(self.known, (0, grown))
        failed[rows, count[rows]], known[rows, count[rows]] = torch.stack([s, after], 1), True
        return Memory(failed, known, self.weight, self.spread)

    def replaced(self, rows: Tensor, other: Memory) -> Memory:
        """Return the memory with that of episodes rows [n] put in their places."""
        most = max(self.failed.shape[1], other.failed.shape[1])
        failed, theirs = (
            torch.nn.functional.pad(of.failed, (0, 0, 0, 0, 0, most - of.failed.shape[1])) for of in (self, other)
        )
        known, known_theirs = (torch.nn.functional.pad(of.known, (0, most - of.known.shape[1])) for of in (self, other))
        return Memory(
            failed.index_copy(0, rows, theirs), known.index_copy(0, rows, known_theirs), self.weight, self.spread
        )
