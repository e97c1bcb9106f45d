"""Parts by name: a registry maps the names of a role to what builds them, or to where that is."""

from __future__ import annotations

import difflib
import importlib
import inspect
import math
from collections.abc import Callable, Container, Mapping
from dataclasses import dataclass, field
from typing import Any, get_args


@dataclass(frozen=True)
class Part:
    """A part chosen by name, with the options of that kind."""

    name: str
    options: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def of(cls, settings: Mapping[str, Any]) -> Part:
        """Return the part of a flat mapping with `name` among its options. Raises: ValueError if there is no name."""
        if "name" not in settings:
            raise ValueError(f"part: expected a mapping with 'name', found {dict(settings)}")
        return cls(settings["name"], {key: value for key, value in settings.items() if key != "name"})

    def flat(self) -> dict[str, Any]:
        """Return the flat mapping that `of` reads."""
        return {"name": self.name, **self.options}


def make(what: str, part: Part, kinds: Mapping[str, Any], **given: Any) -> Any:
    """Return the part built from its options and from what it is given.

    Args: what: its role, for messages; part: name and options; kinds: name -> what builds it, or "module:object",
        imported only now; given: more arguments.
    Raises: ValueError for a kind or an option that does not exist.
    """
    kind = kind_of(what, part, kinds)
    check_options(what, part, kind, given)
    try:
        return kind(**given, **part.options)
    except TypeError as error:
        raise ValueError(f"{what}: {part.name!r} cannot be built from {dict(part.options)} ({error})") from error


def kind_of(what: str, part: Part, kinds: Mapping[str, Any]) -> Callable:
    """Return what builds a part, imported only now. Raises: ValueError for a kind that does not exist."""
    if part.name not in kinds:
        raise unknown(what, part.name, kinds)
    kind = kinds[part.name]
    if isinstance(kind, str):
        module, name = kind.split(":")
        kind = getattr(importlib.import_module(module), name)
    return kind


def parameters(what: str, part: Part, kinds: Mapping[str, Any]) -> frozenset[str]:
    """Return the names of what a part is built from. Raises: ValueError for a kind that does not exist."""
    return frozenset(inspect.signature(kind_of(what, part, kinds)).parameters)


def check_options(what: str, part: Part, kind: Callable, given: Container[str]) -> None:
    """Raises: ValueError for an option that a kind does not have, or whose value is of another type."""
    known = {key: item.default for key, item in inspect.signature(kind).parameters.items() if key not in given}
    for option, value in part.options.items():
        if option not in known:
            raise unknown(f"{what}: option of {part.name!r}", option, known)
        if known[option] not in (None, inspect.Parameter.empty):
            checked(known[option], value, None, f"{what}.{option}")  # raises for a value of another type


def checked(old: Any, value: Any, hint: Any, name: str) -> Any:
    """Return `value` as the type of the default it replaces; an integer may stand for a float, nothing else."""
    if isinstance(old, tuple) and isinstance(value, list | tuple):
        return tuple(checked(kind(), item, None, name) for item in value for kind in get_args(hint)[:1]) or tuple(value)
    if isinstance(old, float) and isinstance(value, int | float) and not isinstance(value, bool):
        if math.isnan(value):
            raise ValueError(f"{name}: expected a number, found nan")
        return float(value)
    if type(value) is not type(old):
        raise ValueError(f"{name}: expected {type(old).__name__}, found {value!r}")
    return value


def unknown(what: str, found: str, known: Any) -> ValueError:
    """Return the error for a name that does not exist: what it is, the nearest match and 99 known names at most."""
    known = sorted(map(str, known))
    close = difflib.get_close_matches(str(found), known, n=1)
    hint = f"; did you mean {close[0]!r}?" if close else ""
    return ValueError(f"{what}: expected one of {', '.join(known[:99]) or 'none'}, found {found!r}{hint}")
