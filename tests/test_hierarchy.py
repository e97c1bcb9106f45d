"""Hierarchies: which frames a code speaks of, what is done in a step; one level is the plain JEPA to the bit."""

from __future__ import annotations

import math
from dataclasses import replace
from functools import partial

import pytest
import torch
from conftest import Formula, Normed, generator, normal, same
from hypothesis import given, settings
from hypothesis import strategies as st
from test_trajectories import FREE, LATENTS, made
from test_trajectories import batch as of_five
from torch import nn

from jepa.batches import Trajectories, windows
from jepa.encoders import MLP as Encoder
from jepa.encoders import Identity
from jepa.hierarchy import HJEPA, Clock, Window, codes
from jepa.latents.finite import NoLatent
from jepa.model import JEPA
from jepa.objectives.levels import LevelsObjective
from jepa.objectives.pairs import Weights
from jepa.objectives.trajectories import InverseDynamics, MovingTarget, Terms, TrajectoryObjective, encoded
from jepa.predictors import MLP as Predictor
from jepa.predictors import rollout
from jepa.train import Train, fit

STACKS = {  # windows of each level, (width, stride)
    "single frames": [(1, 1)],
    "pairs": [(2, 1)],
    "drive": [(2, 1), (8, 8), (4, 4)],
    "odd": [(3, 2), (2, 3)],
    "overlapping": [(4, 2), (3, 1), (2, 2)],
    "gaps on top": [(2, 2), (2, 5)],
    "gaps below": [(1, 2), (2, 1)],
    "gaps everywhere": [(2, 3), (2, 4), (1, 2)],
}
stacks = pytest.mark.parametrize("stack", STACKS.values(), ids=STACKS)
drawn = st.lists(st.tuples(st.integers(1, 4), st.integers(1, 4)), min_size=1, max_size=3)


def stacked(stack, inputs=2, outputs=3, action=0, hidden=(), encoder=Encoder) -> HJEPA:
    """Return a hierarchy in double precision, its encoders linear unless they are given hidden layers."""
    levels = []
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        for width, stride in stack:
            action *= stride
            made = encoder(inputs * width, outputs, hidden) if encoder is Encoder else encoder(inputs * width)
            inputs = made.outputs
            levels.append(JEPA(made, made, Predictor(inputs, inputs, action, 0, [6]), NoLatent()))
    return HJEPA(levels, [Window(*window) for window in stack]).double()


def clips(count, frames, action=0, inputs=2, seed=1) -> Trajectories:
    """Return random clips in double precision."""
    a = normal(count, frames - 1, action, seed=seed + 1)
    return Trajectories(normal(count, frames, inputs, seed=seed), a, a.new_zeros(count, 0), {})


def spoken(stack, level, code) -> set[int]:
    """Return the frames in a code of a level, window by window down to the frames."""
    if level == 0:
        return {code}
    width, stride = stack[level - 1]
    return set().union(*(spoken(stack, level - 1, code * stride + k) for k in range(width)))


def counted(stack, frames) -> list[int]:
    """Return how many codes each level has, by counting where a window begins that still fits."""
    counts = [frames]
    for width, stride in stack:
        counts.append(sum(start % stride == 0 and start + width <= counts[-1] for start in range(counts[-1])))
    return counts[1:]


def enough(stack, count=1) -> int:
    """Return the least number of frames that give the highest level so many codes."""
    return next(frames for frames in range(10**4) if counted(stack, frames)[-1] >= count)


def contiguous(stack) -> bool:
    """Return whether no frame is left out between those of a code."""
    return all(width >= stride for width, stride in stack[:-1])


# -- frames ------------------------------------------------------------------------------------------------------------


@given(drawn, st.integers(1, 60))
def test_clock_says_what_counting_says(stack, frames):
    clocks, counts = stacked_clocks(stack), counted(stack, frames)
    assert [clock.codes(frames) for clock in clocks] == counts
    for level, (clock, count) in enumerate(zip(clocks, counts, strict=True), 1):
        for code in range(count):
            seen = spoken(stack, level, code)
            assert (clock.first(code), clock.last(code)) == (min(seen), max(seen)) and max(seen) < frames
            if contiguous(stack[:level]):
                assert seen == {*range(clock.first(code), clock.last(code) + 1)} and len(seen) == clock.span
        assert clock.stride == min(spoken(stack, level, 1)) - min(spoken(stack, level, 0))
        assert max(spoken(stack, level, count)) >= frames  # one code more would not fit


