"""Tasks as sets of cost modules that are changed at plan time, with nothing trained anew (LeCun 2022, 3.2 and 4.7).

segments How near steps come to points.
parts   Reach a goal; Avoid discs; pass Through a place or Both of several; come Late; do Little.
task    A task turns a level into its own; Progress is what of it has been done.
lower   What levels below the one that plans are told: the lowest (`for_lowest`) and those between (`for_middle`).
"""

from jepa.planning.tasks.lower import for_lowest, for_middle
from jepa.planning.tasks.parts import Avoid, Both, Late, Little, Reach, Through
from jepa.planning.tasks.task import Progress, Task

__all__ = ["Avoid", "Both", "Late", "Little", "Progress", "Reach", "Task", "Through", "for_lowest", "for_middle"]
