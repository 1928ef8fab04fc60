"""The teacher frame by frame with a cache per grid point is the teacher over the whole clip at each time."""

import pytest
import torch

from generator.model.multistep import begin, sample_next
from generator.samplers.sampler import Sampler, shifted_sampler
from generator.samplers.schedule import uniform_times

TOLERANCE = 1e-5


def watched(monkeypatch, dit):
    """Every (noisy, t, velocity) of dit.step, in order."""
    seen, step = [], dit.step

    def watch(noisy, recycled, t, *rest):
        velocity = step(noisy, recycled, t, *rest)
        seen.append((noisy, t, velocity))
        return velocity

    monkeypatch.setattr(dit, "step", watch)
    return seen


def corrections():
    """Some of GS's, small."""
    generator = torch.Generator().manual_seed(5)
    return tuple(0.1 * torch.randn(3, 3, dtype=torch.float64, generator=generator).tril() for _ in range(2))


def told(name, order):
    """A sampler of three intervals whose network times are not its times."""
    times = uniform_times(3, 3.0)
    network_times = times.clone()
    network_times[1:-1] += 0.02
    return Sampler(name, order, times, network_times, corrections=corrections() if name == "gs" else None)


SOLVERS = [("euler", 1), ("heun", 2), ("dpmpp", 3), ("unipc", 3), ("ipndm", 3), ("gs", 3)]


@pytest.mark.parametrize(("name", "order"), SOLVERS)
@torch.no_grad()
def test_caches_per_grid_point_are_the_whole_clip_at_that_time(make_dit, make_inputs, monkeypatch, name, order):
    """Teacher-forced history; before, at and long after the window fills, with a sink."""
    dit, sampler = make_dit(sink=1), told(name, order)
    frames = 3 * (dit.config.window + 1) + 2
    noise, recycled, _, actions, rays = make_inputs(dit, frames, batch=2)
    seen, state = watched(monkeypatch, dit), begin(dit, 2, sampler)
    made = [
        sample_next(dit, state, sampler, *(v[:, k] for v in (noise, recycled, actions, rays))) for k in range(frames)
    ]
    assert state.frame_index == frames and len(seen) == frames * sampler.nfe
    for call in range(sampler.nfe):
        if name == "heun" and call in (1, 3):  # asked again at this grid point, where the second answer is kept
            continue
        asked = seen[call :: sampler.nfe]
        t = asked[0][1]
        whole = dit(torch.stack([x for x, _, _ in asked], 1), recycled, t, actions, rays)
        stepped = torch.stack([v for _, _, v in asked], 1)
        torch.testing.assert_close(stepped, whole, atol=TOLERANCE, rtol=TOLERANCE)
        assert any(float(t[0]) == pytest.approx(float(told)) for told in sampler.network_times)
    assert torch.stack(made).std() > 0.3


@torch.no_grad()
def test_one_cache_for_all_grid_points_would_be_wrong(make_dit, make_inputs, monkeypatch):
    dit, sampler = make_dit(), told("ipndm", 3)
    noise, recycled, _, actions, rays = make_inputs(dit, 3)
    made = []
    for shared in (False, True):
        state = begin(dit, 1, sampler)
        if shared:
            state.caches = [state.caches[0]] * sampler.points
        made.append(
            [sample_next(dit, state, sampler, noise[:, k], recycled[:, k], actions[:, k], rays[:, k]) for k in range(3)]
        )
    assert torch.equal(made[0][0], made[1][0])
    assert (made[0][2] - made[1][2]).abs().max() > 1e-3


@torch.no_grad()
def test_one_step_of_euler_is_play(make_dit, make_inputs):
    """One call from noise at t = 1 to data is what a rollout does."""
    dit, cache = make_dit(), make_dit().new_cache(1)
    sampler = shifted_sampler("euler", 1, 1, 4.0)
    state = begin(dit, 1, sampler)
    noise, recycled, _, actions, rays = make_inputs(dit, 2)
    for k in range(2):
        given = recycled[:, k], actions[:, k], rays[:, k]
        made = sample_next(dit, state, sampler, noise[:, k], *given)
        due = noise[:, k] - dit.step(noise[:, k], given[0], torch.ones(1), *given[1:], cache, k)
        torch.testing.assert_close(made, due, atol=TOLERANCE, rtol=TOLERANCE)
