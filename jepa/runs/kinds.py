"""Parts by name: a registry maps the names of a role to what builds them, or to where that is."""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Callable, Container, Mapping
from typing import Any

from jepa.runs.config import Part, checked, unknown


def make(what: str, part: Part, kinds: Mapping[str, Any], **given: Any) -> Any:
    """Return the part built from its options and from what it is given.

    Args: what: its role, for messages; part: name and options; kinds: name -> what builds it, or "module:object",
        imported only now; given: more arguments.
    Raises: ValueError for a kind or an option that does not exist.
    """
    if part.name not in kinds:
        raise unknown(what, part.name, kinds)
    kind = kinds[part.name]
    if isinstance(kind, str):
        module, name = kind.split(":")
        kind = getattr(importlib.import_module(module), name)
    check_options(what, part, kind, given)
    try:
        return kind(**given, **part.options)
    except TypeError as error:
        raise ValueError(f"{what}: {part.name!r} cannot be built from {dict(part.options)} ({error})") from error


def check_options(what: str, part: Part, kind: Callable, given: Container[str]) -> None:
    """Raises: ValueError for an option that a kind does not have, or whose value is of another type."""
    known = {key: item.default for key, item in inspect.signature(kind).parameters.items() if key not in given}
    for option, value in part.options.items():
        if option not in known:
            raise unknown(f"{what}: option of {part.name!r}", option, known)
        if known[option] not in (None, inspect.Parameter.empty):
            checked(known[option], value, None, f"{what}.{option}")  # raises for a value of another type
