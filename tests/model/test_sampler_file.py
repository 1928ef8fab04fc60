"""Learned samplers on disk: what is written comes back, and whatever else is refused with one sentence."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from controls.errors import UserError
from generator.model.sampler_file import LONGEST_CURVE, LearnedSampler, expect_sampler, load_sampler, save_sampler
from generator.samplers.sampler import Sampler, shifted_sampler
from generator.samplers.schedule import uniform_times

HASH = "ab" * 32


def learned(**changes) -> LearnedSampler:
    given = {"weights": HASH, "sampler": shifted_sampler("ipndm", 3, 4, 5.0), "distance": "l2"}
    given |= {"losses": {"uniform": 0.25, "learned": 1.5e-5}, "curve": [(1.0, 0.5), (0.75, math.nan)]}
    return LearnedSampler(**given | changes)


@pytest.fixture
def path(tmp_path):
    path = tmp_path / "grids" / "nfe-4.yaml"
    save_sampler(path, learned())
    return path


@given(shift=st.floats(0.01, 200), nfe=st.integers(3, 10), off=st.floats(-1, 1))
@settings(max_examples=30, deadline=None)
def test_times_come_back_exactly(shift, nfe, off, tmp_path_factory):
    times = uniform_times(nfe, shift)
    told = times.clone()
    told[1:-1] += off * times.diff().abs().min() / 2
    path = tmp_path_factory.mktemp("grid") / "grid.yaml"
    save_sampler(path, learned(sampler=Sampler("unipc", 3, times, told)))
    back = load_sampler(path, HASH).sampler
    assert torch.equal(back.times, times) and torch.equal(back.network_times, told)
    assert (back.name, back.order, back.nfe) == ("unipc", 3, nfe)


def test_losses_and_curve_come_back(path):
    back = load_sampler(path, HASH)
    assert back.losses == {"uniform": 0.25, "learned": 1.5e-5} and back.distance == "l2"
    assert back.curve[0] == (1.0, 0.5) and math.isnan(back.curve[1][1])
    save_sampler(path, learned(curve=[]))
    assert load_sampler(path, HASH).curve == []
    save_sampler(path, learned(curve=[(n / 7, n / 3) for n in range(5000)]))
    assert 0 < len(load_sampler(path, HASH).curve) <= LONGEST_CURVE


def test_heun_counts_two_calls_an_interval(path):
    save_sampler(path, learned(sampler=shifted_sampler("heun", 2, 6, 2.0)))
    assert len(load_sampler(path, HASH).sampler.times) == 4


WRONG = {
    "other weights": ("weights: ", 'weights: "cdcd" # ', "belongs to the weights 'cdcd', not to 'abababababab'"),
    "a newer format": ("format: 1", "format: 2", "format must be a whole number from 1 to 1"),
    "an unknown solver": ("solver: ipndm", "solver: rk45", "no solver 'rk45'; choose"),
    "a solver that is no name": ("solver: ipndm", "solver: [a]", "solver must be a name"),
    "an order too high": ("order: 3", "order: 5", "no order 5"),
    "other calls": ("nfe: 4", "nfe: 5", "5 times are not 5 network calls of ipndm"),
    "calls beyond the dial": ("nfe: 4", "nfe: 11", "from 1 to 10"),
    "a foreign field": ("order: 3", "ordre: 3", "unknown name 'ordre'; did you mean 'order'"),
    "a missing field": ("distance: l2\n", "", "distance is missing, so this is no learned grid"),
    "a curve of texts": ("[1.0, 0.5]", "[a, 0.5]", "a loss must be a number, found 'a'"),
    "a curve without pairs": ("[1.0, 0.5]", "3", "list of pairs"),
    "a distance that is no name": ("distance: l2", "distance: 2", "distance must be a name"),
    "losses of texts": ("uniform: 0.25", "uniform: no", "a loss must be a number"),
}


@pytest.mark.parametrize("what", WRONG)
def test_what_is_wrong_is_said_in_a_sentence(what, path):
    old, new, said = WRONG[what]
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))
    with pytest.raises(UserError) as caught:
        load_sampler(path, HASH)
    assert said in str(caught.value) and "\n" not in str(caught.value) and str(path) in str(caught.value)


@pytest.mark.parametrize(
    ("field", "values", "said"),
    [
        ("times", "[1.0, 0.5, 0.6, 0.2, 0.0]", "does not fall"),
        ("times", "[0.9, 0.8, 0.6, 0.2, 0.0]", "starts at 0.9"),
        ("times", "[1.0, 0.8, 0.6, 0.2, 0.1]", "ends at 0.1"),
        ("times", "[1.0, 0.8, .nan, 0.2, 0.0]", "plain number from 0 to 1"),
        ("times", "[1.0, 0.8, 1.5, 0.2, 0.0]", "plain number from 0 to 1"),
        ("times", "0.5", "must be a list"),
        ("times", "[1.0, yes, 0.5, 0.2, 0.0]", "plain number"),
        ("network_times", "[1.0, 0.5, 0.0]", "3,) network times for (5,)"),
        ("network_times", "[0.9, 0.8, 0.6, 0.2, 0.0]", "network times run from 0.9"),
    ],
)
def test_a_wrong_grid_is_said_with_its_line(path, field, values, said):
    lines = path.read_text().splitlines()
    number = next(n for n, line in enumerate(lines) if line.startswith(field + ":"))
    lines[number] = f"{field}: {values}"
    path.write_text("\n".join(lines))
    with pytest.raises(UserError, match=rf"line {number + 1}: ") as caught:
        load_sampler(path, HASH)
    assert said in str(caught.value)


@pytest.mark.parametrize("text", ["", "times: [", "- 1\n", "a: 1\na: 2\n", "just words"])
def test_other_files_are_no_grids(tmp_path, text):
    path = tmp_path / "other.yaml"
    path.write_text(text)
    with pytest.raises(UserError, match=r"other\.yaml"):
        load_sampler(path, HASH)
    with pytest.raises(UserError, match="Cannot read"):
        load_sampler(tmp_path / "none.yaml", HASH)


def test_another_sampler_than_the_one_learned_is_refused(path):
    back = load_sampler(path, HASH)
    assert expect_sampler(back, path, "ipndm", 3, 4) is back.sampler is expect_sampler(back, path)
    for wanted, said in (
        ({"solver": "unipc"}, "for solver ipndm, not unipc"),
        ({"order": 2}, "order 3, not 2"),
        ({"nfe": 6}, "nfe 4, not 6"),
    ):
        with pytest.raises(UserError, match=said):
            expect_sampler(back, path, **wanted)


def gs_sampler() -> Sampler:
    generator = torch.Generator().manual_seed(0)
    states, outputs = (torch.randn(3, 3, dtype=torch.float64, generator=generator).tril() for _ in range(2))
    return Sampler("gs", 3, uniform_times(3), uniform_times(3), corrections=(states, outputs))


def test_the_corrections_of_gs_come_back_exactly(tmp_path):
    path, sampler = tmp_path / "gs.yaml", gs_sampler()
    save_sampler(path, learned(sampler=sampler))
    back = load_sampler(path, HASH).sampler
    assert all(torch.equal(a, b) for a, b in zip(back.corrections, sampler.corrections, strict=True))
    assert back.label == sampler.label and back.name == "gs"
    other = Sampler("gs", 3, uniform_times(3), uniform_times(3), corrections=(sampler.corrections[1],) * 2)
    assert other.label != sampler.label


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda text: text.replace("states:", "state:"), "unknown name 'state'; did you mean 'states'"),
        (lambda text: text.replace("states:\n  - [", "states:\n  - [0.5, "), "needs states: 3 rows of 3 numbers"),
        (lambda text: text.replace("solver: gs", "solver: unipc"), "states belong to the solver gs, not to unipc"),
    ],
)
def test_wrong_corrections_are_said(change, said, tmp_path):
    path = tmp_path / "gs.yaml"
    save_sampler(path, learned(sampler=gs_sampler()))
    text = path.read_text()
    assert change(text) != text
    path.write_text(change(text))
    with pytest.raises(UserError) as caught:
        load_sampler(path, HASH)
    assert said in str(caught.value) and "\n" not in str(caught.value)


def test_a_file_of_gs_without_its_corrections_is_refused(path):
    path.write_text(path.read_text().replace("solver: ipndm", "solver: gs"))
    with pytest.raises(UserError, match="the solver gs needs states: 4 rows of 4 numbers"):
        load_sampler(path, HASH)