def stacked_clocks(stack) -> tuple[Clock, ...]:
    """Return the clocks of a hierarchy whose parts do nothing."""
    part = nn.Identity()
    return HJEPA([JEPA(part, part, part, NoLatent()) for _ in stack], [Window(*window) for window in stack]).clocks


def test_clocks_of_three_levels_are_those_of_the_text():
    assert stacked_clocks(STACKS["drive"]) == (Clock(2, 1), Clock(9, 8), Clock(33, 32))
    assert [clock.last(2) for clock in stacked_clocks(STACKS["drive"])] == [3, 24, 96]


@settings(deadline=None, max_examples=30)
@given(drawn, st.integers(1, 20), st.integers(0, 4))
def test_codes_are_as_many_and_as_wide_as_counted_and_left_over_frames_are_left_out(stack, more, wide):
    frames = enough(stack) + more
    hierarchy, s = stacked(stack, outputs=wide + 1), clips(2, frames).frames
    found = hierarchy.encode(s)
    assert [part.shape for part in found] == [(2, count, wide + 1) for count in counted(stack, frames)]
    for level, (clock, part) in enumerate(zip(hierarchy.clocks, found, strict=True), 1):
        kept = clock.last(part.shape[1] - 1) + 1
        s[:, kept:] = math.nan
        assert torch.equal(hierarchy.bottom(level).encode(s)[-1], part)  # to the bit
        torch.testing.assert_close(hierarchy.bottom(level).encode(s[:, :kept])[-1], part, rtol=1e-12, atol=1e-12)
        s = clips(2, frames).frames


def test_codes_are_encoders_of_windows_by_hand():
    hierarchy, s = stacked(STACKS["odd"], hidden=(5,)), clips(2, 12).frames
    one, two = (level.encoder for level in hierarchy.levels)
    below, above = hierarchy.encode(s)
    for b in range(2):
        for n in range(5):
            expected = one(torch.cat([s[b, 2 * n], s[b, 2 * n + 1], s[b, 2 * n + 2]]))
            torch.testing.assert_close(below[b, n], expected, rtol=1e-12, atol=1e-12)
        for n in range(2):
            expected = two(torch.cat([below[b, 3 * n], below[b, 3 * n + 1]]))
            torch.testing.assert_close(above[b, n], expected, rtol=1e-12, atol=1e-12)


def test_pictures_lie_side_by_side_in_their_channels():
    s = normal(2, 5, 3, 4, 4)
    seen = stacked([(2, 3)]).seen(s, 1)
    assert seen.shape == (2, 2, 6, 4, 4)
    assert torch.equal(seen[:, 1], torch.cat([s[:, 3], s[:, 4]], 1))


def test_each_level_is_encoded_in_one_call():
    hierarchy, sizes = stacked(STACKS["drive"]), []
    for level in hierarchy.levels:
        level.encoder.register_forward_hook(lambda module, given, result: sizes.append(given[0].shape))
    hierarchy.encode(clips(5, 70).frames)
    assert sizes == [(5 * 69, 4), (5 * 8, 24), (5 * 2, 12)]


def reached(hierarchy, frames) -> list[torch.Tensor]:
    """Return for each level which codes change with a frame, [T, n]: each is changed in turn, and all else is not."""
    s = clips(1, frames).frames.expand(frames, -1, -1)
    moved = s + torch.eye(frames, dtype=s.dtype).unsqueeze(-1)
    with torch.no_grad():
        return [(a != b).any(-1) for a, b in zip(hierarchy.encode(moved), hierarchy.encode(s), strict=True)]


def check_reach(hierarchy, stack, frames):
    """Assert that every code depends on exactly the frames that it speaks of, and on none that is yet to come."""
    found = reached(hierarchy, frames)
    for level, (clock, changes) in enumerate(zip(stacked_clocks(stack), found, strict=True), 1):
        for code in range(clock.codes(frames)):
            seen = {*changes[:, code].nonzero().flatten().tolist()}
            assert max(seen) == clock.last(code), f"level {level}, code {code}: its last frame is {max(seen)}"
            assert seen == spoken(stack, level, code), f"level {level}, code {code}: {seen}"


@stacks
def test_a_code_depends_on_exactly_the_frames_that_it_speaks_of(stack):
    for more in (0, 1, 7):
        check_reach(stacked(stack), stack, enough(stack, 2) + more)


