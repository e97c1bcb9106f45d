"""Each purpose of a run draws from a stream of its own; what one measure draws moves no other."""

from __future__ import annotations

import itertools

import pytest
import torch
from conftest import Formula, changed, told

from jepa.evaluate import futures
from jepa.latents.finite import Discrete
from jepa.runs.run import run
from jepa.streams import generator_for, number

PURPOSES = ("weights", "batches", "pool", "probe pairs", "watched pairs", "volume", "invariance", "sparsity", "decoder")


def test_purposes_and_seeds_have_streams_of_their_own():
    seeds = [number("purpose", seed, purpose) for seed in range(20) for purpose in PURPOSES]
    assert len(set(seeds)) == len(seeds) and all(0 <= seed < 2**63 for seed in seeds)
    draws = [torch.rand(3, generator=generator_for("purpose", 0, purpose)).tolist() for purpose in PURPOSES]
    assert len({tuple(draw) for draw in draws}) == len(PURPOSES)


def test_streams_of_the_seed_are_all_the_same():
    for purpose in PURPOSES:
        generator = generator_for("seed", 5, purpose)
        assert torch.equal(
            torch.rand(3, generator=generator), torch.rand(3, generator=torch.Generator().manual_seed(5))
        )


@pytest.mark.parametrize("streams", ["purpose", "seed"])
def test_order_of_measures_moves_no_number_unless_they_share_a_stream(streams):
    def moved(*before):
        """Return a number that is drawn after other measures."""
        keep = Formula(lambda y: y[:, :4])
        subject = told(lambda s, z: s.new_zeros(len(s), z.shape[1], 4) + z, keep, Discrete(4), streams=streams)
        for name in before:
            getattr(futures, name)(subject)
        return next(row.value for row in futures.invariance(subject) if row.metric == "moved_energy")

    values = {moved(*order) for order in itertools.chain([()], [("factors",)], [("context",)])}
    assert (len(values) == 1) == (streams == "purpose")


def test_weights_and_batches_do_not_begin_alike(task, tmp_path):
    seed, purpose = (run(changed(task, streams=streams), tmp_path) for streams in ("seed", "purpose"))
    assert seed.folder != purpose.folder and seed.curve != purpose.curve
