"""Every solver: its order on a Gaussian with a known solution, its network calls, gradients, and formulas by hand."""

from dataclasses import replace
from itertools import pairwise

import pytest
import torch

from generator.samplers.grids import between_ends, edm_rho, uniform_log_snr, uniform_time, unit
from generator.samplers.paths import FlowMatching, VarianceExploding, VariancePreserving, log_snr, log_snr_ends
from generator.samplers.solvers import (
    HIGHEST_ORDER,
    dpm_solver_pp,
    euler,
    heun,
    in_double,
    ipndm,
    phi_functions,
    solver_named,
    unipc,
)

ORDERS = {"euler": (1,), "heun": (2,), "ipndm": (1, 2, 3, 4)}
SOLVERS = [(name, order) for name in HIGHEST_ORDER for order in ORDERS.get(name, (1, 2, 3))]
every_solver = pytest.mark.parametrize(("name", "order"), SOLVERS)
every_path = pytest.mark.parametrize("kind", ["flow", "vp", "ve"])


def wide(*values):
    return torch.tensor(values, dtype=torch.float64)


def smooth_log_snr(path, steps):
    """Log-SNR with short first and last steps, so that the low orders there do not hide the order between."""
    u, (first, last) = unit(steps), log_snr_ends(path)
    return between_ends(path, path.time_of(first + u * u * (3 - 2 * u) * (last - first)))


@every_path
@every_solver
def test_the_order_of_convergence(name, order, kind, make_span, gaussian, slope):
    """iPNDM keeps its order on steps that are equal in sigma / alpha; UniPC-p has order p + 1."""
    path, steps, grid, due = make_span(kind, 40.0, 0.6), [32, 64, 128, 256], smooth_log_snr, order
    if name == "ipndm":
        path, steps, grid = make_span(kind, 20.0, 0.6), [300, 600, 1200], lambda path, n: edm_rho(path, n, 1.0)
    if name.startswith("unipc"):
        due = order + 1
    solve, network = solver_named(name, order), gaussian.network(path)
    start = gaussian.start(path, wide(1.1, -0.6, 0.4)[None])
    exact = gaussian.end(path, start)
    errors = [(solve(network, start, grid(path, n), path) - exact).norm().item() for n in steps]
    measured = slope(steps, errors)
    print(f"{name}-{order} {kind}: {measured:.2f}")
    assert measured == pytest.approx(due, abs=0.25)


def test_a_first_order_start_shows_where_the_noise_is_low(make_span, gaussian, slope):
    """What the docstring warns of: from sigma / alpha = 1 in equal steps, the third order looks like the second."""
    path, steps = make_span("ve", 1.0, 0.05), [64, 128, 256, 512]
    start = gaussian.start(path, wide(1.1, -0.6, 0.4)[None])
    made = [dpm_solver_pp(3)(gaussian.network(path), start, uniform_log_snr(path, n), path) for n in steps]
    errors = [(x - gaussian.end(path, start)).norm().item() for x in made]
    assert slope(steps, errors) == pytest.approx(2, abs=0.25)


@every_path
@pytest.mark.parametrize("predicts", ["velocity", "noise", "data"])
@every_solver
def test_no_network_call_is_wasted(name, order, predicts, kind, gaussian, make_span):
    path = replace(make_span(kind, 20.0, 0.1), predicts=predicts)
    network, asked = gaussian.network(path), []

    def counting(x, t):
        asked.append(float(t))
        return network(x, t)

    times = uniform_log_snr(path, 5)
    solver_named(name, order)(counting, torch.randn(2, 3).double(), times, path)
    if name == "heun":
        assert asked == [t for pair in pairwise(times.tolist()) for t in pair]
    else:
        assert asked == times.tolist()[:-1]


def test_heun_spares_the_call_that_would_divide_by_nought(gaussian):
    for path, calls in ((VarianceExploding(t_min=0.0), 7), (FlowMatching(), 8)):
        network, asked = gaussian.network(path), []
        times = uniform_time(path, 4)
        made = heun(lambda x, t, n=network, a=asked: a.append(t) or n(x, t), torch.randn(2, 3).double(), times, path)
        assert len(asked) == calls and made.isfinite().all()


def bent(x, t):
    """A network that is no solution of anything, so that every coefficient matters."""
    return torch.sin(x + t) + t / (1 + t) * x.flip(-1)


