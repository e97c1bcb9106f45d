"""Joint Embedding Predictive Architectures: one energy, three minimizations.

Inference minimizes the energy over the latent z, planning over actions, learning over weights. One step (s, a, z) → s̃
is what pairs, trajectories, levels and plans are made of.

JEPA                 Two encoders and a predictor with a latent: encode, step, D, energy, infer, and F by calling it.
Latent               What every latent variable has: z, R(z), and all the ways in which z is inferred.
Pairs                A batch of contexts x, actions a and targets y, with the factors that made them.
Trajectories         A batch of sequences: T + 1 frames, T actions, and what does not change.
transitions          The B · T pairs that trajectories are made of.
windows              Windows of consecutive frames side by side: what a level above sees of the codes below.
rollout              A step, repeated T times, for K candidates at once.
Step                 (s, a, z) → s̃, all with a candidate axis: what a predictor is.
HJEPA                Levels, each a JEPA on windows of the codes below it, with the clock of each.
Window               What a level sees of the level below.
MapReader            A predictor that reads a map where the state is, bound to it once.
MapCode              A predictor that is told a map as one vector.
Abstract             A predictor of an upper level that plans, whose latent is an abstract action.
Recurrent            A predictor that is told no map: a gated recurrent unit whose memory is the state.
Shifted              A predictor that sees the last codes side by side and predicts the next one.
Pooled               An encoder of windows of codes: pooling over time.
Keypoints            An encoder whose code holds locations: the centers of heat maps.
Strided              A plain convolutional encoder of pictures of any size.
separate             What stays the same in several pictures of a scene, and what each adds to it.
moving               What pictures add to a static part that is known.
Cost                 Candidates → values: what a minimizer is given, of latents and of plans alike.
Minimum              Where a minimizer ended: argmin, value and trace.
exhaustive           The minimizer that tries all candidates.
gradient             The minimizer that descends from several restarts.
fista                The minimizer of a smooth cost plus a penalty.
cem                  The minimizer that fits a normal distribution to the best samples, again and again.
mppi                 The minimizer that averages samples, weighted by their costs.
Objective            (model, batch, progress) → Loss: what learning minimizes.
Loss                 The total that the optimizer descends, with its terms by name.
PairObjective        The energy of true pairs plus variance and covariance, with the expanders that only the loss sees.
Weights              The weights of these terms.
TrajectoryObjective  The energy of roll-outs plus the criteria against collapse, over batch and time.
Terms                The weights and constants of the terms that pairs do not have.
LevelsObjective      The sum of every level's own, for levels trained one after the other or all at once.
AbstractObjective    The energy of abstract actions at a price, plus the heads that say what can be at all.
fit                  The only optimizer loop: checkpoints, resumes to the bit, calls callbacks.
Train                Steps, batch and optimizer of a training.
Monitor              A callback that warns where an energy collapses, and names the criterion that is missing.
TrajectoryMonitor    The same for trajectories, where a code may hold what does not move.
LevelsMonitor        The same for every level of a hierarchy.
Drive                A world to look at: a car on a ring of roads, whose factors can be foreseen for different times.
Rooms                A world to act in: a dot among walls, seen from above, with tasks and episodes.
Maze                 Another one: a grid of rooms with doors and shut gates, with maps on which the gates look open.
Level                What is planned over: a step, a cost, a horizon and what an action may be.
Box                  What an action may be: limits per dimension, a greatest length, or both.
Plan                 What a planner returns: actions, imagined states, their value, and what was asked of the model.
plan                 Planning as the minimization of a cost over actions, by any of the minimizers.
tree                 Planning by breadth-first search, for ways around walls.
TreeSearch           What the tree is told.
servo                One-step control, proportional to the slope of the cost.
nearest              One-step control by the best of a few actions.
cost_to_go           How many steps it takes to a goal from everywhere, by a flood from the goal.
Search               What a search is told: moves, cells, how greedy and how much.
search               Planning by best-first search, where steps cost more than their number.
Distance             The cost of being away from a goal.
Value                The cost that a trained critic, or the cost to go, says.
Effort               The cost of acting.
weighted             A weighted sum of costs.
control              Many episodes at once: plan, act, look, and plan again where what is seen was not imagined.
Control              When that plans, and when an episode is at its goal.
Hierarchy            How levels go together: upper ones plan, the lowest pursues (`jepa.planning.hierarchical.control`).
Upper                An upper level: what plans it, and when the level below has met what it asks for.
Lower                The level that conditions are for, and how it pursues them.
Rules                When a condition is met, and when it is given up.
Searching            An upper level that plans by search, greedy or iterated with the level below.
Rounds               How often the levels are iterated, and what a condition that is not met costs.
Sampling             An upper level that plans by the cross-entropy method, on the joint cost of both levels.
Descending           An upper level that plans by gradient descent on the joint cost.
with_task            The same hierarchy for a task that is set at plan time; nothing is trained anew.
Task                 A goal and what else is wanted, as cost modules.
Reach                The part of a task that says where to be at last.
Avoid                The part that forbids discs, or says what they cost.
Through              The part that wants a place passed.
Both                 The part that wants several places passed, in any order.
Late                 The part that wants the goal reached only after a time.
Little               The part that says what acting costs.
from_dataset         A source of batches from a torch Dataset.
from_loader          A source of batches from a DataLoader, which goes on after a cut to the bit.
dataset              Integer arrays on disk, verified and memory-mapped.

Each is imported from where it is when it is first asked for, so that `import jepa` costs nothing. Modules stand on
floors and import only from floors below; settings and runs (`jepa.runs`) and the laboratory (`jepa.lab`) stand on top,
and nothing of the science needs them.
"""

