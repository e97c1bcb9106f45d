"""What the published procedure asks of its model, by arithmetic from its settings (EB-JEPA 2026, at 966e61e).

`planning_mppi.yaml`, `eval.yaml` and `planning.py`: an episode has 200 steps and none is left out when the goal is
reached; in each of them 20 iterations try 200 plans of min(90, steps left) steps. Each iteration encodes the present
picture again, once for each of the 200 plans. Layer normalizations, costs and the choice of plans are not counted.
"""

from __future__ import annotations

from jepa.evaluate.operations import Spent

STEPS, HORIZON, ITERATIONS, SAMPLES = 200, 90, 20, 200
HIDDEN, ACTION = 512, 2  # of the gated recurrent unit
CHANNELS, STACKS, SIZE = 2, (16, 32, 32), 65  # of the encoder, and pixels a side
WINDOW = 80.0  # milliseconds of a window of 17 frames of 65 × 65, recorded on another machine, on one contended core


def plan() -> tuple[int, int]:
    """Return the evaluations and encodings of the first plan."""
    return HORIZON * ITERATIONS * SAMPLES, ITERATIONS * SAMPLES


def episode() -> tuple[int, int]:
    """Return the evaluations and encodings of an episode, that of the goal included."""
    steps = sum(min(HORIZON, left) for left in range(1, STEPS + 1))
    return steps * ITERATIONS * SAMPLES, STEPS * ITERATIONS * SAMPLES + 1


def calls() -> int:
    """Return how often the unit is called in an episode, each time for a batch of 200."""
    return episode()[0] // SAMPLES


def spent() -> Spent:
    """Return the operations of an evaluation and of an encoding; no map is bound."""
    return Spent(2.0 * 3 * HIDDEN * (HIDDEN + ACTION), 2.0 * _encoder(), 0.0)


def _encoder() -> int:
    """Return the products of the Impala encoder for one picture.

    Each of three stacks has a convolution, a pooling to half the resolution and two residual blocks of two more,
    all 3 × 3. A linear layer of 512 follows.
    """
    total, wide, size = 0, CHANNELS, SIZE
    for narrow in STACKS:
        total += 9 * wide * narrow * size**2
        size = (size + 1) // 2
        total += 4 * 9 * narrow**2 * size**2
        wide = narrow
    return total + wide * size**2 * HIDDEN
