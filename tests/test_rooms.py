"""Motion among boxes against a slow reference, the three rules of collision, layouts and ways through them."""

from __future__ import annotations

import math
import re

import pytest
import torch
from conftest import generator

from jepa.worlds.rooms.layouts import fixed_two_rooms, random_two_rooms, two_rooms
from jepa.worlds.rooms.motion import CLEARANCE, COLLISIONS, NOISE, move, obstacles, walk, within
from jepa.worlds.rooms.policies import uniform
from jepa.worlds.rooms.reach import reachable

CPU = torch.device("cpu")


def layout(wall=32.0, door=18.0, count=1):
    """Return one layout, `count` times."""
    return two_rooms(torch.full((count,), wall), torch.full((count,), door))


def one(position, action, collisions, wall=32.0, door=18.0, seed=0):
    """Return where one dot gets, and whether something was in its way."""
    position, action = torch.tensor([position]), torch.tensor([action])
    found, blocked = move(layout(wall, door), position, action, collisions, generator(seed))
    return found[0].tolist(), bool(blocked)


def crosses(p, e, a, b):
    """Return whether segments p–e and a–b share a point, by orientations of triples of points."""

    def turn(o, u, v):
        return (u[0] - o[0]) * (v[1] - o[1]) - (u[1] - o[1]) * (v[0] - o[0])

    def between(o, u, v):
        return min(o[0], u[0]) <= v[0] <= max(o[0], u[0]) and min(o[1], u[1]) <= v[1] <= max(o[1], u[1])

    s, t, u, v = turn(p, e, a), turn(p, e, b), turn(a, b, p), turn(a, b, e)
    if s * t < 0 and u * v < 0:
        return True
    lines = ((s, p, e, a), (t, p, e, b), (u, a, b, p), (v, a, b, e))
    return any(value == 0 and between(o, w, point) for value, o, w, point in lines)


def reference(p, e, wall, door):
    """Return whether a step from p to e touches the wall or the border, in plain arithmetic."""
    if not all(4 < c < 60 for c in e):
        return True
    for top, bottom in ((0.0, door - 4), (door + 4, 64.0)):
        corners = [(wall - 1, top), (wall + 1, top), (wall + 1, bottom), (wall - 1, bottom)]
        sides = zip(corners, corners[1:] + corners[:1], strict=True)
        if any(crosses(p, e, a, b) for a, b in sides) or (abs(e[0] - wall) <= 1 and top <= e[1] <= bottom):
            return True
    return False


def segments(count, seed):
    """Return layouts, starts and steps of every length, many of them at the wall and its corners."""
    stream = generator(seed)
    layouts = random_two_rooms(count, stream)
    start = uniform(layouts, stream)
    near = layouts.doors[:, 0] + 6 * torch.randn(count, 2, generator=stream)
    free = ~within(obstacles(layouts), near, 0.01).any(1)
    start = torch.where(free.unsqueeze(1), near, start)
    scale = 10 ** (torch.rand(count, 1, generator=stream) * 5 - 2)
    action = scale * torch.randn(count, 2, generator=stream)
    corner = torch.stack([(torch.rand(count, generator=stream) < 0.5) * 2.0 - 1, torch.full((count,), 4.0)], 1)
    aimed = layouts.doors[:, 0] + corner * (torch.rand(count, 1, generator=stream) * 0.2 + 0.9) - start
    return layouts, start, torch.where(torch.rand(count, 1, generator=stream) < 0.5, 1.3 * aimed, action)


def test_steps_are_blocked_exactly_where_their_segment_touches_something():
    layouts, start, action = segments(4000, 0)
    positions, blocked = move(layouts, start, action, "stay")
    end, numbers = start + action, layouts.doors[:, 0].tolist()
    expected = [reference(p, e, *n) for p, e, n in zip(start.tolist(), end.tolist(), numbers, strict=True)]
    assert 0.3 < sum(expected) / 4000 < 0.9
    assert blocked.tolist() == expected
    assert torch.equal(positions, torch.where(blocked.unsqueeze(1), start, end))


