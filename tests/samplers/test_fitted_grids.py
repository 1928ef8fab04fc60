"""Grids fitted to solvers and networks: by hand, by brute force, by property, and against hand-made ones."""

import math
from itertools import combinations, pairwise

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from generator.samplers.fitted_grids import (
    ays,
    ays_costs,
    cheapest,
    dmn,
    dmn_bound,
    gits,
    jump_costs,
    on_cut,
    prediction_weights,
    trajectory,
)
from generator.samplers.grids import edm_rho, uniform_log_snr, uniform_time
from generator.samplers.learned_times import l2
from generator.samplers.paths import FlowMatching, VarianceExploding, VariancePreserving, log_snr, times_fault
from generator.samplers.solvers import dpm_solver_pp, euler, heun, ipndm, unipc

FINITE = {"flow": FlowMatching(t_max=0.999, t_min=1e-3), "vp": VariancePreserving(), "ve": VarianceExploding()}
every_path = pytest.mark.parametrize("path", FINITE.values(), ids=FINITE)


def wide(*values):
    return torch.tensor(values, dtype=torch.float64)


def rng(seed=0):
    return torch.Generator().manual_seed(seed)


# --- dynamic programming
@given(st.integers(2, 7), st.integers(0, 10_000), st.sampled_from([1.0, 1.15, 0.5]), st.data())
@settings(max_examples=40, deadline=None)
def test_the_cheapest_jumps_are_those_of_brute_force(last, seed, gamma, data):
    steps = data.draw(st.integers(1, last))
    costs = torch.rand(last + 1, last + 1, dtype=torch.float64, generator=rng(seed))

    def price(points):
        return sum(gamma**n * float(costs[a, b]) for n, (a, b) in enumerate(pairwise(points)))

    due = min(((0, *inner, last) for inner in combinations(range(1, last), steps - 1)), key=price)
    assert cheapest(costs, steps, gamma) == list(due)


def test_more_jumps_than_points_are_refused():
    for steps in (0, 3):
        with pytest.raises(AssertionError, match="jumps over 3 points"):
            cheapest(torch.zeros(3, 3), steps)


# --- DMN
def test_weights_of_predictions_by_hand():
    """VE from 4 over 2 to 1: x <- x / 2 + D / 2 twice. Of second order: D_1 becomes D_1 + (D_1 - D_0) / 2 and so on."""
    path = VarianceExploding(t_max=4.0, t_min=1.0)
    times = wide(4, 2, 1)
    assert prediction_weights(dpm_solver_pp(1), times, path)[:2].tolist() == pytest.approx([0.25, 0.5])
    assert prediction_weights(ipndm(1), times, path).tolist() == pytest.approx([0.25, 0.5])
    # iPNDM-2's last step is x + (1 - 2)(3 e_1 - e_0) / 2 with e_1 = (x - D_1) / 2, e_0 = -D_0 / 4 and x = D_0 / 2
    assert prediction_weights(ipndm(2), times, path).tolist() == pytest.approx([0.5 - 0.375 - 0.125, 0.75])
    assert float(dmn_bound(dpm_solver_pp(1), times, path)) == pytest.approx(0.25 * 4 + 0.5 * 2)
    assert float(dmn_bound(dpm_solver_pp(1), times, path, power=2)) == pytest.approx(0.25 * 16 + 0.5 * 4)
    with pytest.raises(AssertionError, match="network calls"):
        prediction_weights(heun, times, path)


@every_path
@pytest.mark.parametrize(
    "solver", [euler, dpm_solver_pp(3), unipc(2), ipndm(3)], ids=["euler", "dpm", "unipc", "ipndm"]
)
def test_weights_and_the_decay_of_noise_make_up_the_sample(path, solver):
    """For predictions that are all one vector every solver gives alpha D + sigma x / sigma_0, up to its order."""
    times = edm_rho(path, 40)
    alpha, sigma = path.alpha(times), path.sigma(times)
    due = float(alpha[-1] - alpha[0] * sigma[-1] / sigma[0])
    assert float(prediction_weights(solver, times, path).sum()) == pytest.approx(due, rel=0.02)


