"""Checkpoints: tensors and numbers in a file, written all or nothing and read without executing code."""

from __future__ import annotations

import os
import pickle
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import nn


def save(path: Path | str, state: dict[str, Any]) -> None:
    """Write tensors and numbers to `path`, all or nothing: a kill or a full disk leaves the old file whole.

    Raises: OSError naming the file if it cannot be written.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        torch.save(state, temporary)
        os.replace(temporary, path)
    except (OSError, RuntimeError) as error:
        temporary.unlink(missing_ok=True)
        raise OSError(
            f"{path}: could not be written ({error}; most often the disk is full); "
            "the previous file, if any, is untouched"
        ) from error


def load(path: Path | str) -> dict[str, Any]:
    """Return what `save` wrote, without executing code. Raises: ValueError for a missing, damaged or foreign file."""
    path = Path(path)
    if not path.is_file():
        raise ValueError(f"{path}: expected a checkpoint, found no file")
    try:
        with zipfile.ZipFile(path) as archive:  # PyTorch writes check sums but does not compare them
            if broken := archive.testzip():
                raise ValueError(f"its part {broken} is damaged")
        state = torch.load(path, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, zipfile.BadZipFile, RuntimeError, OSError, EOFError, ValueError, KeyError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise ValueError(
            f"{path}: expected a checkpoint of tensors and numbers, found a damaged or foreign file ({reason}); "
            "delete it to train afresh"
        ) from error
    if not isinstance(state, dict) or "model" not in state:
        raise ValueError(f"{path}: expected a checkpoint with an entry 'model', found a foreign file; delete it")
    return state


def restore(module: nn.Module, state: dict[str, Any], path: Path | str, entry: str = "model") -> None:
    """Load the weights that `state` has under `entry` into a module, compiled parts into plain ones and back.

    Raises: ValueError if names or shapes do not fit.
    """
    with fitting(path, entry):
        own = {_plain(name): name for name in module.state_dict()}
        module.load_state_dict({own.get(_plain(name), name): value for name, value in state[entry].items()})


@contextmanager
def fitting(path: Path | str, what: str) -> Iterator[None]:
    """Let a checkpoint be read. Raises: ValueError naming the file if it does not fit, being of another `what`."""
    try:
        yield
    except (KeyError, ValueError, TypeError, AttributeError, RuntimeError) as error:
        reason = f"the checkpoint is of another {what} ({' '.join(str(error).split())[:300]})"
        raise ValueError(f"{path}: {reason}; name another file, or delete it to train afresh") from error


def _plain(name: str) -> str:
    """Return the name that a weight has where no part is compiled."""
    return name.replace("_orig_mod.", "")


def copy_weights(module: nn.Module, other: nn.Module, name: str) -> None:
    """Give a module the weights of another one. Raises: ValueError if names or shapes do not fit."""
    try:
        module.load_state_dict(other.state_dict())
    except RuntimeError as error:
        reason = " ".join(str(error).split())[:200]
        what = "expected the shape of the variant it is built on, found another"
        raise ValueError(f"{name}: {what} ({reason})") from error
