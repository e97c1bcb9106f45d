"""The settings of a level of a hierarchy."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from jepa.objectives.pairs import Weights
from jepa.objectives.trajectories import Terms
from jepa.runs.kinds import Part


def later(default: Any, absent: Any) -> Any:
    """Return a setting that came later than the first runs, which went as at the value `absent`: no key has it then."""
    return field(default=default, metadata={"absent": absent})


def at_least(section: str, settings: Any, **least: int) -> None:
    """Raises: ValueError for a setting below its least value."""
    for name, number in least.items():
        if not (value := getattr(settings, name)) >= number:
            full = f"{section}.{name}" if section else name
            raise ValueError(f"{full}: expected at least {number}, found {value!r}")


@dataclass(frozen=True)
class Level:
    """A level of a hierarchy (`jepa.hierarchy`): a JEPA on windows of the codes below, with an objective of its own."""

    width: int = 1  # of a window, in codes of the level below, of the lowest level in frames
    stride: int = 1  # from the start of a window to that of the next
    encoder: Part = Part("pooled")
    predictor: Part = Part("mlp")
    latent: Part = Part("none")
    expander: Part = Part("identity")
    loss: Weights = Weights()
    terms: Terms = Terms(horizon=1)
    weight: float = 1.0  # of its loss among those of all levels that are trained together
    heads: float = later(1.0, absent=1.0)  # weight of the heads of abstract actions, which no other predictor has

    def __post_init__(self) -> None:
        """Raises: ValueError for numbers that no level can have."""
        at_least("", self, width=1, stride=1, weight=0, heads=0)