@stacks
@pytest.mark.parametrize("hidden", [(), (5,)])
def test_what_comes_later_changes_no_code_of_what_was(stack, hidden):
    frames = enough(stack, 3)
    hierarchy, s = stacked(stack, hidden=hidden), clips(2, frames).frames
    before = hierarchy.encode(s)
    for present in range(frames - 1):
        after = hierarchy.encode(torch.cat([s[:, : present + 1], clips(2, frames, seed=8).frames[:, present + 1 :]], 1))
        for clock, one, other in zip(hierarchy.clocks, before, after, strict=True):
            past = [clock.last(code) <= present for code in range(one.shape[1])]
            assert torch.equal(one[:, past], other[:, past])
            assert (one != other)[:, [not old for old in past]].any(-1).all()


class Late(HJEPA):
    """A hierarchy with a leak: one level sees windows that begin one code late."""

    late = 1

    def seen(self, s, level):
        """Return the windows."""
        return super().seen(s[:, 1:] if level == self.late else s, level)


class Batched(Normed):
    """A linear encoder, all of whose codes see each other, while it is trained."""

    def __init__(self, inputs):
        super().__init__(inputs)


@pytest.mark.parametrize("level", [1, 2])
def test_a_window_that_is_one_too_wide_is_caught(level):
    stack = [(2, 1), (3, 3)]
    wide = [(width + (number == level), stride) for number, (width, stride) in enumerate(stack, 1)]
    frames = enough(wide, 3)
    check_reach(stacked(wide), wide, frames)
    with pytest.raises(AssertionError, match=f"level {level}, code 0: its last frame"):
        check_reach(stacked(wide), stack, frames)


@pytest.mark.parametrize("level", [1, 2])
def test_a_window_that_begins_one_too_late_is_caught(level):
    stack = [(2, 1), (3, 3)]
    honest = stacked(stack)
    leak = Late(list(honest.levels), honest.windows)
    leak.late = level
    with pytest.raises(AssertionError, match=f"level {level}, code 0: its last frame"):
        check_reach(leak, stack, 14)


@pytest.mark.parametrize("training", [True, False])
def test_codes_that_see_each_other_in_their_batch_are_caught(training):
    hierarchy = stacked([(2, 1), (2, 2)], encoder=Batched).train(training)
    if training:
        with pytest.raises(AssertionError):
            check_reach(hierarchy, [(2, 1), (2, 2)], 8)
    else:
        check_reach(hierarchy, [(2, 1), (2, 2)], 8)


@stacks
def test_a_hierarchy_goes_on_from_codes_that_are_known(stack):
    hierarchy, s = stacked(stack, hidden=(5,)), clips(3, enough(stack, 2) + 1).frames
    every = hierarchy.encode(s)
    for below in range(1, len(stack) + 1):
        for one, other in zip(hierarchy.encode(every[below - 1], below), every[below:], strict=True):
            assert torch.equal(one, other)


def test_codes_come_some_clips_at_a_time_and_without_gradient():
    hierarchy, s = stacked(STACKS["odd"], hidden=(5,)), clips(7, 20).frames
    for chunk in (1, 3, 32):
        for one, other in zip(codes(hierarchy, s, chunk), hierarchy.encode(s), strict=True):
            torch.testing.assert_close(one, other, rtol=1e-12, atol=1e-12)
            assert other.requires_grad and not one.requires_grad


def test_the_lowest_levels_are_a_hierarchy_with_the_same_weights():
    whole, s = stacked(STACKS["drive"]).eval(), clips(2, 70).frames
    for count in (1, 2, 3):
        part = whole.bottom(count)
        assert part.clocks == whole.clocks[:count] and not part.training
        assert all(torch.equal(*pair) for pair in zip(part.encode(s), whole.encode(s)[:count], strict=True))
        ours, theirs = ([id(weight) for weight in of.parameters()] for of in (part, whole))
        assert ours == theirs[: len(ours)] and (len(ours) == len(theirs)) == (count == 3)


# -- actions -----------------------------------------------------------------------------------------------------------

