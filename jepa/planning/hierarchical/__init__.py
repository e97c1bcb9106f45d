"""Plans over several levels (LeCun 2022, section 4.7), each of which asks the one below for conditions.

course       Conditions that a lower level pursues one after the other: which is met, which is not.
pursuit      How it pursues them: the best of a few moves, or a plan of its own.
memory       What did not go as an upper level had foreseen, as a cost module on its transitions.
proposals    Greedy plans, and plans iterated between two levels.
joint        The actions of both levels optimized together, by sampling and by gradient.
planners     All of these as what `control` plans by.
control      Plan above, pursue below, look, and plan again: who replans when, for any number of levels.
"""

from jepa.planning.hierarchical.control import Hierarchy, Log, Settings, Upper, control
from jepa.planning.hierarchical.course import Course, Rules
from jepa.planning.hierarchical.joint import Sampled, descended, sampled
from jepa.planning.hierarchical.memory import Memory
from jepa.planning.hierarchical.planners import Descending, Sampling, Searching, with_task
from jepa.planning.hierarchical.proposals import Lower, Proposal, Rounds, propose
from jepa.planning.passages import Passages

__all__ = [
    "Course",
    "Descending",
    "Hierarchy",
    "Log",
    "Lower",
    "Memory",
    "Passages",
    "Proposal",
    "Rounds",
    "Rules",
    "Sampled",
    "Sampling",
    "Searching",
    "Settings",
    "Upper",
    "control",
    "descended",
    "propose",
    "sampled",
    "with_task",
]
