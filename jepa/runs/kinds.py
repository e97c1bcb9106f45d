"""Parts by name: a registry maps the names of a role to what builds them, imported only when it is used."""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Mapping
from typing import Any

from jepa.runs.config import Part, checked, unknown


def make(what: str, part: Part, kinds: Mapping[str, str], **given: Any) -> Any:
    """Return the part built from its options and from what it is given; its module is imported only now.

    Args: what: its role, for messages; part: name and options; kinds: name -> "module:object"; given: more arguments.
    Raises: ValueError for a kind or an option that does not exist.
    """
    if part.name not in kinds:
        raise unknown(what, part.name, kinds)
    module, name = kinds[part.name].split(":")
    kind = getattr(importlib.import_module(module), name)
    known = {key: item.default for key, item in inspect.signature(kind).parameters.items() if key not in given}
    for option, value in part.options.items():
        if option not in known:
            raise unknown(f"{what}: option of {part.name!r}", option, known)
        if known[option] not in (None, inspect.Parameter.empty):
            checked(known[option], value, None, f"{what}.{option}")  # raises for a value of another type
    try:
        return kind(**given, **part.options)
    except TypeError as error:
        raise ValueError(f"{what}: {part.name!r} cannot be built from {dict(part.options)} ({error})") from error