@pytest.mark.parametrize("collisions", COLLISIONS)
@pytest.mark.parametrize("speed", [1.0, 20.0, 1e4, 3e38])
def test_nothing_tunnels_at_any_speed(collisions, speed):
    layouts, stream = layout(32.0, 18.0, 300), generator(1)
    start = uniform(layouts, stream)
    actions = torch.randn(300, 40, 2, generator=stream).clamp(-1, 1) * speed
    positions, blocked = walk(layouts, start, actions, collisions, stream)
    assert positions.isfinite().all() and blocked.any()
    assert not any(within(obstacles(layouts), p).any() for p in positions.unbind(1))
    sides = (positions[..., 0] > 32).float()
    assert speed > 100 or not torch.equal(sides.amin(1), sides.amax(1))  # some go through the door
    gate = torch.tensor([31.0, 13.9, 33.0, 22.1]).expand(300, 1, 4)
    shut = layouts._replace(solids=torch.cat([layouts.solids, gate], 1))
    start = torch.where((start[:, :1] - 32).abs() < 1.5, start - torch.tensor([3.0, 0.0]), start)
    positions, _ = walk(shut, start, actions, collisions, stream)
    sides = (positions[..., 0] > 32).float()
    assert torch.equal(sides.amin(1), sides.amax(1))


@pytest.mark.parametrize("collisions", COLLISIONS)
def test_dot_on_a_surface_does_not_creep_through(collisions):
    places = [
        (31.0, 40.0),
        (33.0, 40.0),
        (31.0, 14.0),
        (32.0, 14.0),
        (32.0, 22.0),
        (4.0, 30.0),
        (4.0, 4.0),
        (60.0, 4.0),
    ]
    angle = torch.arange(16).repeat(8) * math.pi / 8
    start, layouts = torch.tensor(places).repeat_interleave(16, 0), layout(count=128)
    boxes = obstacles(layouts)
    on = ((start.unsqueeze(1) >= boxes[..., :2]) & (start.unsqueeze(1) <= boxes[..., 2:])).all(-1).any(1)
    assert on.all()
    actions = 0.4 * torch.stack([angle.cos(), angle.sin()], -1).unsqueeze(1).expand(-1, 20, -1)
    positions, _ = walk(layouts, start, actions, collisions, generator())
    assert not any(within(boxes, p).any() for p in positions.unbind(1))
    far = start[:, 1] == 40  # from the door: the same side for good
    side = torch.sign(positions[far, :, 0] - 32)
    assert far.sum() == 32 and torch.equal(side, side[:, :1].expand_as(side))


def test_dot_on_a_surface_can_leave_it():
    for collisions in COLLISIONS:
        assert one((31.0, 40.0), (-1.0, 0.5), collisions)[1] is False
        assert one((4.0, 4.0), (1.0, 0.5), collisions)[1] is False
        assert one((31.0, 40.0), (1.0, 0.0), collisions)[1] is True


def test_slide_goes_along_the_wall_and_into_the_door():
    found, blocked = one((30.0, 40.0), (2.0, 3.0), "slide")
    assert blocked and found == pytest.approx([31 - 2.0**-10, 43.0], abs=1e-5)
    found, blocked = one((5.0, 5.0), (-9.0, -9.0), "slide")  # into a corner
    assert blocked and found == pytest.approx([4 + 2.0**-10, 4 + 2.0**-10], abs=1e-5)
    found, blocked = one((32.0, 18.0), (30.0, 9.0), "slide")  # out of the opening, to the far border
    assert blocked and found[0] == pytest.approx(60 - 2.0**-10, abs=1e-5) and found[1] == pytest.approx(27, abs=1e-5)
    found, blocked = one((32.0, 18.0), (1.0, 9.0), "slide")
    assert blocked and found == pytest.approx([33.0, 22 - 2.0**-10], abs=1e-5)


@pytest.mark.parametrize("collisions", ["push", "slide"])
def test_dot_on_a_surface_moves_along_it(collisions):
    for start, step in (((31.0, 40.0), (0.0, 2.0)), ((31.0, 40.0), (0.0, -2.0)), ((30.0, 4.0), (-1.5, 0.0))):
        found, blocked = one(start, step, collisions)
        assert not blocked and found == pytest.approx([start[0] + step[0], start[1] + step[1]], abs=2.0**-9)


def test_push_is_normal_noise_off_the_point_of_contact():
    count = 20000
    start = torch.tensor([29.0, 38.0]).expand(count, 2)
    found, blocked = move(layout(count=count), start, torch.tensor([4.0, 4.0]).expand(count, 2), "push", generator())
    assert blocked.all()
    x, y = found.double().unbind(1)
    assert float(y.mean()) == pytest.approx(40.0, abs=0.02) and float(y.std()) == pytest.approx(NOISE, rel=0.03)
    off = 31 - x
    assert float(off.min()) >= CLEARANCE and float(off.median()) == pytest.approx(0.6745 * NOISE, abs=0.02)
    share = math.erf(CLEARANCE / NOISE / math.sqrt(2))  # of pushes that noise alone would leave nearer
    assert float((off < CLEARANCE + 0.01).double().mean()) == pytest.approx(share, abs=0.03)