@every_path
@every_solver
def test_gradients_reach_interior_times_and_network_times(name, order, kind, make_span):
    path, solve = make_span(kind, 4.0, 0.1), solver_named(name, order)
    x = wide(0.9, -0.4, 0.2, 0.7).view(2, 2)
    inside = uniform_log_snr(path, 5)[1:-1].clone().requires_grad_()
    asked = (inside.detach() * 0.98).requires_grad_()
    outside = uniform_log_snr(path, 5)

    def sample(inside, asked):
        times, network_times = (torch.cat([outside[:1], part, outside[-1:]]) for part in (inside, asked))
        return solve(bent, x, times, path, network_times)

    assert torch.autograd.gradcheck(sample, (inside, asked))
    assert torch.autograd.gradcheck(
        lambda inside: solve(bent, x, torch.cat([outside[:1], inside, outside[-1:]]), path), inside
    )


@every_solver
def test_gradients_are_finite_from_pure_noise_to_pure_data(name, order):
    """Flow matching from 1 to 0, where the log-SNR is infinite at both ends; the ends may require gradients too."""
    x, solve = wide(0.9, -0.4).view(1, 2), solver_named(name, order)
    inside = wide(0.8, 0.55, 0.3, 0.1).requires_grad_()
    assert torch.autograd.gradcheck(lambda t: solve(bent, x, torch.cat([wide(1.0), t, wide(0.0)])), inside)
    times = uniform_time(FlowMatching(), 5).requires_grad_()
    solve(bent, x, times).sum().backward()
    assert times.grad is not None and times.grad.isfinite().all() and (times.grad != 0).any()


@every_solver
def test_steps_may_be_tiny_or_huge(name, order, gaussian):
    path = VarianceExploding(t_max=1e4, t_min=1e-4)
    times = wide(1e4, 9999.9999, 1e-1, 0.0999999999, 1e-4).requires_grad_()
    made = solver_named(name, order)(gaussian.network(path), torch.randn(2, 3).double(), times, path)
    made.sum().backward()
    assert made.isfinite().all() and times.grad.isfinite().all()


@every_solver
def test_a_constant_answer_needs_one_step(name, order):
    """Where the network always points to the same data and noise, flow matching is straight for every solver."""
    data, noise = torch.randn(3, 5), torch.randn(3, 5)
    for steps in (1, 2, 5):
        made = solver_named(name, order)(lambda x, t: noise - data, noise, uniform_time(FlowMatching(), steps))
        torch.testing.assert_close(made, data)


