"""What a window of training data, a plan and an episode cost, beside the published procedure (EB-JEPA 2026).

Windows: our generator and the structure of the published one (`benchmarks.one_by_one`) take turns in one run. Plans:
seconds and evaluations are measured on a model that is trained first, for a short time, and operations are counted;
those of the published procedure follow from its settings (`benchmarks.published`), and so do its seconds from those of
one call of a recurrent unit of its size.

    python -m benchmarks.planning --train 180 --episodes 250
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable

import torch
from torch import Generator

from benchmarks import published
from benchmarks.one_by_one import KEPT, window
from jepa.evaluate.acting import Acting
from jepa.evaluate.operations import Spent, operations
from jepa.evaluate.planning import driven, learned, level_of, scored, tree_settings
from jepa.planning.costs import Distance
from jepa.planning.tree import tree
from jepa.predictors import Recurrent
from jepa.runs import build
from jepa.runs.config import configure
from jepa.train import fit
from jepa.worlds.rooms import Rooms, Tasks

CONFIG = {
    "world": "rooms",
    "encoder": "keypoints",
    "target_encoder": "shared",
    "predictor": "map_reader",
    "objective": {"name": "trajectories", "steps": 8, "similarity": 1.0, "delta": 0.0625},
    "loss": {"energy": 128.0, "variance": 16.0, "covariance": 8.0},
    "train": {"batch": 96, "rate": 6e-3, "decay": 1e-5, "clip": 2.0},
}
BATCH = 384  # windows at a time, as in the published training
ONES = 10  # windows one by one in each repetition
ENCODINGS = published.STEPS + 2  # of an episode: what is seen at first and after each step, and the goal


def seconds(act: Callable[[], object]) -> float:
    """Return the processor seconds of a call, which other programs on the machine change little."""
    start = time.process_time()
    act()
    return time.process_time() - start


def windows(size: int, policy: str, repetitions: int) -> tuple[float, float]:
    """Return the median milliseconds of a window of 17 frames: ours, and one by one; the two take turns."""
    world, generator = Rooms(size=size, policy=policy, subtract=False, group=1), Generator().manual_seed(0)
    torch.manual_seed(0)
    pairs = []
    for _ in range(repetitions + 1):
        ours = seconds(lambda: world.trajectories(BATCH, KEPT - 1, generator)) / BATCH
        pairs.append((ours, seconds(lambda: [window(size) for _ in range(ONES)]) / ONES))
    first, second = zip(*pairs[1:], strict=True)  # the first only warms up
    return 1e3 * statistics.median(first), 1e3 * statistics.median(second)


def trained(steps: int, tasks: int) -> tuple[Acting, Spent]:
    """Return a model after a short training with tasks, and what it takes of operations."""
    config = configure(CONFIG, {"train.steps": steps})
    of = build.parts(config, seed=0)
    fit(of.model, of.objective, of.sample, Generator().manual_seed(0), config.train)
    batch = of.sample(6, Generator().manual_seed(0))
    tasks = of.world.tasks(tasks, Generator().manual_seed(1))
    subject = Acting(of.model.eval(), of.world, tasks, 1.0, lambda purpose: Generator().manual_seed(2), of.sample)
    return subject, operations(of.model, batch.static, batch.frames[0])


@torch.no_grad()
def planned(subject: Acting, tasks: Tasks) -> tuple[float, float]:
    """Return seconds and evaluations per episode of the first plan, with its look, its map and its goal."""
    acting = subject.world.episodes(tasks, "push", Generator().manual_seed(0))
    search, _ = tree_settings(16, 1.0, published.STEPS, 40)
    found = []

    def act() -> None:
        """Make the plan."""
        agent, limit = learned(subject, acting.observe(), acting.goal), subject.world.step_limit
        level = level_of(agent.step, Distance(agent.goal), search.depth, limit)
        found.append(tree(level, agent.encode(acting.observe()), Generator().manual_seed(3), search))

    taken = seconds(act)
    return taken / len(tasks.start), float(found[0].evaluations.double().mean())


@torch.no_grad()
def driven_episodes(subject: Acting, tasks: Tasks) -> tuple[float, float, dict[str, float]]:
    """Return seconds and evaluations per episode, the world's own steps and pictures included, and what was scored."""
    search, settings = tree_settings(16, 1.0, published.STEPS, 40)
    acting = subject.world.episodes(tasks, "push", Generator().manual_seed(0))
    logs = []

    def act() -> None:
        """Do the episodes."""
        agent, limit = learned(subject, acting.observe(), acting.goal), subject.world.step_limit
        logs.append(driven(agent, acting, search, settings, limit, Generator().manual_seed(3)))

    taken = seconds(act)
    rows = {row.metric: row.value for row in scored([(logs[0], acting.positions, tasks)], "")}
    return taken / len(tasks.start), rows["evaluations"], rows


