"""How long the free energy of many pairs takes, and how many times faster all codes at once are than one by one.

A JEPA as in notebook 02, with K codes, on representations and from pixels. Both ways of trying the codes run in turns,
so that each repetition is a pair under the same load.

    python -m benchmarks.free_energy --pairs 10000 --codes 2 4 8 16
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable

import torch
from torch import Tensor

from jepa.encoded import representations
from jepa.model import JEPA, Representations
from jepa.runs import build
from jepa.runs.config import configure

CONFIG = {
    "world": "fork",
    "encoder": {"name": "convolutional", "outputs": 48},
    "target_encoder": {"name": "convolutional", "outputs": 48},
    "predictor": {"name": "mlp", "hidden": [256, 256]},
}


def at_once(model: JEPA, s: Representations) -> Tensor:
    """Return F [B], all codes tried in one batch."""
    return model.minimum(s.s_x, s.s_x[:, :0], s.s_y).value


@torch.no_grad()
def one_by_one(model: JEPA, s: Representations) -> Tensor:
    """Return F [B] by a loop over the codes."""
    E = model.latent.energy(model.D(s.s_x, s.s_x[:, :0], s.s_y))
    return torch.stack([E(code.view(1, 1, -1))[:, 0] for code in model.latent.codes]).amin(0)


def seconds(run: Callable[..., object], *arguments) -> float:
    """Return the seconds a call takes."""
    start = time.perf_counter()
    run(*arguments)
    return time.perf_counter() - start


def measure(model: JEPA, s: Representations, repetitions: int) -> tuple[float, float]:
    """Return the median seconds of all codes at once, and the median ratio to one after the other."""
    torch.testing.assert_close(at_once(model, s), one_by_one(model, s))
    both = [(seconds(at_once, model, s), seconds(one_by_one, model, s)) for _ in range(repetitions)]
    return statistics.median(a for a, _ in both), statistics.median(b / a for a, b in both)


def main() -> None:
    """Print a line for each number of codes."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--pairs", type=int, default=10_000)
    parser.add_argument("--codes", type=int, nargs="+", default=[2, 4, 8, 16])
    parser.add_argument("--repetitions", type=int, default=5)
    options = parser.parse_args()
    torch.set_num_threads(1)
    generator = torch.Generator().manual_seed(0)
    print("one thread; median seconds, and the ratio of one code after the other to all at once")
    for codes in options.codes:
        of = build.parts(configure(CONFIG, {"latent": {"name": "discrete", "size": codes}}), seed=0)
        model, pairs = of.model, of.world.sample(options.pairs, generator)
        encoding = [seconds(representations, model, pairs) for _ in range(options.repetitions)]
        s = representations(model, pairs)
        whole, ratio = measure(model, s, options.repetitions)
        batch, batch_ratio = measure(model, s.first(64), 20 * options.repetitions)
        print(
            f"K = {codes:2d}: {options.pairs} pairs {whole:.2f} s, ratio {ratio:.2f}; a batch of 64 "
            f"{1000 * batch:.2f} ms, ratio {batch_ratio:.2f}; encoding {statistics.median(encoding):.2f} s"
        )


if __name__ == "__main__":
    main()