TABLES = {  # of 12 frames, 0 to 11, and the action n from frame n to n + 1: codes as the frames side by side, and steps
    ((1, 1),): [
        ("0|1|2|3|4|5|6|7|8|9|10|11", "0|1|2|3|4|5|6|7|8|9|10"),
    ],
    ((2, 1), (3, 3)): [
        ("0 1|1 2|2 3|3 4|4 5|5 6|6 7|7 8|8 9|9 10|10 11", "1|2|3|4|5|6|7|8|9|10"),
        ("0 1 1 2 2 3|3 4 4 5 5 6|6 7 7 8 8 9", "3 4 5|6 7 8"),
    ],
    ((3, 2), (2, 3)): [
        ("0 1 2|2 3 4|4 5 6|6 7 8|8 9 10", "2 3|4 5|6 7|8 9"),
        ("0 1 2 2 3 4|6 7 8 8 9 10", "4 5 6 7 8 9"),
    ],
    ((2, 1), (2, 2), (2, 1)): [
        ("0 1|1 2|2 3|3 4|4 5|5 6|6 7|7 8|8 9|9 10|10 11", "1|2|3|4|5|6|7|8|9|10"),
        ("0 1 1 2|2 3 3 4|4 5 5 6|6 7 7 8|8 9 9 10", "2 3|4 5|6 7|8 9"),
        ("0 1 1 2 2 3 3 4|2 3 3 4 4 5 5 6|4 5 5 6 6 7 7 8|6 7 7 8 8 9 9 10", "4 5|6 7|8 9"),
    ],
    ((1, 2), (2, 2)): [
        ("0|2|4|6|8|10", "0 1|2 3|4 5|6 7|8 9"),
        ("0 2|4 6|8 10", "2 3 4 5|6 7 8 9"),
    ],
}  # fmt: skip


@pytest.mark.parametrize("stack", TABLES, ids=str)
def test_codes_and_actions_are_those_of_a_table(stack):
    hierarchy = stacked(stack, inputs=1, action=1, encoder=Identity)
    a, found = torch.arange(11.0).view(1, 11, 1), hierarchy.encode(torch.arange(12.0).view(1, 12, 1))
    for level, (frames, steps) in enumerate(TABLES[stack], 1):
        a = hierarchy.actions(a, level)
        for tensor, text in ((found[level - 1], frames), (a, steps)):
            assert tensor[0].tolist() == [[float(n) for n in row.split()] for row in text.split("|")]


@settings(deadline=None, max_examples=40)
@given(drawn, st.integers(2, 5), st.integers(0, 9), st.integers(0, 2))
def test_a_step_is_taken_by_what_is_done_from_the_last_frame_of_a_code_to_that_of_the_next(stack, count, more, width):
    frames = enough(stack, count) + more
    hierarchy, batch = stacked(stack, action=width), clips(2, frames, width)
    a = batch.a
    for level, (clock, s) in enumerate(zip(hierarchy.clocks, hierarchy.encode(batch.frames), strict=True), 1):
        a = hierarchy.actions(a, level)
        assert a.shape == (2, s.shape[1] - 1, clock.stride * width)  # one less than codes, whatever is left over
        for step in range(a.shape[1]):
            done = batch.a[:, clock.last(step) : clock.last(step + 1)]
            assert torch.equal(a[:, step], done.flatten(1)) and done.shape[1] == clock.stride


@stacks
def test_a_clip_of_one_code_has_no_step(stack):
    for frames in range(enough(stack), enough(stack, 2)):
        hierarchy, a, lone = stacked(stack, action=1), clips(2, frames, 1).a, counted(stack, frames).index(1) + 1
        for level in range(1, lone):
            a = hierarchy.actions(a, level)
        width, stride = stack[lone - 1]
        what = f"at least {width - 1 + stride} steps for one of level {lone}, found {a.shape[1]}"
        with pytest.raises(ValueError, match=f"^a: expected {what}$"):
            hierarchy.actions(a, lone)


@stacks
def test_what_a_level_learns_from_are_its_windows_and_its_actions(stack):
    hierarchy, batch = stacked(stack, action=2, hidden=(5,)), clips(3, enough(stack, 3), 2)
    every, a = [batch.frames, *hierarchy.encode(batch.frames)], batch.a
    for level, (width, stride) in enumerate(stack, 1):
        found, a = hierarchy.trajectories(batch, level), hierarchy.actions(a, level)
        assert torch.equal(found.frames, windows(every[level - 1], width, stride)) and torch.equal(found.a, a)
        assert found.static is batch.static and found.a.shape[1] == found.frames.shape[1] - 1
        assert torch.equal(encoded(hierarchy.levels[level - 1], found.frames), every[level])
        for done in range(1, level):
            below = batch
            for number in range(1, done + 1):
                below = below._replace(frames=every[number], a=hierarchy.actions(below.a, number))
            again = hierarchy.trajectories(below, level, done)
            assert torch.equal(again.frames, found.frames) and torch.equal(again.a, found.a)


