"""Joint Embedding Predictive Architectures: one energy, three minimizations.

Inference minimizes the energy over the latent z, planning over actions, learning over weights. One step (s, a, z) → s̃
is what pairs, trajectories, levels and plans are made of.

JEPA            Two encoders and a predictor with a latent: encode, step, D, energy, infer, and F by calling it.
Latent          What every latent variable has: z, R(z), and all the ways in which z is inferred.
Pairs           A batch of contexts x, actions a and targets y, with the factors that made them.
Trajectories    A batch of sequences: T + 1 frames, T actions, and what does not change.
transitions     The B · T pairs that trajectories are made of.
windows         Windows of consecutive frames side by side: what a level above sees of the codes below.
rollout         A step, repeated T times, for K candidates at once.
Step            (s, a, z) → s̃, all with a candidate axis: what a predictor is.
Cost            Candidates → values: what a minimizer is given, of latents and of plans alike.
Minimum         Where a minimizer ended: argmin, value and trace.
exhaustive      The minimizer that tries all candidates.
gradient        The minimizer that descends from several restarts.
fista           The minimizer of a smooth cost plus a penalty.
Objective       (model, batch, progress) → Loss: what learning minimizes.
Loss            The total that the optimizer descends, with its terms by name.
PairObjective   The energy of true pairs plus variance and covariance, with the expanders that only the loss sees.
Weights         The weights of these terms.
fit             The only optimizer loop: checkpoints, resumes to the bit, calls callbacks.
Train           Steps, batch and optimizer of a training.
Monitor         A callback that warns where an energy collapses, and names the criterion that is missing.
from_dataset    A source of batches from a torch Dataset.
from_loader     A source of batches from a DataLoader, which goes on after a cut to the bit.
dataset         Integer arrays on disk, verified and memory-mapped.

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
    **dict.fromkeys(("Cost", "Minimum", "exhaustive", "gradient", "fista"), "jepa.minimize"),
    **dict.fromkeys(("Objective", "Loss"), "jepa.objectives.base"),
    **dict.fromkeys(("PairObjective", "Weights"), "jepa.objectives.pairs"),
    **dict.fromkeys(("fit", "Train"), "jepa.train"),
    "Monitor": "jepa.monitor",
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
