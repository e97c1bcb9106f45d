"""What a task says of levels below the one that plans for it, which know no progress."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from jepa.planning.level import Level, selected
from jepa.planning.passages import raised, with_passage
from jepa.planning.tasks.parts import Avoid
from jepa.planning.tasks.task import Task


def for_lowest(task: Task, level: Level) -> Level:
    """Return the lowest level with what the task's parts say of its single steps: `Avoid` repels, others are silent."""
    parts = [_Single(part, level) for part in task.parts if isinstance(part, Avoid)]
    return with_passage(level, *parts) if parts else level


def for_middle(task: Task, level: Level) -> Level:
    """Return a level between, which searches for what the highest asks for: it keeps out of discs, too."""
    parts = [_Single(part) for part in task.parts if isinstance(part, Avoid)]
    return with_passage(level, *parts) if parts else level


@dataclass(frozen=True)
class _Single:
    """A disc's say on steps of a level without progress; on those of the lowest, raised, as there."""

    part: Avoid
    lowest: Level | None = None

    def __call__(self, s: Tensor, after: Tensor, a: Tensor) -> Tensor:
        if self.lowest is None:
            return self.part.passage(s, after, a)
        return self.part.below(raised(self.lowest, s), raised(self.lowest, after), a)

    def rows(self, index: Tensor) -> _Single:
        return _Single(self.part.rows(index), None if self.lowest is None else selected(self.lowest, index))
