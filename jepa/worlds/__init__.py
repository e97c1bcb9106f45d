"""Worlds: ground truth whose factors are known, vectorized over thousands of episodes, on any device.

Each world states its factors by label: `predictable` (determined by x), `unpredictable` (a coin toss between x and y),
`irrelevant` (redrawn detail that nobody should keep).
"""

WORLDS = {  # name -> where it is, imported when it is made
    "plane": "jepa.worlds.plane:Plane",
    "fork": "jepa.worlds.fork:Fork",
    "crossing": "jepa.worlds.crossing:Crossing",
    "rooms": "jepa.worlds.rooms:Rooms",
    "maze": "jepa.worlds.rooms:Maze",
    "drive": "jepa.worlds.drive:Drive",
}
