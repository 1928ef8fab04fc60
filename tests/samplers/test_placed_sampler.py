"""Samplers: what they refuse, which grid point each call belongs to, and the number of calls."""

import pytest
import torch

from generator.samplers.generalised import generalised
from generator.samplers.paths import FlowMatching
from generator.samplers.sampler import Sampler, intervals, shifted_sampler, solver_fault
from generator.samplers.schedule import uniform_times
from generator.samplers.solvers import HIGHEST_ORDER, ipndm


@pytest.mark.parametrize(
    ("name", "order", "nfe", "said"),
    [
        ("ipndm", 3, 3, ""),
        ("unipc-bh1", 3, 10, ""),
        ("heun", 2, 4, ""),
        ("rk45", 3, 4, "no solver 'rk45'; choose euler, heun"),
        ("ipndm", 5, 8, "no order 5; give 1 to 4"),
        ("unipc", 0, 8, "no order 0; give 1 to 3"),
        ("heun", 1, 4, "no order 1; give 2."),
        ("euler", 1, 1, "1 network calls leave no time"),
        ("dpmpp", 3, 2, "needs at least 3 network calls, not 2"),
        ("heun", 2, 5, "give an even one"),
        ("gs", 3, 2, ""),
        ("gs", 2, 4, "gs has no order 2; give 3."),
    ],
)
def test_what_is_said_of_a_wrong_solver(name, order, nfe, said):
    fault = solver_fault(name, order, nfe)
    assert (said in fault) if said else fault == ""


@pytest.mark.parametrize("name", HIGHEST_ORDER)
def test_every_call_comes_with_its_grid_point(name):
    sampler, calls = shifted_sampler(name, HIGHEST_ORDER[name], 6, 4.0), []

    def network(point, x, t):
        calls.append(point)
        assert float(t) == float(sampler.network_times[point])
        return x

    sampler(network, torch.ones(1, 2))
    assert len(calls) == sampler.nfe == 6 and sampler.points == max(calls) + 1
    assert calls == ([0, 1, 1, 2, 2, 3] if name == "heun" else list(range(6)))
    assert len(sampler.times) == intervals(name, 6) + 1


def test_it_is_its_solver_on_its_times():
    times = uniform_times(4, 2.0)
    told = times.clone()
    told[1:-1] -= 0.01
    x = torch.randn(3, 2, generator=torch.Generator().manual_seed(0))

    def network(x, t):
        return torch.sin(x + t)

    made = Sampler("ipndm", 3, times, told)(lambda point, x, t: network(x, t), x)
    assert torch.equal(made, ipndm(3)(network, x, times, FlowMatching(), told))
    assert not torch.equal(made, ipndm(3)(network, x, times))


def test_two_network_times_may_be_equal():
    """Offsets of half a gap meet in its middle: the call's number tells the grid point, not the time."""
    times = uniform_times(3)
    told, places = torch.tensor([1.0, 0.5, 0.5, 0.0], dtype=torch.float64), []
    Sampler("ipndm", 2, times, told)(lambda point, x, t: places.append(point) or x, torch.ones(1, 2))
    assert places == [0, 1, 2]


def test_gs_is_its_corrections_and_only_they_are():
    times, generator = uniform_times(3, 2.0), torch.Generator().manual_seed(0)
    states, outputs = (0.2 * torch.randn(3, 3, dtype=torch.float64, generator=generator).tril() for _ in range(2))
    x = torch.randn(3, 2, dtype=torch.float64, generator=generator)

    def network(x, t):
        return torch.sin(x + t)

    sampler = Sampler("gs", 3, times, times, corrections=(states, outputs))
    made = [sampler(lambda point, x, t: network(x, t), x) for _ in range(2)]
    torch.testing.assert_close(made[0], generalised(states, outputs)(network, x, times), rtol=1e-12, atol=1e-12)
    assert torch.equal(*made) and (sampler.nfe, sampler.points) == (3, 3)
    for name, given in (("gs", None), ("dpmpp", (states, outputs))):
        with pytest.raises(AssertionError, match="corrections for"):
            Sampler(name, 3, times, times, corrections=given)


def test_a_wrong_grid_is_refused():
    good = uniform_times(3)
    for times, told in ((good.flip(0), good.flip(0)), (good, good[:-1]), (good[:-1], good[:-1])):
        with pytest.raises(AssertionError):
            Sampler("ipndm", 3, times, told)
