"""Episodes: dots that are acted on, seen in pictures."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Generator, Tensor

from jepa.worlds.base import shortened
from jepa.worlds.rooms.layouts import Layouts
from jepa.worlds.rooms.motion import COLLISIONS, move
from jepa.worlds.rooms.tasks import Tasks, checked_tasks


class Episodes:
    """A batch of episodes in rooms, which one can act in (`jepa.worlds.base.Acting`)."""

    def __init__(
        self,
        tasks: Tasks,
        picture: Callable[..., Tensor],
        limit: float,
        collisions: str = "push",
        generator: Generator | None = None,
        seen: Callable[[Layouts, Tensor], Layouts] | None = None,
    ) -> None:
        """Start N episodes.

        Args: tasks: N of them; picture: (layouts, positions [N, T, 2]) -> pictures [N, T, C, S, S]; limit: the longest
            step, in units; collisions, generator: as for `jepa.worlds.rooms.motion.move`; seen: (layouts, positions
            [N, 2]) -> layouts as they look to dots that are there, None where they look as they are.
        Raises: ValueError for tasks that cannot be done, an unknown name or a push without a generator.
        """
        if collisions not in COLLISIONS:
            raise ValueError(f"collisions: expected one of {', '.join(COLLISIONS)}, found {collisions!r}")
        if collisions == "push" and generator is None:
            raise ValueError("generator: expected one, for a push is random, found None")
        self.tasks, self.limit = checked_tasks(tasks), limit
        self._picture, self._seen, self._collisions, self._generator = picture, seen, collisions, generator
        self._positions, self._blocked = [tasks.start], []
        self._goal = self._drawn(tasks.goal)

    @property
    def goal(self) -> Tensor:
        """Pictures of the goals, [N, C, S, S], among walls as they look from where the dots are now.

        So the static part of such a picture and of what is observed has the walls of both.
        """
        return self._goal if self._seen is None else self._drawn(self.tasks.goal)

    @property
    def steps(self) -> int:
        """How many steps were made."""
        return len(self._blocked)

    @property
    def positions(self) -> Tensor:
        """Where the dots were, [N, t+1, 2] in units, the start first."""
        return torch.stack(self._positions, 1)

    @property
    def blocked(self) -> Tensor:
        """Which steps met something, [N, t], bool."""
        empty = self._positions[0].new_zeros(len(self._positions[0]), 0, dtype=torch.bool)
        return torch.stack(self._blocked, 1) if self._blocked else empty

    def observe(self) -> Tensor:
        """Return what is seen now, [N, C, S, S]: whole pictures, from which no static part is subtracted."""
        return self._drawn(self._positions[-1])

    def act(self, a: Tensor) -> Tensor:
        """Return what is seen after steps a [N, 2] in units, [N, C, S, S]; longer ones are shortened to the limit.

        Raises: ValueError for steps of another shape, or that are not finite.
        """
        step = shortened(a, self.limit, tuple(self.tasks.start.shape))
        position, blocked = move(self.tasks.layouts, self._positions[-1], step, self._collisions, self._generator)
        self._positions.append(position)
        self._blocked.append(blocked)
        return self.observe()

    def _drawn(self, positions: Tensor) -> Tensor:
        """Return pictures [N, C, S, S] of dots at positions [N, 2] among walls as they look now."""
        layouts = self.tasks.layouts
        seen = layouts if self._seen is None else self._seen(layouts, self._positions[-1])
        return self._picture(seen, positions.unsqueeze(1)).squeeze(1)