@every_solver
def test_dtypes(name, order, gaussian):
    path = FlowMatching()
    network, times, solve = gaussian.network(path), uniform_time(path, 6), solver_named(name, order)
    x, seen = torch.randn(4, 3, generator=torch.Generator().manual_seed(0)), set()

    def single(y, t):
        seen.add(y.dtype)
        return network(y.double(), t).to(y.dtype)

    exact = solve(network, x.double(), times)
    low, high = solve(single, x, times), in_double(solve)(single, x, times)
    assert seen == {torch.float32} and low.dtype == high.dtype == torch.float32 and exact.dtype == torch.float64
    torch.testing.assert_close(high.double(), exact, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(low.double(), exact, rtol=1e-4, atol=1e-4)


def test_network_times_change_the_question_and_not_the_coefficients():
    path, x = FlowMatching(), wide(0.8, -0.2).view(1, 2)
    times, asked = wide(1.0, 0.6, 0.0), wide(1.0, 0.5, 0.0)
    made = euler(bent, x, times, path, asked)
    first = x - 0.4 * bent(x, wide(1.0)[0])
    torch.testing.assert_close(made, first - 0.6 * bent(first, wide(0.5)[0]))
    noisy, t = replace(path, t_max=0.9, predicts="noise"), wide(0.9, 0.5, 0.0)
    one = ipndm(1)(bent, x, t, noisy, wide(0.9, 0.4, 0.0))
    y = ipndm(1)(bent, x, wide(0.9, 0.5), replace(noisy, t_min=0.5))
    torch.testing.assert_close(one, (y - 0.5 * bent(y, wide(0.4)[0])) / 0.5)


@pytest.mark.parametrize("order", [1, 2, 3, 4])
def test_ipndm_by_hand(order):
    """sigma from 5 to 0 in variance exploding: x falls by the step times the weighted noises."""
    weights = {1: [1], 2: [3 / 2, -1 / 2], 3: [23 / 12, -16 / 12, 5 / 12], 4: [55 / 24, -59 / 24, 37 / 24, -9 / 24]}
    levels, x, past = [5.0, 3.0, 2.0, 1.2, 0.5, 0.0], wide(1.0, 2.0).view(1, 2), []
    path = VarianceExploding("noise", 5.0, 0.0)
    made = ipndm(order)(bent, x, wide(*levels), path)
    for now, after in pairwise(levels):
        past = [bent(x, wide(now)[0]), *past][:order]
        x = x + (after - now) * sum(w * e for w, e in zip(weights[len(past)], past, strict=True))
    torch.testing.assert_close(made, x)


def hand_made(path, x, times, corrector, h_of_b):
    """DPM-Solver++(2M) as published, and UniPC-2 with its matrix R, vector b and function B(h) written out."""
    lam, alpha, sigma = log_snr(path, times), path.alpha(times), path.sigma(times)
    old, now, last = None, bent(x, times[0]), len(times) - 2
    for i in range(len(times) - 1):
        h = lam[i + 1] - lam[i]
        base = sigma[i + 1] / sigma[i] * x - alpha[i + 1] * torch.expm1(-h) * now
        b = h_of_b(h)
        x = base
        if 0 < i < last:
            r = (lam[i - 1] - lam[i]) / h
            x = base - alpha[i + 1] * b * 0.5 * (old - now) / r
        if i == last:
            return x
        new = bent(x, times[i + 1])
        if corrector and i == 0:
            x = base - alpha[i + 1] * b * 0.5 * (new - now)
        elif corrector:
            h2 = torch.expm1(-h) / -h - 1
            right = torch.stack([h2 / b, 2 * (h2 / -h - 0.5) / b])
            rho = torch.linalg.solve(torch.stack([torch.ones(2).double(), torch.stack([r, torch.ones_like(r)])]), right)
            x = base - alpha[i + 1] * b * (rho[0] * (old - now) / r + rho[1] * (new - now))
        old, now = now, new
    raise AssertionError


def test_two_step_methods_by_hand():
    path = VariancePreserving("data", t_min=0.05)
    times, x = quadratic(path), wide(0.8, -0.5).view(1, 2)
    bh1, bh2 = (lambda h: -h), (lambda h: torch.expm1(-h))
    for solve, corrector, b in ((dpm_solver_pp(2), False, bh2), (unipc(2, "bh1"), True, bh1), (unipc(2), True, bh2)):
        torch.testing.assert_close(solve(bent, x, times, path), hand_made(path, x, times, corrector, b))


def quadratic(path):
    return between_ends(path, path.t_min + (path.t_max - path.t_min) * (1 - unit(5)) ** 1.5)


def test_order_one_is_the_same_step_for_all_but_unipc():
    """DDIM, whichever prediction carries it; in variance exploding and flow matching Euler is that too."""
    for path in (VarianceExploding(), FlowMatching(), FlowMatching(t_max=0.9, predicts="noise")):
        x, times = torch.randn(2, 3).double(), uniform_time(path, 4)
        made = [solve(bent, x, times, path) for solve in (euler, ipndm(1), dpm_solver_pp(1))]
        torch.testing.assert_close(made[1], made[0])
        torch.testing.assert_close(made[2], made[0])


@pytest.mark.parametrize("z", [-30.0, -5.0, -1.001, -0.999, -0.3, -1e-6, 0.7, 3.0])
def test_phi_functions_against_their_series(z):
    import mpmath

    due = [float(mpmath.hyp1f1(1, k + 1, z) / mpmath.factorial(k)) for k in range(1, 5)]
    assert phi_functions(torch.tensor(z, dtype=torch.float64)).tolist() == pytest.approx(due, rel=1e-12)


def test_what_no_solver_is():
    for name, order in (("euler", 2), ("heun", 1), ("dpmpp", 4), ("unipc", 0), ("ipndm", 5), ("magic", 1)):
        with pytest.raises(AssertionError, match=name):
            solver_named(name, order)
    with pytest.raises(AssertionError):
        unipc(2, "bh3")
