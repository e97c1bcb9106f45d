"""A hierarchy made by hand that plans in mazes: it reads from its map, exactly enough, where a dot can go."""

from __future__ import annotations

from types import SimpleNamespace

import torch

from jepa.bound import Bound
from jepa.evaluate.mazes import Planning
from jepa.evaluate.scenes import PIXEL
from jepa.hierarchy import Clock
from jepa.streams import generator_for
from jepa.worlds.rooms.maze import RIM, Maze

ODDS = 10.0  # what its heads say for yes, and −ODDS for no
STRIDE = 8


class Known:
    """Codes are places in pictures of one pixel a unit. Steps end where the map shows a wall, or go along it."""

    def __init__(self, size):
        self.middle, self.eye = (size - 1) / 2, torch.eye(2)
        upper = SimpleNamespace(of="subgoal", latent=2, reach=PIXEL, network=None)
        upper.map = upper.fine = lambda static: static
        upper.bind = lambda static: Bound(self.far, static)
        upper.on = lambda maps, what: Bound({"doubts": self.doubts, "end": self.end}[what], maps)
        lowest = SimpleNamespace(representation=self.representation, bound=lambda static: Bound(self.step, static))
        self.levels = [lowest, SimpleNamespace(predictor=upper)]
        self.clocks = (Clock(1, 1), Clock(1, STRIDE))

    def representation(self, moved):
        """Return where dots are [N, 2], of pictures [N, 2, S, S] without walls: the mean place of what is seen."""
        dots, places = moved[:, 0], torch.arange(moved.shape[-1]) - self.middle
        x, y = (dots.sum(axis) @ places for axis in (1, 2))
        return torch.stack([x, y], -1) / dots.sum((1, 2)).unsqueeze(-1) * PIXEL

    def walls(self, maps, rows, s):
        """Return what share of a wall is at places s [B, K, 2], read between the pixels."""
        grid = s / PIXEL / self.middle
        return torch.nn.functional.grid_sample(maps[rows, 1:], grid.unsqueeze(2), align_corners=True)[:, 0, :, 0]

    def free(self, maps, rows, s, after, places=15):
        """Return whether the straight ways from s to `after` [B, K, 2] are free, but for where they begin, [B, K]."""
        ways = [torch.lerp(s, after, (number + 1) / places) for number in range(places)]
        return torch.stack([self.walls(maps, rows, place) for place in ways]).amax(0) < 0.5

    def step(self, maps, rows, s, a, z):
        """Return s̃: the whole step, or what of it goes along x or y, or none. Its two products are to be counted."""
        after = s.clone()
        for part in ([0.0, 1.0], [1.0, 0.0], [1.0, 1.0]):
            tried = s + PIXEL * a * torch.tensor(part)
            after = torch.where(self.free(maps, rows, s, tried, 3).unsqueeze(-1), tried, after)
        return after @ self.eye

    def far(self, maps, rows, s, a, z):
        """Return s̃ of level 2."""
        return (s + PIXEL * z) @ self.eye @ self.eye

    def doubts(self, maps, rows, s, after, z):
        """Return log odds that the straight way is free."""
        return torch.where(self.free(maps, rows, s, after), ODDS, -ODDS).unsqueeze(-1) @ torch.eye(1)

    def end(self, maps, rows, s, after, z):
        """Return log odds that the way is no longer than a stride."""
        return torch.where((after - s).norm(dim=-1) <= STRIDE * PIXEL, ODDS, -ODDS).unsqueeze(-1)


def codes(world, positions):
    """Return the codes of positions, in units, as `Known` sees them."""
    return (positions + RIM + 0.5 - world.size / 2 + 0.5) * PIXEL


def known(rooms=3, tasks=12, seed=0, **options):
    """Return a hierarchy made by hand, in a world with its tasks."""
    world = Maze(rooms=rooms, **options)
    drawn = world.tasks(tasks, torch.Generator().manual_seed(seed))
    return Planning(Known(world.size), world, drawn, 1.0, lambda purpose: generator_for("purpose", 0, purpose))