@every_path
@pytest.mark.parametrize("power", [1.0, 2.0])
def test_dmn_finds_the_least_bound_of_two_steps(path, power):
    solver, first, last = dpm_solver_pp(2), *(float(v) for v in log_snr(path, wide(path.t_max, path.t_min)))
    places = path.time_of(first + torch.linspace(0.001, 0.999, 199, dtype=torch.float64) * (last - first))
    bounds = [float(dmn_bound(solver, wide(path.t_max, float(t), path.t_min), path, power)) for t in places]
    found = float(dmn_bound(solver, dmn(path, 2, solver, power), path, power))
    assert found <= min(bounds) * (1 + 1e-4)


@every_path
@given(steps=st.integers(1, 8))
@settings(max_examples=4, deadline=None)
def test_dmn_falls_between_exact_ends_and_below_every_start(path, steps):
    solver = dpm_solver_pp(2)
    times = dmn(path, steps, solver, rounds=10)
    assert len(times) == steps + 1 and times.dtype == torch.float64 and not times.requires_grad
    assert times[0] == path.t_max and times[-1] == path.t_min and times_fault(times, path) == ""
    found = float(dmn_bound(solver, times, path))
    for make in (uniform_log_snr, edm_rho, uniform_time):
        assert found <= float(dmn_bound(solver, make(path, steps), path)) * (1 + 1e-9)


def test_dmn_needs_finite_ends_and_a_cut_gives_them():
    flow = FlowMatching()
    with pytest.raises(AssertionError, match="log-SNR"):
        dmn(flow, 4, dpm_solver_pp(2))
    for make in (lambda p, n: dmn(p, n, dpm_solver_pp(2), rounds=5), edm_rho, uniform_log_snr):
        times, inner = on_cut(make, flow, 4), make(FlowMatching(t_max=0.99, t_min=0.01), 4)
        assert times_fault(times, flow) == "" and (times[0], times[-1]) == (1, 0)
        assert torch.equal(on_cut(make, flow, 4, edge=0.01)[1:-1], inner[1:-1])


# --- GITS
def test_jump_costs_by_hand():
    """VE from 3 over 2 to 1 with the data 0 predicted at 3 and x / 2 later: e = x / t, then x / (2 t)."""
    path, start = VarianceExploding(t_max=3.0, t_min=1.0), wide(3.0).view(1, 1)
    seen = trajectory(lambda x, t: 0 * x if t > 2.5 else x / 2, start, wide(3, 2, 1), path, euler)
    assert seen.states.flatten().tolist() == pytest.approx([3, 2, 1.5])
    assert seen.data.flatten().tolist() == [0, 1] and seen.noise.flatten().tolist() == [1, 0.5]
    assert jump_costs(path, seen).tolist() == [[0, 0, 0.5], [0, 0, 0], [0, 0, 0]]
    with pytest.raises(AssertionError, match="network calls"):
        trajectory(lambda x, t: x, start, wide(3, 2, 1), path, heun)


@every_path
def test_a_straight_trajectory_costs_nothing(path, make_span):
    data, noise = torch.randn(2, 3, 4, generator=rng()).double()

    def network(x, t):
        rates = path.rates(t)
        return {"velocity": rates[0] * data + rates[1] * noise, "noise": noise, "data": data}[path.predicts]

    start = path.alpha(wide(path.t_max)) * data + path.sigma(wide(path.t_max)) * noise
    seen = trajectory(network, start, edm_rho(path, 12), path, ipndm(1))
    assert float(jump_costs(path, seen).max()) < 1e-9 * float(start.abs().max())


@pytest.fixture(scope="module")
def blob(make_mixture):
    return make_mixture(4, 6, 0.5)


def fitted(name, path, steps, blob, dense, samples=64):
    network, noise = blob.network(path), torch.randn(samples, 6, dtype=torch.float64, generator=rng(3))
    if name == "gits":
        return gits(path, steps, network, blob.start(path, noise), dense)
    centres = blob.means[torch.randint(len(blob.means), (samples,), generator=rng(4))]
    return ays(path, steps, network, centres + blob.spread * noise, dense, rng(5))


