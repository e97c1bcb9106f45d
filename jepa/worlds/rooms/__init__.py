"""Rooms: a dot among walls, seen from above.

`Rooms` and `Maze` are worlds; layouts, motion and pictures serve any rooms.
"""

from jepa.worlds.rooms.episodes import Episodes
from jepa.worlds.rooms.layouts import Layouts
from jepa.worlds.rooms.maze import Maze
from jepa.worlds.rooms.tasks import Tasks
from jepa.worlds.rooms.world import Rooms

__all__ = ["Episodes", "Layouts", "Maze", "Rooms", "Tasks"]
