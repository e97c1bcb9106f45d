"""Plans whose actions are each held for several steps: fewer numbers to find, as far to look."""

from __future__ import annotations

from torch import Generator, Tensor

from jepa.planning.level import Level, Minimizer, Plan, plan
from jepa.predictors import Step


def held(
    level: Level, s: Tensor, minimizer: Minimizer, hold: int, generator: Generator, start: Tensor | None = None
) -> Plan:
    """Return the plan of actions that are held for `hold` steps each; costs see the state at the end of each.

    Args: level, s, minimizer, generator, start: as for `plan`; the horizon is a multiple of hold.
    Returns: the plan in single steps, of which the states are those at the ends; an evaluation is a single step.
    Raises: ValueError for a hold that is below 1 or does not divide the horizon, and as `plan`.
    """
    if hold < 1 or level.horizon % hold:
        raise ValueError(f"hold: expected a divisor of the horizon {level.horizon}, found {hold}")
    shape = (len(s), level.horizon, level.actions.width)
    if start is not None and start.shape != shape:
        raise ValueError(f"start: expected {list(shape)}, found {list(start.shape)}")
    coarse = level._replace(step=repeated(level.step, hold), horizon=level.horizon // hold, stride=level.stride * hold)
    found = plan(coarse, s, minimizer, generator, None if start is None else start[:, ::hold])
    actions, states = (part.repeat_interleave(hold, 1) for part in (found.actions, found.states))
    return Plan(actions, states, found.length * hold, found.value, found.evaluations * hold)


def repeated(step: Step, times: int) -> Step:
    """Return the step that takes one and the same action several times."""

    def many(s: Tensor, a: Tensor, z: Tensor) -> Tensor:
        """Return s̃ [B, K, D] after all of them."""
        for _ in range(times):
            s = step(s, a, z)
        return s

    return many
