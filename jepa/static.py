"""What stays the same in several pictures of a scene, and what moves in front of it."""

from __future__ import annotations

from torch import Tensor

TOLERANCE = 1e-4  # by how much a picture may fall below the static part
# the same where that is the minimum of but two pictures: what the tails of two near dots share of a pixel
OVERLAP = 0.1


def separate(pictures: Tensor) -> tuple[Tensor, Tensor]:
    """Return the pixelwise minimum over n pictures of a scene, and what each picture adds to it.

    It takes no labels of channels: what moves has to be brighter than what is behind it, and to leave every pixel once.

    Args: pictures: [B, n, C, S, S].
    Returns: static [B, C, S, S] and moving [B, n, C, S, S], at least 0.
    Raises: ValueError for pictures of another shape or none.
    """
    if pictures.ndim != 5 or pictures.shape[1] < 1:
        raise ValueError(f"pictures: expected [B, n, C, S, S] with n at least 1, found {list(pictures.shape)}")
    static = pictures.amin(1)
    return static, pictures - static.unsqueeze(1)


def moving(pictures: Tensor, static: Tensor, tolerance: float = TOLERANCE) -> Tensor:
    """Return what pictures [B, n, C, S, S] add to the static part [B, C, S, S] of their scenes, [B, n, C, S, S].

    Raises: ValueError for shapes that do not fit, or where a picture is darker than the static part by more than
        `tolerance`: then what was taken for static has moved.
    """
    if pictures.ndim != 5 or static.shape != pictures[:, 0].shape:
        found = f"{list(static.shape)} for pictures {list(pictures.shape)}"
        raise ValueError(f"static: expected [B, C, S, S] for pictures [B, n, C, S, S], found {found}")
    rest = pictures - static.unsqueeze(1)
    if rest.numel() and float(rest.amin()) < -tolerance:
        found = f"one {-float(rest.amin()):g} below, as if the static part had moved"
        raise ValueError(f"pictures: expected none darker than the static part by more than {tolerance:g}, {found}")
    return rest
