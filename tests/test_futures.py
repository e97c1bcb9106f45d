"""What models of the fork know, on models built by hand that are told the true state instead of frames."""

from __future__ import annotations

import itertools

import pytest
import torch
from conftest import BEFORE, Formula, Told, asked, codebook, every, generator, of_path, of_trees, told, values
from torch import nn

from jepa.encoded import encode
from jepa.encoders import Coupling, Identity
from jepa.evaluate import futures
from jepa.latents.continuous import LowDimensional
from jepa.latents.finite import Discrete
from jepa.model import JEPA, Representations


def apart(a, b):
    """Return the root of the mean squared distance over frames, of paths [..., T, 2], by a loop over frames."""
    return torch.stack([(a[..., t, :] - b[..., t, :]).square().sum(-1) for t in range(a.shape[-2])]).mean(0).sqrt()


EVEN = Told()


def test_each_code_stands_for_one_branch_at_most():
    def shared(s, z):
        """Return predictions of which two take turns to be branch 0."""
        first, second = every(EVEN, s).unbind(1)
        far, mine = first + 100, s[:, 2:3] > 0
        return torch.einsum(
            "bkc,bcd->bkd",
            z.expand(len(s), -1, -1),
            torch.stack([torch.where(mine, first, far), torch.where(mine, far, first), second], 1),
        )

    subject = told(shared, of_path(EVEN), 3)
    lane, branch = subject.held_out.factors["lane"][:, 0], subject.held_out.factors["branch"][:, 0]
    turns = [int(((branch == 0) & mine).sum()) for mine in (lane > 0, lane <= 0)]
    (row,) = futures.branches(subject)
    assert min(turns) > 30 and row.value == pytest.approx((max(turns) + int((branch == 1).sum())) / 300)


BRANCHED = {2: EVEN, 3: Told(turns=(-1, 0, 1), odds=(1, 2, 5))}


@pytest.mark.parametrize("rows", [
    ((1, 0), (0, 1)), ((0, 1), (1, 0)), ((0.5, 0.5), (0, 1), (1, 0)),  # every branch has a code
    ((1, 0, 0),), ((1, 0, 0), (0, 0, 1)), ((0, 1, 0), (0, 1, 0), (0, 1, 0)),
])  # fmt: skip
def test_codes_name_as_many_branches_as_they_predict(rows):
    world = BRANCHED[len(rows[0])]
    subject = told(codebook(world, *rows), of_path(world), len(rows), world)
    drawn = codebook(world, *rows)(subject.held_out.x, torch.eye(len(rows))[None])
    chosen = [int((each - y[:4]).square().sum(1).argmin()) for each, y in zip(drawn, subject.held_out.y, strict=True)]
    branch = subject.held_out.factors["branch"][:, 0].tolist()
    hits = [
        sum(names[code] == m for code, m in zip(chosen, branch, strict=True))
        for names in itertools.permutations([*range(world.branches), *[None] * len(rows)], len(rows))
    ]  # by the branch that each code stands for, if any
    assert futures.branches(subject) == [("branch_accuracy", pytest.approx(max(hits) / 300), 300)]
    assert (max(hits) == 300) == (world is EVEN)