import importlib
from typing import Any

__version__ = "0.1.0"

_PUBLIC = {
    "JEPA": "jepa.model",
    "Latent": "jepa.latents.base",
    **dict.fromkeys(("Pairs", "Trajectories", "transitions", "windows"), "jepa.batches"),
    **dict.fromkeys(("rollout", "Step"), "jepa.predictors"),
    **dict.fromkeys(("HJEPA", "Window"), "jepa.hierarchy"),
    **dict.fromkeys(("MapReader", "MapCode"), "jepa.maps"),
    "Abstract": "jepa.abstract",
    **dict.fromkeys(("Recurrent", "Shifted"), "jepa.predictors"),
    "Pooled": "jepa.pooling",
    "Keypoints": "jepa.keypoints",
    "Strided": "jepa.strided",
    **dict.fromkeys(("separate", "moving"), "jepa.static"),
    **dict.fromkeys(("Cost", "Minimum", "exhaustive", "gradient", "fista", "cem", "mppi"), "jepa.minimize"),
    **dict.fromkeys(("Objective", "Loss"), "jepa.objectives.base"),
    **dict.fromkeys(("PairObjective", "Weights"), "jepa.objectives.pairs"),
    **dict.fromkeys(("TrajectoryObjective", "Terms"), "jepa.objectives.trajectories"),
    "LevelsObjective": "jepa.objectives.levels",
    "AbstractObjective": "jepa.objectives.abstract",
    **dict.fromkeys(("fit", "Train"), "jepa.train"),
    "Monitor": "jepa.monitor",
    **dict.fromkeys(("TrajectoryMonitor", "LevelsMonitor"), "jepa.trajectory_monitor"),
    "Drive": "jepa.worlds.drive",
    **dict.fromkeys(("Rooms", "Maze"), "jepa.worlds.rooms"),
    **dict.fromkeys(("Level", "Box", "Plan", "plan", "tree", "TreeSearch", "servo", "nearest"), "jepa.planning"),
    **dict.fromkeys(("cost_to_go", "Search", "search", "Distance", "Value", "Effort", "weighted"), "jepa.planning"),
    **dict.fromkeys(("control", "Control"), "jepa.planning"),
    **dict.fromkeys(("Hierarchy", "Upper", "Lower", "Rules", "Searching", "Rounds"), "jepa.planning.hierarchical"),
    **dict.fromkeys(("Sampling", "Descending", "with_task"), "jepa.planning.hierarchical"),
    **dict.fromkeys(("Task", "Reach", "Avoid", "Through", "Both", "Late", "Little"), "jepa.planning.tasks"),
    "from_dataset": "jepa.sources",
    "from_loader": "jepa.loaders",
    "dataset": "jepa.data",
}
__all__ = [*_PUBLIC]  # noqa: PLE0604


def __getattr__(name: str) -> Any:
    """Return a public name. Raises: AttributeError for another one."""
    if name not in _PUBLIC:
        raise AttributeError(f"module 'jepa' has no attribute {name!r}")
    return getattr(importlib.import_module(_PUBLIC[name]), name)


def __dir__() -> list[str]:
    """Return the public names."""
    return sorted(_PUBLIC)
