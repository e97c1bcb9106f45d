"""Batches: pairs of trajectories, windows of frames, and what a user's batch must look like."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from conftest import normal
from hypothesis import given
from hypothesis import strategies as st

from jepa.data import Pairs, Trajectories, checked, transitions, windows
from jepa.worlds import pairs

X = torch.zeros(8, 3)
FRAMES = torch.zeros(4, 3, 5)


def test_pairs_are_one_class_wherever_they_come_from():
    assert pairs.Pairs is Pairs and Pairs._fields == ("x", "a", "y", "factors")
    assert Trajectories._fields == ("frames", "a", "static", "factors")


@given(st.integers(1, 4), st.integers(1, 5), st.integers(0, 3), st.sampled_from([(), (2,), (2, 3)]))
def test_trajectories_are_pairs_of_each_step(batch, steps, width, rest):
    s, a = normal(batch, steps + 1, *rest), normal(batch, steps, width, seed=1)
    found = transitions(s, a)
    assert len(found.x) == len(found.a) == len(found.y) == batch * steps and found.factors == {}
    for b in range(batch):
        for t in range(steps):
            row = b * steps + t
            assert torch.equal(found.x[row], s[b, t]) and torch.equal(found.y[row], s[b, t + 1])
            assert torch.equal(found.a[row], a[b, t])


@given(st.integers(1, 7), st.integers(1, 7), st.integers(1, 9), st.sampled_from([(), (3,), (2, 2)]))
def test_windows_are_consecutive_frames_side_by_side(frames, width, stride, rest):
    width = min(width, frames)
    s = normal(2, frames, 3, *rest)
    found = windows(s, width, stride)
    starts = range(0, frames - width + 1, stride)
    assert found.shape == (2, len(starts), width * 3, *rest)
    for n, start in enumerate(starts):
        assert torch.equal(found[:, n], torch.cat(list(s[:, start : start + width].unbind(1)), 1))
    assert torch.equal(windows(s, width), windows(s, width, width)) and torch.equal(windows(s, 1), s)


def test_transitions_and_windows_pass_gradients_on():
    s = normal(2, 6, 3).requires_grad_()
    (windows(s, 2).square().sum() + transitions(s, s.new_zeros(2, 5, 0)).y.sum()).backward()
    assert torch.allclose(s.grad, 2 * s + (torch.arange(6) > 0).to(s)[:, None])


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: transitions(normal(4), normal(4, 1, 2)), r"s: expected \[B, T\+1, …\] .*found \[4\]"),
        (lambda: transitions(normal(4, 1, 3), normal(4, 0, 2)), r"s: expected .*at least 2 frames, found \[4, 1, 3\]"),
        (lambda: transitions(normal(4, 3, 3), normal(4, 3, 2)), r"a: expected \[4, 2, A\] .*found \[4, 3, 2\]"),
        (lambda: transitions(normal(4, 3, 3), normal(4, 2)), r"a: expected \[4, 2, A\] .*found \[4, 2\]"),
        (lambda: windows(normal(4, 3), 1), r"s: expected \[B, T, D, …\], found \[4, 3\]"),
        (lambda: windows(normal(4, 3, 2), 4), "width: expected from 1 to 3, .*found 4"),
        (lambda: windows(normal(4, 3, 2), 0), "width: expected from 1 to 3, .*found 0"),
        (lambda: windows(normal(4, 3, 2), 1, 0), "stride: expected at least 1, found 0"),
    ],
)
def test_shapes_that_do_not_fit_are_named(call, message):
    with pytest.raises(ValueError, match=message):
        call()


@pytest.mark.parametrize(
    "batch",
    [
        Pairs(X, X[:, :0], X, {}),
        SimpleNamespace(x=torch.zeros(8, 3, 4, 4), a=X, y=torch.zeros(8)),
        Trajectories(FRAMES, torch.zeros(4, 2, 0), torch.zeros(4, 0), {}),
        SimpleNamespace(frames=FRAMES, a=torch.zeros(4, 2, 6), static=torch.zeros(4, 1, 9, 9)),
        SimpleNamespace(frames=FRAMES, a=torch.zeros(4, 2, 6), static=torch.zeros(2, 1, 9, 9)),  # two share each
        SimpleNamespace(frames=FRAMES, a=torch.zeros(4, 2, 6), static=torch.zeros(1, 0)),
    ],
)
def test_a_good_batch_comes_back_as_it_is(batch):
    assert checked(batch) is batch
    double = SimpleNamespace(**{name: getattr(batch, name).double() for name in vars_of(batch)})
    assert checked(double, torch.float64) is double
    with pytest.raises(ValueError, match="expected torch.float32 .*found torch.float64"):
        checked(double)


def vars_of(batch):
    """Return the names of a batch's tensors."""
    return [name for name in ("x", "a", "y", "frames", "static") if hasattr(batch, name)]