@pytest.mark.parametrize("rows", [
    ((1, 0), (0, 1)), ((0, 1), (1, 0)), ((0.5, 0.5),) * 2, ((1, 0),), ((0.5, 0.5),), ((1, 0), (0.5, 0.5), (0, 1)),
])  # fmt: skip
def test_errors_and_recall_are_those_of_the_paths(rows):
    """The paths are known; the probe reads them to a tenth of a unit."""
    subject = told(codebook(EVEN, *rows), of_path(EVEN), len(rows))
    ways, truth = EVEN.futures(subject.held_out.factors), EVEN.positions(subject.held_out.factors)[:, None, 2:]
    drawn = torch.einsum("km,bmtd->bktd", torch.tensor(rows).float(), ways)
    gaps = apart(drawn[:, :, None], ways[:, None])  # [B, K, M]
    found = values(futures.predictions(subject))
    assert found["decoded_error"] == pytest.approx(float(apart(drawn, truth).amin(1).mean()), rel=0.1, abs=0.15)
    assert found["future_error"] == pytest.approx(float(gaps.amin(2).amax(1).mean()), rel=0.1, abs=0.15)
    least = gaps.amin(1)
    unclear = float(((least - 1).abs() < 0.15).double().mean())
    assert found["mode_recall"] == pytest.approx(float((least <= 1).double().mean()), abs=unclear + 1e-9)
    widest = apart(drawn[:, :, None], drawn[:, None]).flatten(1).amax(1)
    assert found["future_separation"] == pytest.approx(float(widest.mean()), rel=0.03)
    counts = {row.metric: row.count for row in futures.predictions(subject)}
    assert counts == {"decoded_error": None, "future_error": None, "mode_recall": 600, "future_separation": None}


def test_future_is_met_within_a_unit_of_length():
    for off, recall in ((0.6, 1.0), (1.4, 0.0)):
        shift = torch.tensor([off, 0.0]).repeat(2)
        model = codebook(EVEN, (1, 0), (0, 1))
        found = values(futures.predictions(told(lambda s, z, by=shift, of=model: of(s, z) + by, of_path(EVEN))))
        assert found["mode_recall"] == pytest.approx(recall, abs=0.05)
        assert found["decoded_error"] == pytest.approx(off, abs=0.15)


def test_probe_reads_what_the_code_holds():
    every_part = {"path": of_path(EVEN), "trees": of_trees(EVEN)}
    nothing = lambda s, z: s.new_zeros(len(s), z.shape[1], 4)  # noqa: E731
    found = {name: values(futures.factors(told(nothing, part))) for name, part in every_part.items()}
    path, trees = found["path"], found["trees"]
    assert path["position_r2"] > 0.99 and path["branch_r2"] > 0.6 and path["branch_probe_accuracy"] > 0.97
    assert trees["texture_r2"] > 0.98 and path["texture_r2"] < 0.1
    assert trees["position_r2"] < 0.1 and trees["branch_r2"] < 0.1 and 0.3 < trees["branch_probe_accuracy"] < 0.7
    counts = {row.metric: row.count for row in futures.factors(told(nothing, of_path(EVEN)))}
    assert counts.pop("branch_probe_accuracy") == 300 and set(counts.values()) == {None}
    assert set(counts) == {f"{name}_r2" for name in (*BEFORE, "texture", "position", "branch", "probe")}


@pytest.mark.parametrize("kept", [(1,), (5, 0), range(6)])
def test_factors_are_read_one_by_one(kept):
    """The code is s_x and the best z where y is not encoded; here it is made to hold some of the factors."""
    predictor = Formula(lambda s, z: s.new_zeros(len(s), z.shape[1], 21))
    model = JEPA(Formula(lambda x: x[:, list(kept)]), Identity(21), predictor, Discrete(2))
    found = values(futures.factors(asked(EVEN, model)))
    for n, name in enumerate(BEFORE):
        assert found[f"{name}_r2"] > 0.98 if n in kept else found[f"{name}_r2"] < 0.1
    assert found["probe_r2"] == pytest.approx(sum(found[f"{name}_r2"] for name in BEFORE) / 6)


def test_code_is_what_y_is_rebuilt_from():
    subject = told(codebook(EVEN, (1, 0), (0, 1)), of_path(EVEN))
    s = subject.s
    assert torch.equal(futures.code(subject.model, s), s.s_y) and torch.equal(s.s_y, subject.held_out.y[:, :4])
    rebuilt = JEPA(subject.model.encoder, Identity(4), subject.model.predictor, subject.model.latent)
    branch = nn.functional.one_hot(subject.held_out.factors["branch"][:, 0], 2)
    found = futures.code(rebuilt, Representations(s.s_x, s.s_y))
    assert torch.equal(found, torch.cat([s.s_x, branch], 1))


