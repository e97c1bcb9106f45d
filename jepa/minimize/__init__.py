"""Minimizers of a batched cost, shared by latent inference and by planning.

Every problem of a batch is minimized on its own. None of them follows gradients into the weights: call them under any
grad mode, inference mode included, then evaluate the cost once at the argmin (the envelope theorem: ∂F/∂w = ∂E/∂w at
ž). On an accelerator none waits for a number of the device, `fista` and a `tolerance` excepted.

Cost                 What is minimized, a function of candidates.
Minimum              Where every minimizer ends.
exhaustive           The best of the given candidates.
gradient             Gradient descent from several restarts.
refined              Gradient descent from one proposal.
multistart           Gradient descent from the best of fixed points.
cem                  The cross-entropy method: mean and spread follow the elites.
mppi                 The mean of samples, weighted by exp(−cost / temperature).
Elites, Softmin      What these two are told.
shifted              What is left of a plan after some steps.
fista                Accelerated proximal gradient, for a smooth cost plus a penalty.
Penalty              What such a penalty has to offer.
l1                   The penalty α Σ |z_i|.
ConvergenceWarning   What is warned of where a tolerance was not met.
"""

from jepa.minimize.base import ConvergenceWarning, Cost, Minimum
from jepa.minimize.exhaustive import exhaustive
from jepa.minimize.gradient import gradient, multistart, refined
from jepa.minimize.proximal import Penalty, fista, l1
from jepa.minimize.sampling import Elites, Softmin, cem, mppi, shifted

__all__ = [
    "ConvergenceWarning",
    "Cost",
    "Elites",
    "Minimum",
    "Penalty",
    "Softmin",
    "cem",
    "exhaustive",
    "fista",
    "gradient",
    "l1",
    "mppi",
    "multistart",
    "refined",
    "shifted",
]