@torch.no_grad()
def one_call(repetitions: int = 30) -> float:
    """Return the median seconds of one call of a gated recurrent unit of the published size, for a batch of 200."""
    unit = Recurrent(published.HIDDEN, published.HIDDEN, published.ACTION)
    s, a = torch.randn(published.SAMPLES, 1, published.HIDDEN), torch.randn(published.SAMPLES, 1, published.ACTION)
    return statistics.median(seconds(lambda: unit(s, a, s[..., :0])) for _ in range(repetitions))


def of_windows(repetitions: int) -> None:
    """Print the table of windows."""
    print("| pixels a side | policy | one by one, ms | ours, ms | ratio | recorded 80 ms / ours |")
    print("|--:|---|--:|--:|--:|--:|")
    for size, policy in ((65, "published"), (33, "published"), (33, "mixed")):
        ours, other = windows(size, policy, repetitions)
        cells = f"{other:.1f} | {ours:.3f} | {other / ours:.0f} | {published.WINDOW / ours:.0f}"
        print(f"| {size} | {policy} | {cells} |", flush=True)


def of_plans(subject: Acting, each: Spent, alone: int = 5) -> None:
    """Print the table of plans and episodes. Args: alone: how many episodes are done one at a time."""
    theirs, call, tasks = published.spent(), one_call(), subject.tasks
    print(f"\n10³ operations: ours {_thousands(each)}; published {_thousands(theirs)}; a call {1e3 * call:.1f} ms\n")
    print("| each | at a time | evaluations | encodings | 10⁹ operations | seconds |")
    print("|---|--:|--:|--:|--:|--:|")
    singles = [Tasks(tasks.layouts.rows([row]), tasks.start[[row]], tasks.goal[[row]]) for row in range(alone)]
    for name, act, encodings, (evaluations, encoded) in (
        ("plan", planned, 2, published.plan()),
        ("episode", driven_episodes, ENCODINGS, published.episode()),
    ):
        act(subject, singles[0])  # warms up
        many, single = act(subject, tasks), [act(subject, task) for task in singles]
        took, asked = (statistics.mean(found[index] for found in single) for index in range(2))
        once = evaluations / published.SAMPLES * call
        for count, own, spent in ((len(tasks.start), many[1], many[0]), (1, asked, took)):
            print(_line(f"{name}, ours", count, own, encodings, 1e3 * each.teraflops(own, encodings), spent))
        print(_line(f"{name}, published", 1, evaluations, encoded, 1e3 * theirs.teraflops(evaluations, encoded), once))
        work = theirs.teraflops(evaluations, encoded) / each.teraflops(many[1], encodings)
        ratios = (evaluations / many[1], encoded / encodings, work)
        cells = " | ".join(f"{ratio:,.0f}" for ratio in ratios)
        print(f"| *published / ours* | | {cells} | {once / many[0]:,.0f}, alone {once / took:,.0f} |", flush=True)
    print("\nsolved: " + ", ".join(f"{name[8:]} {value:.3f}" for name, value in many[2].items() if "success" in name))


def _line(name: str, count: int, evaluations: float, encodings: float, billions: float, taken: float) -> str:
    """Return a line of the table."""
    return f"| {name} | {count} | {evaluations:,.0f} | {encodings:,.0f} | {billions:,.2f} | {taken:,.3f} |"


def _thousands(spent: Spent) -> str:
    """Return the operations of an evaluation, an encoding and a binding, in thousands."""
    names = ("an evaluation", "an encoding", "a map")
    return ", ".join(f"{name} {value / 1e3:,.0f}" for name, value in zip(names, spent, strict=True))


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--train", type=int, default=180, help="steps of the training before")
    parser.add_argument("--episodes", type=int, default=250, help="at a time")
    parser.add_argument("--repetitions", type=int, default=7)
    options = parser.parse_args()
    torch.set_num_threads(1)
    print("one thread; medians of processor time\n")
    of_windows(options.repetitions)
    of_plans(*trained(options.train, options.episodes))


if __name__ == "__main__":
    main()