def test_clips_are_encoded_in_parts():
    sizes = []
    x = torch.rand(600, 2, requires_grad=True)
    s = encode(Formula(lambda x: sizes.append(len(x)) or 2 * x), x)
    assert torch.equal(s, 2 * x) and not s.requires_grad
    assert sum(sizes) == 600 and max(sizes) <= 256


def test_measures_encode_once():
    seen, keep = [], of_path(EVEN)
    encoders = (Formula(lambda x: seen.append(len(x)) or x), Formula(lambda y: seen.append(len(y)) or keep(y)))
    subject = asked(EVEN, JEPA(*encoders, Formula(codebook(EVEN, (1, 0), (0, 1))), Discrete(2)))
    for ask in (futures.collapse, futures.factors, futures.branches, futures.predictions):
        ask(subject)
    assert sum(seen) == 2 * (300 + 600)


def test_codes_are_asked_of_a_latent_that_has_some():
    latent = LowDimensional(2, starts=2, steps=1)
    subject = told(lambda s, z: s[:, None, :4], of_path(EVEN), latent)
    what = "measure: expected a latent with codes for 'branches and predictions', found LowDimensional"
    for ask in (futures.branches, futures.predictions):
        with pytest.raises(ValueError, match=f"^{what}$"):
            ask(subject)


def test_branch_is_asked_of_a_world_that_has_two():
    bend = Told(turns=(0.5,), odds=(1,))
    subject = told(codebook(bend, (1.0,)), of_path(bend), 1, bend)
    for ask in (futures.branches, futures.factors):
        with pytest.raises(ValueError, match="^turns: expected at least 2 branches to tell apart, found 1$"):
            ask(subject)
    found = values(futures.predictions(subject))
    assert found["mode_recall"] == 1 and found["decoded_error"] < 0.15
    assert values(futures.collapse(subject))["auroc"] == 1


class Road(Told):
    """The same world, whose futures nobody counts."""

    branches = 0


def test_factors_are_read_where_futures_cannot_be_counted():
    nothing = lambda s, z: s.new_zeros(len(s), z.shape[1], 4)  # noqa: E731
    counted, open_ended = (values(futures.factors(told(nothing, of_path(EVEN), world=w))) for w in (EVEN, Road()))
    assert counted.keys() - open_ended.keys() == {"branch_r2", "branch_probe_accuracy"}
    for name, value in open_ended.items():  # the ridge of the probe is the same for each factor by itself
        assert value == pytest.approx(counted[name], abs=1e-6)


def test_context_is_what_s_x_holds():
    predict = codebook(EVEN, (1, 0), (0, 1))
    found = values(futures.context(told(predict, of_path(EVEN))))
    assert found["context_probe_r2"] > 0.98 and found["context_texture_r2"] < 0.1
    blind = JEPA(Formula(lambda x: x[:, :3]), of_path(EVEN), Formula(predict), Discrete(2))
    many = asked(EVEN, blind, **{"evaluation.samples": 4096})  # what the probe is wrong by falls with their number
    assert values(futures.context(many))["context_probe_r2"] == pytest.approx(0.5, abs=0.05)


def test_context_that_holds_the_texture_shows():
    subject = told(lambda s, z: s.unsqueeze(1), of_path(EVEN), 1)
    for name, part in (("s_probe", subject.probe_pairs), ("s", subject.held_out)):
        vars(subject)[name] = Representations(part.factors["texture_x"], part.y)
    found = values(futures.context(subject))
    assert found["context_texture_r2"] > 0.98 and found["context_probe_r2"] < 0.1


def test_pictures_of_an_invertible_encoder_are_read_at_half_their_size():
    encoder = Coupling((2, 32, 32), channels=2)
    frames = torch.rand(5, 2, 32, 32, generator=generator())
    with torch.no_grad():
        s = encoder(frames)
    found = futures.code(JEPA(None, encoder, None, Discrete(1)), Representations(s, s))
    pictures = s.view(5, 2, 16, 2, 16, 2).mean((3, 5)).flatten(1)
    torch.testing.assert_close(found, pictures)
