"""How long it takes to infer z, in units of one prediction: wall clock beside the operations that notebook 04 counts.

A predictor as in notebook 04, untrained, on random representations. All ways of inference run in turns, so that each
repetition is a pair under the same load.

    python -m benchmarks.inference --pairs 512
"""

from __future__ import annotations

import argparse
import statistics
from typing import Any

import torch

from benchmarks.free_energy import seconds
from jepa.evaluate.inference import operations, prediction_operations
from jepa.model import JEPA, Representations
from jepa.runs import build
from jepa.runs.config import configure

WIDTH = 48
AMORTIZED = {"name": "amortized", "hidden": 128}
TWO, SPARSE = {"name": "low_dimensional", "size": 2}, {"name": "sparse", "size": WIDTH, "alpha": 0.2}
ADDITIVE = {"predictor": {"name": "additive", "hidden": [128, 128]}}
WAYS: dict[str, dict[str, Any]] = {
    "8 codes, all tried": {"latent": {"name": "discrete", "size": 8}},
    "two numbers, a network": {"latent": TWO, "inference": AMORTIZED},
    "the same, refined by 20 steps": {"latent": TWO, "inference": AMORTIZED | {"refine": 20}},
    "two numbers, 10 steps from the best of 64 starts": {"latent": TWO},
    "48 sparse numbers, LISTA of 5 layers": ADDITIVE | {"latent": SPARSE, "inference": "lista"},
    "48 sparse numbers, 50 steps of FISTA": ADDITIVE | {"latent": SPARSE},
}


def made(way: dict[str, Any]) -> JEPA:
    """Return a model of which only the latent and what is between the representations is used."""
    parts = {"encoder": {"name": "mlp", "outputs": WIDTH}, "target_encoder": {"name": "mlp", "outputs": WIDTH}}
    config = configure({"world": "plane", "predictor": {"name": "mlp", "hidden": [192, 192]}}, parts, way)
    return build.parts(config, seed=0).model.eval()


@torch.no_grad()
def ratios(model: JEPA, s: Representations, repetitions: int) -> tuple[float, float]:
    """Return the median ratio of the seconds of an inference and of a prediction, and the ratio of operations."""
    a, z = s.s_x[:, :0], s.s_x.new_zeros(1, 1, model.latent.width)
    acts = (lambda: model.minimum(s.s_x, a, s.s_y)), (lambda: model.step(s.s_x.unsqueeze(1), a.unsqueeze(1), z))
    for act in acts:
        act()
    pairs = [[seconds(act) for act in acts] for _ in range(repetitions)]
    return statistics.median(a / b for a, b in pairs), operations(model, s, a) / prediction_operations(model, s, a)


def main() -> None:
    """Print a line for each way of inference."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--pairs", type=int, default=512)
    parser.add_argument("--repetitions", type=int, default=31)
    options = parser.parse_args()
    torch.set_num_threads(1)
    s = Representations(*torch.randn(2, options.pairs, WIDTH, generator=torch.Generator().manual_seed(0)))
    print(f"one thread, {options.pairs} pairs; in units of one prediction")
    for name, way in WAYS.items():
        clock, counted = ratios(made(way), s, options.repetitions)
        print(f"{name:50} seconds {clock:6.1f}   operations {counted:6.1f}")


if __name__ == "__main__":
    main()