def test_pushes_keep_their_distance_and_their_side():
    layouts, start, action = segments(5000, 3)
    found, blocked = move(layouts, start, action, "push", generator())
    assert 0.3 < float(blocked.double().mean()) < 0.95
    near = within(obstacles(layouts), found, CLEARANCE).any(1)
    assert not bool((near & blocked).any())
    free = ~blocked & ~within(obstacles(layouts), start, 2.0**-10).any(1)
    assert torch.equal(found[free], (start + action)[free])


def test_ways_are_steps_one_by_one():
    layouts, start, _ = segments(50, 4)
    actions = 2 * torch.randn(50, 6, 2, generator=generator(2))
    for collisions in COLLISIONS:
        positions, blocked = walk(layouts, start, actions, collisions, generator(5))
        stream, position = generator(5), start
        for t in range(6):
            position, hit = move(layouts, position, actions[:, t], collisions, stream)
            assert torch.equal(position, positions[:, t + 1]) and torch.equal(hit, blocked[:, t])


@pytest.mark.parametrize(
    ("position", "action", "collisions", "message"),
    [
        ((32.0, 40.0), (0.0, 0.0), "stay", "position: expected points outside of walls and between the borders"),
        ((3.0, 40.0), (0.0, 0.0), "stay", r"position: expected points .*, found \(3, 40\)"),
        ((20.0, 40.0), (math.nan, 0.0), "stay", "action: expected finite numbers, found nan"),
        ((20.0, 40.0), (0.0, -math.inf), "slide", "action: expected finite numbers, found -inf"),
        ((math.nan, 40.0), (0.0, 0.0), "push", "position: expected finite numbers, found nan"),
        ((20.0, 40.0), (0.0, 0.0), "bounce", "collisions: expected one of stay, push, slide, found 'bounce'"),
    ],
)
def test_steps_that_make_no_sense_are_refused(position, action, collisions, message):
    with pytest.raises(ValueError, match=f"^{message}"):
        one(position, action, collisions)


def test_other_bad_input_is_refused():
    with pytest.raises(ValueError, match="^generator: expected one"):
        move(layout(), torch.tensor([[20.0, 20.0]]), torch.zeros(1, 2), "push")
    with pytest.raises(ValueError, match=re.escape("position: expected [1, 2], found [2, 2]")):
        move(layout(), torch.zeros(2, 2), torch.zeros(1, 2), "stay")
    with pytest.raises(ValueError, match=re.escape("action: expected [1, T, 2], found [1, 1, 3]")):
        move(layout(), torch.full((1, 2), 9.0), torch.zeros(1, 3), "stay")
    with pytest.raises(ValueError, match="^wall: expected from 5 to 59, found 3 to 3"):
        layout(wall=3.0)
    with pytest.raises(ValueError, match="^door: expected from 8 to 56"):
        layout(door=58.0)
    with pytest.raises(ValueError, match="^count: expected at least 1, found 0"):
        random_two_rooms(0, generator())


def test_layouts_are_drawn_over_their_ranges_and_rows_select():
    layouts = random_two_rooms(3000, generator())
    wall, door = layouts.doors[:, 0].unbind(1)
    for value, low, high in ((wall, 20, 44), (door, 10, 54)):
        assert low <= float(value.min()) < low + 0.1 and high - 0.1 < float(value.max()) <= high
        assert float(value.mean()) == pytest.approx((low + high) / 2, abs=0.8)
    assert fixed_two_rooms(2, CPU).doors.tolist() == [[[32.0, 18.0]]] * 2
    some = layouts.rows(torch.tensor([5, 5, 0]))
    assert torch.equal(some.solids, layouts.solids[[5, 5, 0]]) and len(some.extent) == 3
    assert torch.equal(layouts.rows(slice(0, 2)).repeat(2).doors, layouts.doors[[0, 0, 1, 1]])


def test_ways_lead_through_an_open_door_only():
    layouts = random_two_rooms(200, generator())
    start, goal = uniform(layouts, generator(1)), uniform(layouts, generator(2))
    assert reachable(layouts, start, goal).all()
    wall, door = layouts.doors[:, 0].unbind(1)
    gate = torch.stack([wall - 1, door - 4, wall + 1, door + 4], -1).unsqueeze(1)  # flush with the wall
    shut = layouts._replace(solids=torch.cat([layouts.solids, gate], 1))
    outside = ((start[:, 0] - wall).abs() > 1) & ((goal[:, 0] - wall).abs() > 1)
    same = (start[:, 0] < wall) == (goal[:, 0] < wall)
    assert outside.sum() > 150 and torch.equal(reachable(shut, start, goal)[outside], same[outside])
