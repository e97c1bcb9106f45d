"""How long the energy landscape of one context takes on a grid, and how many times faster one context is than a copy of
it for every point.

    python -m benchmarks.landscape --points 200 --codes 8
"""

from __future__ import annotations

import argparse
import statistics
import time

import torch

from jepa.evaluate.landscapes import free_energy
from jepa.measures.landscape import Box, grid
from jepa.runs import build
from jepa.runs.config import configure

KINDS = {
    "y itself": {"target_encoder": "identity"},
    "s_y, 16 wide": {"target_encoder": {"name": "mlp", "outputs": 16}},
}


def main() -> None:
    """Print a line for each kind of target."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n\n")[0])
    parser.add_argument("--points", type=int, default=200, help="on each axis")
    parser.add_argument("--codes", type=int, default=8)
    parser.add_argument("--repetitions", type=int, default=20)
    options = parser.parse_args()
    torch.set_num_threads(1)
    print("one thread; median milliseconds, and the ratio of a context for every point to one for all")
    for name, kind in KINDS.items():
        config = configure({"world": "plane", "latent": {"name": "discrete", "size": options.codes}}, kind)
        of, x = build.parts(config, seed=0), torch.zeros(1, 2)
        model, points = of.model.eval(), grid(Box(*of.world.box()), options.points)
        once = free_energy(model, x)

        def copied(y: torch.Tensor, model=model, x=x) -> torch.Tensor:
            """Return F(x, y) with the context repeated for every target."""
            with torch.no_grad():
                s_x = model.encoder(x.expand(len(y), -1))
                return model.minimum(s_x, s_x[:, :0], model.target_encoder(y)).value

        torch.testing.assert_close(once(points), copied(points))
        times: dict[str, list[float]] = {"once": [], "copied": []}
        for _ in range(options.repetitions):
            for way, run in (("once", once), ("copied", copied)):
                start = time.perf_counter()
                run(points)
                times[way].append(time.perf_counter() - start)
        ratio = statistics.median(b / a for a, b in zip(times["once"], times["copied"], strict=True))
        print(f"{name}: {len(points)} points {1000 * statistics.median(times['once']):.1f} ms, ratio {ratio:.1f}")


if __name__ == "__main__":
    main()
