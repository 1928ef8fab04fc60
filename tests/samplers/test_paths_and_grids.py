"""Noise paths by hand and by differences, hand-made grids, and what is refused as a grid."""

import math
from dataclasses import replace
from itertools import pairwise

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from generator.samplers.grids import edm_rho, quadratic_time, uniform_log_snr, uniform_time
from generator.samplers.paths import (
    FlowMatching,
    VarianceExploding,
    VariancePreserving,
    data_and_noise,
    log_snr,
    log_snr_ends,
    network_times_fault,
    times_fault,
)
from generator.samplers.solvers import euler

FINITE = {"flow": FlowMatching(t_max=0.999, t_min=1e-3), "vp": VariancePreserving(), "ve": VarianceExploding()}
GRIDS = (uniform_time, uniform_log_snr, edm_rho, quadratic_time)


def wide(*values):
    return torch.tensor(values, dtype=torch.float64)


@pytest.mark.parametrize("path", FINITE.values(), ids=FINITE)
@given(share=st.floats(0, 1))
@settings(max_examples=30, deadline=None)
def test_time_and_log_snr_invert_each_other(path, share):
    t = wide(path.t_min + share * (path.t_max - path.t_min))
    torch.testing.assert_close(path.time_of(log_snr(path, t)), t, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("path", FINITE.values(), ids=FINITE)
def test_rates_are_the_derivatives(path):
    t = wide(0.03, 0.4, 0.95).requires_grad_()
    alpha_rate, sigma_rate = path.rates(t)
    for value, rate in ((path.alpha(t), alpha_rate), (path.sigma(t), sigma_rate)):
        slope = torch.autograd.grad(value.sum(), t, retain_graph=True)[0] if value.requires_grad else 0 * t
        torch.testing.assert_close(rate, slope)


def test_paths_by_hand():
    vp, ve, flow = VariancePreserving(), VarianceExploding(), FlowMatching()
    assert vp.alpha(wide(1.0)).item() == pytest.approx(math.exp(-19.9 / 4 - 0.05))
    assert (vp.alpha(wide(0.3)) ** 2 + vp.sigma(wide(0.3)) ** 2).item() == pytest.approx(1)
    assert log_snr_ends(ve) == pytest.approx((-math.log(80), -math.log(0.002)))
    assert log_snr_ends(flow) == (-math.inf, math.inf)
    assert log_snr(flow, wide(0.2)).item() == pytest.approx(math.log(4))
    with pytest.raises(AssertionError, match="times from"):
        VariancePreserving(t_min=0.0)


@pytest.mark.parametrize("kind", ["velocity", "noise", "data"])
@pytest.mark.parametrize("path", FINITE.values(), ids=FINITE)
def test_every_prediction_gives_back_data_and_noise(path, kind):
    data, noise, t = torch.randn(2, 4).double(), torch.randn(2, 4).double(), wide(0.35)[0]
    alpha_rate, sigma_rate = path.rates(t)
    said = {"velocity": alpha_rate * data + sigma_rate * noise, "noise": noise, "data": data}[kind]
    x = path.alpha(t) * data + path.sigma(t) * noise
    found = data_and_noise(replace(path, predicts=kind), x, said, t)
    torch.testing.assert_close(found, (data, noise))


def test_predictions_that_say_too_little():
    x = torch.ones(1, 2)
    with pytest.raises(AssertionError, match="nothing about the data"):
        data_and_noise(FlowMatching("noise"), x, x, wide(1.0)[0])
    with pytest.raises(AssertionError, match="nothing about the noise"):
        data_and_noise(FlowMatching("data"), x, x, wide(0.0)[0])


@pytest.mark.parametrize("path", FINITE.values(), ids=FINITE)
@pytest.mark.parametrize("make", GRIDS)
@given(steps=st.integers(1, 40))
@settings(max_examples=15, deadline=None)
def test_grids_fall_between_exact_ends(make, path, steps):
    times = make(path, steps)
    assert len(times) == steps + 1 and times.dtype == torch.float64
    assert times[0] == path.t_max and times[-1] == path.t_min
    assert times_fault(times, path) == ""


def test_grids_by_hand():
    ve = VarianceExploding(t_max=16.0, t_min=1.0)
    assert uniform_time(ve, 3).tolist() == pytest.approx([16, 11, 6, 1])
    assert uniform_log_snr(ve, 4).tolist() == pytest.approx([16, 8, 4, 2, 1])
    assert quadratic_time(ve, 3).tolist() == pytest.approx([16, 9, 4, 1])
    assert edm_rho(ve, 2, rho=2.0).tolist() == pytest.approx([16, 6.25, 1])
    assert edm_rho(ve, 3, rho=1.0).tolist() == pytest.approx([16, 11, 6, 1])
    assert uniform_time(FlowMatching(), 2).tolist() == [1.0, 0.5, 0.0]
    assert edm_rho(VarianceExploding(t_min=0.0), 2)[-1] == 0
    for make in (uniform_log_snr, edm_rho):
        with pytest.raises(AssertionError, match=r"log-SNR runs|infinite"):
            make(FlowMatching(), 4)


@given(st.lists(st.floats(1e-3, 1 - 1e-3), max_size=12, unique=True))
@settings(max_examples=60, deadline=None)
def test_any_falling_list_with_the_right_ends_is_a_grid(inside):
    times = wide(1.0, *sorted(inside, reverse=True), 0.0)
    assert times_fault(times, FlowMatching()) == ""
    assert euler(lambda x, t: x, torch.ones(1, 1), times).isfinite().all()
    assert times_fault(times.float(), FlowMatching()) == "" or (times.float().diff() >= 0).any()


@given(st.lists(st.floats(-1, 2) | st.just(math.nan) | st.just(math.inf), max_size=6))
@settings(max_examples=150, deadline=None)
def test_a_grid_is_refused_exactly_when_it_is_none(values):
    good = (
        len(values) >= 2
        and all(math.isfinite(v) for v in values)
        and all(a > b for a, b in pairwise(values))
        and abs(values[0] - 1) <= 1e-6
        and abs(values[-1]) <= 1e-9
    )
    fault = times_fault(wide(*values), FlowMatching())
    assert (fault == "") == good
    if not good:
        with pytest.raises(AssertionError):
            euler(lambda x, t: x, torch.ones(1, 1), wide(*values))


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ((1.0,), "at least two"),
        ((1.0, math.nan, 0.0), "not finite"),
        ((1.0, 0.5, 0.5, 0.0), "does not fall"),
        ((0.9, 0.5, 0.0), "starts at 0.9, and the path starts at 1.0"),
        ((1.0, 0.5, 0.1), "ends at 0.1, and the path ends at 0.0"),
    ],
)
def test_what_is_said_of_a_wrong_grid(values, said):
    assert said in times_fault(wide(*values), FlowMatching())


def test_what_is_said_of_wrong_network_times():
    times = wide(1.0, 0.5, 0.0)
    assert network_times_fault(wide(1.0, 0.4, 0.0), times) == ""
    assert "network times for" in network_times_fault(wide(1.0, 0.0), times)
    assert "run from" in network_times_fault(wide(0.9, 0.5, 0.0), times)
    assert "outside" in network_times_fault(wide(1.0, 1.5, 0.0), times)
    assert "outside" in network_times_fault(wide(1.0, math.nan, 0.0), times)
