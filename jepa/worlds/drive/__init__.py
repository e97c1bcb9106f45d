"""Drive: a car on a ring of roads, seen from above. `Drive` is the world, `oracle` says what can be foreseen in it."""

from jepa.worlds.drive.world import Drive

__all__ = ["Drive"]
