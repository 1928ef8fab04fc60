"""A World that remembers: going back gives the very states that were, within a bound of memory."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from fake_world import SIZE, FakeWorld

from app.film import Film
from app.history import LONGEST_REPLAY, RememberingWorld, plan_history
from app.protocol import Load
from controls.action import Action, ActionSpec
from controls.errors import UserError

SPEC = ActionSpec()
PICTURE = np.random.default_rng(0).integers(0, 255, (SIZE[1], SIZE[0], 3), np.uint8)
STATE_BYTES = 3 * PICTURE.nbytes + 32  # a panorama of two pictures, a pose, an index; and the picture beside it


def walk(count: int, seed: int = 0) -> list[Action]:
    rng = np.random.default_rng(seed)
    return [
        Action(rng.integers(0, 2, (4, len(SPEC.keys))).astype(np.uint8), rng.normal(0, 3, (4, 2)).astype(np.float32))
        for _ in range(count)
    ]


@pytest.mark.parametrize(("state", "budget"), [(1, 192), (11, 192), (30, 192), (150, 192), (500, 192), (11, 1)])
def test_the_plan_keeps_to_its_budget_and_reaches_as_far_as_it_can(state: int, budget: int) -> None:
    plan = plan_history(state, 180, budget)
    assert plan.keep * state <= max(budget, 2 * state)
    assert 1 <= plan.every <= LONGEST_REPLAY
    reach = (plan.keep - 1) * plan.every
    assert reach >= 180 or (plan.every == LONGEST_REPLAY and (plan.keep + 1) * state > budget)
    assert (plan.keep - 2) * plan.every < 180, "no more than is of use"


def test_the_pocket_world_fits_its_thirty_seconds() -> None:
    plan = plan_history(11_079_000, 183, round(1e6 * Load(Path("x")).history_mb))
    assert (plan.every, plan.keep) == (12, 17)


@pytest.mark.parametrize("keys", [3, 5, 40])
def test_going_back_is_exact_and_bounded(keys: int) -> None:
    """Every reachable latent frame, from every distance to its key state."""
    budget = keys * STATE_BYTES
    world = RememberingWorld(FakeWorld(Path("x")), seconds=5, budget=budget)  # 30 latent frames
    actions, frames, most = walk(75), {}, 0
    world.reset(PICTURE, 3)
    for index, action in enumerate(actions, 1):
        frames[index] = world.step(action)
        most = max(most, world.nbytes)
        assert index - world.oldest >= min(index, 30) or keys == 3
    assert 0 < most <= budget
    for back in (75, 74, 71, 60, 59, 50, 46):
        if back < world.oldest:
            continue
        world.rewind(back)
        assert world.frame_index == back
        assert np.array_equal(world.picture, frames[back][-1])
        for index in range(back + 1, min(back + 4, 75)):
            assert np.array_equal(world.step(actions[index - 1]), frames[index])
    other = walk(6, seed=9)
    world.rewind(world.oldest)
    begin, branch = world.frame_index, [world.step(action) for action in other]
    world.rewind(begin)
    assert all(np.array_equal(world.step(a), f) for a, f in zip(other, branch, strict=True))


def test_what_is_not_remembered_is_refused_and_changes_nothing() -> None:
    world = RememberingWorld(FakeWorld(Path("x")), seconds=1, budget=4 * STATE_BYTES)
    with pytest.raises(UserError, match="not remembered"):
        world.rewind(0)
    world.reset(PICTURE, 0)
    for action in walk(40):
        world.step(action)
    assert 9 <= 40 - world.oldest <= 11, "six latent frames, three that lie ahead of the window, and the spacing"
    for index in (world.oldest - 1, 41, -1):
        with pytest.raises(UserError, match=f"{index} is not remembered; go back to one from {world.oldest} to 40"):
            world.rewind(index)
    assert world.frame_index == 40
    world.reset(PICTURE, 1)
    assert world.oldest == 0
    with pytest.raises(UserError):
        world.rewind(1)


def test_a_loaded_state_begins_a_new_memory() -> None:
    actions = walk(12)
    world = RememberingWorld(FakeWorld(Path("x")))
    world.reset(PICTURE, 0)
    for action in actions[:5]:
        world.step(action)
    state, picture = world.save_state(), world.picture
    ahead = [world.step(action) for action in actions[5:]]
    world.load_state(state)
    world.arrived(PICTURE, picture)
    assert world.oldest == world.frame_index == 5
    assert np.array_equal(world.picture, picture)
    again = [world.step(action) for action in actions[5:]]
    assert np.array_equal(ahead, again)
    world.rewind(5)
    assert np.array_equal(world.picture, picture)
    assert np.array_equal(world.step(actions[5]), ahead[0])


def test_film_is_bounded_and_contiguous() -> None:
    film, whole = Film(5), np.zeros((4, 2, 3, 3), np.uint8)
    film.add(0, whole[3])
    kept = film.get(0)
    assert kept is not None and kept.base is None, "the other frames of a latent frame are let go"
    film.clear()
    pictures = [np.full((2, 3, 3), i, np.uint8) for i in range(20)]
    for index in range(9):
        film.add(index, pictures[index])
    assert (film.oldest, film.newest, len(film)) == (3, 8, 6), "five steps back from the newest"
    assert film.get(2) is None and film.get(9) is None and np.array_equal(film.get(4), pictures[4])
    film.cut(5)
    film.add(6, pictures[16])
    assert film.newest == 6 and np.array_equal(film.get(6), pictures[16])
    film.add(12, pictures[0])
    assert (film.oldest, film.newest) == (12, 12), "a gap begins anew"
    tight = Film(100, budget=4 * 18)
    for index in range(20):
        tight.add(index, pictures[index])
    assert len(tight) == 4 and tight.nbytes == 72
    assert tight.marks(3) == [16, 18, 19] and tight.marks(9) == [16, 17, 18, 19] and tight.marks(9, 18) == [18, 19]
    tight.clear()
    assert tight.marks(3) == []