@every_path
@pytest.mark.parametrize("name", ["gits", "ays"])
@given(steps=st.integers(1, 12))
@settings(max_examples=4, deadline=None)
def test_chosen_times_fall_between_exact_ends(name, path, steps, blob):
    dense = edm_rho(path, 20)
    times = fitted(name, path, steps, blob, dense, samples=4)
    assert len(times) == steps + 1 and times.dtype == torch.float64
    assert times[0] == path.t_max and times[-1] == path.t_min and times_fault(times, path) == ""
    assert set(times.tolist()) <= set(dense.tolist())


def test_gits_goes_to_the_ends_of_flow_matching(blob):
    times = fitted("gits", FlowMatching(), 4, blob, uniform_time(FlowMatching(), 60))
    assert (times[0], times[-1]) == (1, 0) and times_fault(times, FlowMatching()) == ""


def test_gits_beats_the_grids_it_is_made_for(blob):
    """Where Euler steps are taken: error to the ODE's solution on noises that the times were not chosen by."""
    path = VarianceExploding()
    fresh = blob.pairs(path, 100, 7)

    def error(times):
        made = ipndm(1)(blob.network(path), blob.start(path, fresh.noise), times, path)
        return float(l2(made, fresh.target).mean().sqrt())

    for steps in (4, 6, 8):
        chosen = error(fitted("gits", path, steps, blob, edm_rho(path, 60)))
        assert chosen < 0.95 * min(error(make(path, steps)) for make in (edm_rho, uniform_log_snr, uniform_time))


# --- AYS
def test_the_divergence_of_a_ramp_by_hand():
    """D = lambda: integral from a to b of e^(2l) (l - a)^2 dl = [e^(2l) ((l-a)^2 / 2 - (l-a) / 2 + 1/4)]."""
    path = VarianceExploding(t_max=2.0, t_min=0.5)
    dense = uniform_log_snr(path, 200)

    def network(x, t):
        return -torch.log(t) * torch.ones_like(x)

    costs = ays_costs(path, network, torch.zeros(3, 2).double(), dense, rng())

    def exact(a, b):
        return math.exp(2 * b) * ((b - a) ** 2 / 2 - (b - a) / 2 + 0.25) - math.exp(2 * a) * 0.25

    level = log_snr(path, dense).tolist()
    for i, j in ((0, 200), (0, 100), (50, 150)):
        assert float(costs[i, j]) == pytest.approx(2 * exact(level[i], level[j]), rel=2e-3)
    assert float(costs.tril().abs().max()) == 0


def test_the_samples_of_one_path_share_their_noise():
    """A network that returns x (as the data of VE): E|x_t - x_i|^2 = sigma_i^2 - sigma_t^2 for every coordinate."""
    path = VarianceExploding(t_max=2.0, t_min=1.0)
    data, dense = torch.randn(20_000, 1, generator=rng()).double(), wide(2.0, 1.5, 1.0)
    costs = ays_costs(path, lambda x, t: x, data, dense, rng(1))
    density = [(4 - s**2) / s**2 for s in (2.0, 1.5, 1.0)]
    gaps = [math.log(2 / 1.5), math.log(1.5)]
    due = (density[0] + density[1]) / 2 * gaps[0]
    assert float(costs[0, 1]) == pytest.approx(due, rel=0.03)
    assert float(costs[0, 2]) == pytest.approx(due + (density[1] + density[2]) / 2 * gaps[1], rel=0.03)


def test_ays_chooses_the_least_divergence(blob):
    path, dense = VariancePreserving(), uniform_log_snr(VariancePreserving(), 24)
    data = blob.means[torch.arange(32) % 4] + blob.spread * torch.randn(32, 6, generator=rng(9)).double()
    costs = ays_costs(path, blob.network(path), data, dense, rng(2))

    def total(times):
        places = [dense.tolist().index(t) for t in times.tolist()]
        return sum(float(costs[a, b]) for a, b in pairwise(places))

    best = total(ays(path, 3, blob.network(path), data, dense, rng(2)))
    others = [total(dense[[0, *inner, 24]]) for inner in combinations(range(1, 24), 2)]
    assert best == pytest.approx(min(others)) and best < 0.9 * total(dense[[0, 8, 16, 24]])


def test_ays_refuses_infinite_ends():
    with pytest.raises(AssertionError, match="log-SNR of dense times"):
        ays_costs(FlowMatching(), lambda x, t: x, torch.zeros(1, 1), uniform_time(FlowMatching(), 3), rng())
