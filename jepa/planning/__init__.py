"""Planning: the minimization of a cost over actions, through the same step that learning trained (LeCun 2022, 3.1).

level        What is planned over (Level), what comes out (Plan), and `plan` for the minimizers of costs.
actions      What an action may be (Box).
minimizers   Gradient descent and given plans as minimizers; `partial(cem, …)` and `partial(mppi, …)` are minimizers.
tree         Breadth-first search over held actions, for what descent and sampling do not find: ways around walls.
search       Best-first search over cells of the representation, where steps cost more than their number.
togo         The cost to go from everywhere, by a flood from the goal.
costs        Cost modules that add up.
passages     What steps cost beyond their length, as cost modules that add up.
servo        One-step control.
toward       How a model sees episodes, and how far their goals are.
control      Plan, act and look, and plan again where what is seen is not what was imagined.
tasks        Tasks that are set at plan time: avoid, pass through, arrive late, as cost modules.
hierarchical Plans over several levels; its `control` is the counterpart of the one above.
"""

from jepa.planning.actions import Box
from jepa.planning.control import Control, Log, control, planners
from jepa.planning.costs import Distance, Effort, Value, to_go, weighted
from jepa.planning.growth import TreeSearch
from jepa.planning.level import Level, Plan, Tree, episodic, plan, selected
from jepa.planning.minimizers import Descent, Tried
from jepa.planning.passages import Passages, with_passage
from jepa.planning.search import Search, search
from jepa.planning.servo import moves, nearest, servo
from jepa.planning.togo import ToGo, cost_to_go
from jepa.planning.toward import toward
from jepa.planning.tree import tree

__all__ = [
    "Box",
    "Control",
    "Descent",
    "Distance",
    "Effort",
    "Level",
    "Log",
    "Passages",
    "Plan",
    "Search",
    "ToGo",
    "Tree",
    "TreeSearch",
    "Tried",
    "Value",
    "control",
    "cost_to_go",
    "episodic",
    "moves",
    "nearest",
    "plan",
    "planners",
    "search",
    "selected",
    "servo",
    "to_go",
    "toward",
    "tree",
    "weighted",
    "with_passage",
]
