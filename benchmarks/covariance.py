"""How many times faster the covariance term is than the same term through the E × E matrix, as ratios from one run.

Three contestants compute C(v_x) + C(v_y) with both gradients, in turns, so that each repetition is a pair under the
same load: ours, the E × E form of the authors' code, and pytorch-metric-learning's VICRegLoss with only its covariance
weight.

    python -m benchmarks.covariance --features 256 2048 8192
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable

import torch
from pytorch_metric_learning.losses import VICRegLoss
from torch import Tensor

from jepa.objectives.vicreg import covariance

Term = Callable[[Tensor, Tensor], Tensor]


def dense(v: Tensor) -> Tensor:
    """Return C(v) for v [B, E] through the [E, E] covariance matrix, its diagonal cut out by a strided view."""
    size, features = v.shape
    x = v - v.mean(dim=0)
    matrix = x.T @ x / (size - 1)
    off_diagonal = matrix.flatten()[:-1].view(features - 1, features + 1)[:, 1:]
    return off_diagonal.square().sum() / features


def contestants() -> dict[str, Term]:
    """Return the three terms, each (v_x, v_y) -> scalar; ours comes first."""
    published = VICRegLoss(invariance_lambda=0, variance_mu=0, covariance_v=1)
    return {
        "ours": lambda v_x, v_y: covariance(v_x) + covariance(v_y),
        "E × E": lambda v_x, v_y: dense(v_x) + dense(v_y),
        "public": lambda v_x, v_y: published(v_x, ref_emb=v_y),
    }


def seconds(term: Term, v_x: Tensor, v_y: Tensor) -> tuple[float, float]:
    """Return the seconds that value and gradients take, and the value."""
    leaves = [v.clone().requires_grad_() for v in (v_x, v_y)]
    start = time.perf_counter()
    value = term(*leaves)
    value.backward()
    return time.perf_counter() - start, value.item()


def measure(size: int, features: int, repetitions: int) -> dict[str, list[float]]:
    """Return the seconds of each contestant in each repetition, the first of which is only a warm-up.

    Args: size: B; features: E; repetitions: how many are kept.
    Raises: RuntimeError if the contestants disagree on the value.
    """
    generator = torch.Generator().manual_seed(0)
    v_x, v_y = torch.randn(2, size, features, generator=generator)
    terms = contestants()
    times: dict[str, list[float]] = {name: [] for name in terms}
    for repetition in range(repetitions + 1):
        values = []
        for name, term in terms.items():
            elapsed, value = seconds(term, v_x, v_y)
            values.append(value)
            if repetition:
                times[name].append(elapsed)
        if max(values) - min(values) > 1e-3 * max(values):
            raise RuntimeError(f"the contestants disagree: {dict(zip(terms, values, strict=True))}")
    return times


def row(features: int, times: dict[str, list[float]]) -> str:
    """Return one line of the table: for each rival the ratio of the minima and the median of the paired ratios."""
    ours = times["ours"]
    cells = [f"{features:,}"]
    for rival in ("E × E", "public"):
        paired = statistics.median(theirs / own for theirs, own in zip(times[rival], ours, strict=True))
        cells += [f"{min(times[rival]) / min(ours):.1f}", f"{paired:.1f}"]
    return f"| {' | '.join(cells)} | {1000 * min(ours):.1f} |"


def main() -> None:
    """Print the table for the sizes on the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batch", type=int, default=256, help="samples in a batch, B")
    parser.add_argument("--features", type=int, nargs="+", default=[256, 512, 1024, 2048, 4096, 8192], help="sizes E")
    parser.add_argument("--repetitions", type=int, default=7, help="paired repetitions of each size")
    parser.add_argument("--threads", type=int, default=1, help="threads that torch may use")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    print("| E | E × E form, minimum | median | public, minimum | median | ours, ms |")
    print("|--:|--:|--:|--:|--:|--:|")
    for features in arguments.features:
        print(row(features, measure(arguments.batch, features, arguments.repetitions)), flush=True)


if __name__ == "__main__":
    main()