@pytest.mark.parametrize(
    ("batch", "message"),
    [
        ((X, X), "batch: expected the fields x, a, y, found tuple without x, a, y"),
        (SimpleNamespace(x=X, y=X), "batch: expected the fields x, a, y, found SimpleNamespace without a"),
        (
            Pairs(torch.zeros(8, 3, 32, 32, dtype=torch.uint8), X, X, {}),
            "x: expected torch.float32 [B, …], found torch.uint8 [8, 3, 32, 32]; convert it in your data set, "
            "for instance torch.as_tensor(x).to(torch.float32) / 255",
        ),
        (Pairs(X, X, X.double(), {}), "y: expected torch.float32 [B, …], found torch.float64 [8, 3]; convert it"),
        (Pairs(X, X.long(), X, {}), "a: expected torch.float32 [B, A], found torch.int64 [8, 3]; convert it"),
        (Pairs(X.numpy(), X, X, {}), "x: expected torch.float32 [B, …], found ndarray; convert it"),
        (Pairs(np.zeros(3, np.uint8), X, X, {}), "torch.as_tensor(x).to(torch.float32) / 255"),
        (Pairs(X, None, X, {}), "a: expected torch.float32 [B, A], found NoneType; where there is nothing to give, "
         "give [B, 0]"),
        (Pairs(X, X, None, {}), "y: expected torch.float32 [B, …], found NoneType"),
        (Pairs(X, X[:, 0], X, {}), "a: expected torch.float32 [B, A], found torch.float32 [8]"),
        (Pairs(X.sum(), X, X, {}), "x: expected torch.float32 [B, …], found torch.float32 []"),
        (Pairs(X, X, X[:5], {}), "y: expected a batch of 8 as for x, found 5"),
        (Pairs(X, X[:1], X, {}), "a: expected a batch of 8 as for x, found 1"),
        (Trajectories(FRAMES[:, 0, 0], X, X, {}), "frames: expected torch.float32 [B, T+1, …], found"),
        (Trajectories(FRAMES, None, X, {}), "give [B, T, 0]"),
        (Trajectories(FRAMES, FRAMES[:, :2], None, {}), "static: expected torch.float32 [B, …], found NoneType; where "
         "there is nothing to give, give [B, 0]"),
        (Trajectories(FRAMES, FRAMES, X[:4], {}), "a: expected [B, 2, A] for frames [4, 3, 5], found [4, 3, 5]"),
        (Trajectories(FRAMES, FRAMES[:, :2], X[:0], {}), "or a divisor of it, found 0"),
        (Trajectories(FRAMES, FRAMES[:, :2], torch.zeros(8, 3), {}), "or a divisor of it, found 8"),
        (Trajectories(FRAMES, FRAMES[:, :2], X[:3], {}), "static: expected a batch of 4 as for frames, or a "
         "divisor of it, found 3"),
    ],
)  # fmt: skip
def test_a_batch_that_no_model_takes_is_named(batch, message):
    with pytest.raises(ValueError) as caught:
        checked(batch)
    assert message in str(caught.value)
