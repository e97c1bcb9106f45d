"""Which module builds the runs of an objective other than that of pairs."""

from __future__ import annotations

from types import ModuleType

from jepa.runs import levels, sequences
from jepa.runs.config import Config
from jepa.runs.kinds import unknown

MODULES = {"pairs": None, "trajectories": sequences, "levels": levels}  # by the objective's name


def own(config: Config) -> ModuleType | None:
    """Return the module that builds the runs of a configuration's objective, None for that of pairs.

    Raises: ValueError for an objective that does not exist, an option that pairs have not, or levels without the
        objective "levels" or the reverse.
    """
    name = config.objective.name
    if name not in MODULES:
        raise unknown("objective", name, MODULES)
    if name == "pairs" and config.objective.options:
        raise unknown("objective: option of 'pairs'", next(iter(config.objective.options)), ())
    if (name == "levels") != bool(config.levels):
        what = "expected levels with the objective 'levels', and only there"
        raise ValueError(f"levels: {what}, found {len(config.levels)} with {name!r}")
    return MODULES[name]
