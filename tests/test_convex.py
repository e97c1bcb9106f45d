"""The yardstick itself: sound minimizers have no gap, lame ones have one that shows."""

import pytest

from jepa.measures import convex


@pytest.mark.parametrize("seed", range(3))
def test_minimizers_reach_the_closed_forms(seed):
    found = convex.gaps(seed)
    assert set(found) == {"exhaustive", "gradient", "fista"}
    for gap in found.values():
        assert gap.relative_gap <= 1e-8
        assert gap.above_grid <= 1e-12


LAME = {
    "exhaustive": lambda sound: lambda cost, candidates: sound(cost, candidates[:, :-1]),
    "gradient": lambda sound: lambda cost, start, steps: sound(cost, start, 5),
    "fista": lambda sound: lambda smooth, penalty, start, steps: sound(smooth, penalty, start, 0),
}


@pytest.mark.parametrize("name", LAME)
def test_minimizer_that_misses_the_minimum_has_a_gap(name, monkeypatch):
    monkeypatch.setattr(convex, name, LAME[name](getattr(convex, name)))
    found = convex.gaps(0)
    assert [other for other, gap in found.items() if gap.relative_gap > 1e-5] == [name]
    if name == "fista":
        assert found[name].above_grid > 0.01


@pytest.mark.parametrize("error", [-0.5, 0.5])
@pytest.mark.parametrize("name", LAME)
def test_one_wrong_value_among_many_has_a_gap(name, error, monkeypatch):
    sound = getattr(convex, name)

    def untrue(*arguments, **options):
        found = sound(*arguments, **options)
        found.value[0] += error
        return found

    monkeypatch.setattr(convex, name, untrue)
    gap = convex.gaps(0)[name]
    assert gap.relative_gap > 0.01
    assert (gap.above_grid > 0.1) == (error > 0)


def test_seed_makes_the_problems():
    assert convex.gaps(0, problems=5) == convex.gaps(0, problems=5)
    assert convex.gaps(0, problems=5)["fista"].above_grid != convex.gaps(1, problems=5)["fista"].above_grid


def test_no_problem_is_refused():
    with pytest.raises(ValueError, match="^problems: expected at least 1, found 0"):
        convex.gaps(0, problems=0)
