"""Schedules by hand, and solvers at their orders of convergence."""

import math
from itertools import pairwise

import pytest
import torch

from generator.samplers.schedule import clean_from_velocity, mix, shift_time, token_shift, uniform_times
from generator.samplers.solvers import euler, heun


def test_shifted_times_by_hand():
    assert uniform_times(4).tolist() == [1.0, 0.75, 0.5, 0.25, 0.0]
    shifted = uniform_times(4, 3.0).tolist()
    assert shifted == pytest.approx([1.0, 2.25 / 2.5, 1.5 / 2.0, 0.75 / 1.5, 0.0])
    assert shift_time(torch.tensor(0.5), 24.0).item() == pytest.approx(12 / 12.5)
    assert uniform_times(1, 24.0).tolist() == [1.0, 0.0] and uniform_times(3, 0.45)[0] == 1.0


@pytest.mark.parametrize("shift", [0.5, 1.0, 4.4, 24.0])
def test_times_fall_from_one_to_nought(shift):
    times = uniform_times(32, shift)
    assert times[0] == 1 and times[-1] == 0 and (times.diff() < 0).all()


def test_the_shift_follows_the_token_count():
    assert token_shift(1196) == 24.0
    assert token_shift(299) == pytest.approx(12.0)
    assert token_shift(40) == pytest.approx(4.39, abs=0.01)


def test_mixing_and_unmixing():
    data, noise = torch.randn(2, 3, 4), torch.randn(2, 3, 4)
    t = torch.tensor([0.25, 1.0])
    x = mix(data, noise, t)
    torch.testing.assert_close(x[0], 0.75 * data[0] + 0.25 * noise[0])
    assert torch.equal(x[1], noise[1])
    torch.testing.assert_close(clean_from_velocity(x, noise - data, t), data)


@pytest.mark.parametrize(("solver", "order"), [(euler, 1), (heun, 2)])
def test_a_solver_converges_at_its_order(solver, order):
    """dx/dt = t x has x(t) = x(1) exp((t^2 - 1) / 2)."""
    start = torch.tensor([1.0, -2.0], dtype=torch.float64)
    exact = start * math.exp(-0.5)
    errors = [
        (solver(lambda x, t: t * x, start, uniform_times(steps)) - exact).abs().max().item()
        for steps in (16, 32, 64, 128)
    ]
    for coarse, fine in pairwise(errors):
        assert math.log2(coarse / fine) == pytest.approx(order, abs=0.15)


@pytest.mark.parametrize("solver", [euler, heun])
def test_a_straight_path_needs_one_step(solver):
    data, noise = torch.randn(5), torch.randn(5)
    made = solver(lambda x, t: noise - data, noise, uniform_times(1))
    torch.testing.assert_close(made, data)


def test_solvers_count_their_evaluations_and_pass_gradients():
    calls, slope = [], torch.tensor(0.5, requires_grad=True)

    def velocity(x, t):
        calls.append(t)
        return slope * x

    euler(velocity, torch.ones(1), uniform_times(4)).sum().backward()
    assert calls == [1.0, 0.75, 0.5, 0.25] and slope.grad is not None and slope.grad != 0
    calls.clear()
    heun(velocity, torch.ones(1), uniform_times(4))
    assert len(calls) == 8