def test_rollout_of_a_level_is_that_of_its_own_step():
    hierarchy = stacked(STACKS["odd"], action=2)
    for number, level in enumerate(hierarchy.levels, 1):
        s, a = normal(4, 1, 3), normal(4, 5, 3, level.predictor.action, seed=1)
        z = a.new_zeros(1, 1, 3, 0)
        assert torch.equal(hierarchy.rollout(number, s, a, z), rollout(level.step, s, a, z))


# -- one level ---------------------------------------------------------------------------------------------------------

EVERYTHING = Terms(0.1, 0.2, horizon=1, targets="moving", momentum=0.9, centered=True)


def objective_of(model, weights, extra, action=2) -> TrajectoryObjective:
    """Return an objective with all that its terms need, drawn from a seed."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(7)
        head = InverseDynamics(model.encoder.outputs, action, 4) if extra.inverse else None
        moving = MovingTarget(model.encoder, extra.momentum) if extra.targets == "moving" else None
        return TrajectoryObjective(weights, extra, head, moving=moving)


def ends(model, objective, sample):
    """Return all weights after a training, by names that a lowest level would have, and the curve of the total."""
    curve = fit(model, objective, sample, generator(5), Train(steps=4, batch=8, rate=0.01))
    one = isinstance(model, HJEPA)
    names = ("", "") if one else ("levels.0.", "objectives.0.")
    states = zip(names, (model.state_dict(), objective.state_dict()), strict=True)
    return {name + key: value for name, state in states for key, value in state.items()}, curve.terms["total"]


def walks(count, draws, steps=4):
    """Return trajectories of 5 numbers, 2 of which act."""
    return of_five(count, steps, draws)


@pytest.mark.parametrize("kind", LATENTS)
def test_codes_and_rollouts_of_one_level_of_single_frames_are_those_of_the_plain_model_to_the_bit(kind):
    plain, hierarchy, data = made(kind)[0], HJEPA([made(kind)[0]], [Window()]), of_five(6, 3)
    s, z = encoded(plain, data.frames), torch.randn(1, 1, 3, plain.latent.width, generator=generator())
    assert torch.equal(hierarchy.encode(data.frames)[0], s)
    step, given = plain.step, (s[:, :1], data.a.unsqueeze(1), z)
    assert torch.equal(hierarchy.rollout(1, *given), rollout(step, *given))


@pytest.mark.parametrize(
    ("kind", "extra"), [(kind, EVERYTHING) for kind in LATENTS] + [(kind, Terms()) for kind in FREE]
)
def test_training_of_one_level_of_single_frames_is_that_of_the_plain_model_to_the_bit(kind, extra):
    (plain, loss), level = made(kind), made(kind)[0]
    weights = replace(loss, energy=2.0, energy_start=0.5, variance=3.0, covariance=0.5)
    ours = ends(HJEPA([level], [Window()]), LevelsObjective([objective_of(level, weights, extra)]), walks)
    theirs = ends(plain, objective_of(plain, weights, extra), walks)
    assert same(ours[0], theirs[0]) and ours[1] == theirs[1] and ours[1][0] != ours[1][-1]
    start = {f"levels.0.{name}": value for name, value in made(kind)[0].state_dict().items()}
    assert start.keys() <= ours[0].keys() and not same(ours[0], ours[0] | start)


def test_one_level_of_pairs_of_frames_is_the_plain_model_on_pairs_of_frames_to_the_bit():
    def seen(count, draws):
        batch = walks(count, draws)
        return batch._replace(frames=windows(batch.frames, 2, 1), a=batch.a[:, 1:])

    hierarchy, weights = partial(stacked, [(2, 1)], inputs=5, action=2, hidden=(6,)), Weights(variance=3.0)
    ours, theirs = hierarchy().float(), hierarchy().float().levels[0]
    assert torch.equal(ours.encode(of_five(6, 4).frames)[0], encoded(theirs, seen(6, generator(1)).frames))
    found = ends(ours, LevelsObjective([objective_of(ours.levels[0], weights, EVERYTHING)]), walks)
    expected = ends(theirs, objective_of(theirs, weights, EVERYTHING), seen)
    assert same(found[0], expected[0]) and found[1] == expected[1]


# -- what does not fit -------------------------------------------------------------------------------------------------


def level_of(encoder, target_encoder=None):
    """Return a level around an encoder."""
    return JEPA(encoder, target_encoder or encoder, Predictor(3, 3, 0, 0, [6]), NoLatent()).double()


def two(encoder) -> HJEPA:
    """Return two levels, 2 frames of 2 numbers and 2 codes of 3, the upper one around an encoder."""
    return HJEPA([level_of(Encoder(4, 3, [])), level_of(encoder)], [Window(2, 1), Window(2, 2)])


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda h, d: HJEPA([], []), "windows: expected one for each of at least 1 level, found 0, 0"),
        (lambda h, d: HJEPA(list(h.levels), [Window()]), "windows: expected one for each .* found 1, 2"),
        (
            lambda h, d: HJEPA(list(h.levels), [Window(2, 1), Window(0, 1)]),
            "windows: expected a width and a stride of at least 1 at level 2, found .*width=0",
        ),
        (lambda h, d: HJEPA(list(h.levels), [Window(2, 0), Window()]), "windows: .* at level 1, found .*stride=0"),
        (
            lambda h, d: HJEPA([h.levels[0], level_of(Encoder(6, 3), Encoder(6, 3))], h.windows),
            "target_encoder: expected the context's, .* found one of its own at level 2",
        ),
        (lambda h, d: h.bottom(0), "count: expected from 1 to 2, found 0"),
        (lambda h, d: h.bottom(3), "count: expected from 1 to 2, found 3"),
        (lambda h, d: h.seen(d.frames, 0), "level: expected from 1 to 2, found 0"),
        (lambda h, d: h.up(d.frames, 3), "level: expected from 1 to 2, found 3"),
        (lambda h, d: h.actions(d.a, -1), "level: expected from 1 to 2, found -1"),
        (lambda h, d: h.trajectories(d, 0), "level: expected from 1 to 2, found 0"),
        (lambda h, d: h.trajectories(d, 3), "level: expected from 1 to 2, found 3"),
        (lambda h, d: h.trajectories(d, 1, 1), "done: expected from 0 to 0, the levels below level 1, found 1"),
        (lambda h, d: h.trajectories(d, 2, -1), "done: expected from 0 to 1, the levels below level 2, found -1"),
        (lambda h, d: h.encode(d.frames, 3), "below: expected from 0 to 2, found 3"),
        (lambda h, d: h.encode(d.frames, -1), "below: expected from 0 to 2, found -1"),
        (lambda h, d: h.rollout(3, d.frames, d.a, d.a), "level: expected from 1 to 2, found 3"),
        (
            lambda h, d: h.encode(d.frames[:, :1]),
            r"frames: expected at least 2 of what level 1 sees \(2 frames\), found",
        ),
        (
            lambda h, d: h.encode(d.frames[:, :2]),
            r"frames: expected at least 2 of what level 2 sees \(3 frames\), found \[3, 1, 3\]",
        ),
        (lambda h, d: h.encode(d.frames[0]), r"frames: expected .* found \[12, 2\]"),
        (lambda h, d: h.actions(d.a[:, :1], 1), "a: expected at least 2 steps for one of level 1, found 1"),
        (lambda h, d: h.actions(d.a[:, :0], 1), "a: expected at least 2 steps for one of level 1, found 0"),
        (lambda h, d: h.actions(d.a[:, :2], 2), "a: expected at least 3 steps for one of level 2, found 2"),
        (lambda h, d: h.encode(d.frames[..., :1]), r"level 1: x: expected 4 features on the last axis, found .* 2\]"),
        (
            lambda h, d: two(Encoder(5, 3, [])).encode(d.frames),
            r"level 2: x: expected 5 features .*found shape \[15, 6\]",
        ),
        (
            lambda h, d: two(Formula(lambda x: x.sum())).encode(d.frames),
            r"level 2: target_encoder: expected .* \[15, D\], found torch.float64 \[\]",
        ),
    ],
)
def test_what_does_not_fit_is_named(call, message):
    with pytest.raises(ValueError, match=f"^{message}"):
        call(two(Encoder(6, 3, [])), clips(3, 12, 1))


def test_a_layer_that_does_not_say_its_width_is_a_level_like_any_other():
    hierarchy = two(nn.Linear(6, 3))
    assert hierarchy.encode(clips(3, 12).frames)[1].shape == (3, 5, 3)
    check_reach(hierarchy, [(2, 1), (2, 2)], 12)
