"""Problems with a known end are exact, and the study of them is whole, resumable and honest about who wins."""

import dataclasses
import json
import math

import pytest
import torch

from controls.errors import UserError
from generator.evaluation import exact_study
from generator.evaluation.exact_problems import PATHS, SHAPES, Mixture, Problem, fine_times, problem, runge_kutta
from generator.evaluation.exact_study import Study, due_pieces, open_bench, read, run
from generator.evaluation.exact_tables import beside, best, markdown, shortfalls, summary, write
from generator.samplers.solvers import dpm_solver_pp

WIDE = torch.float64
TINY = Study(
    problems=("flow-2", "ve-2"), solvers=("heun-2", "dpmpp-3", "unipc-bh1-2", "ipndm-3"), calls=(3, 4), pairs=6, held=6,
    fresh=20, batch=6, grid_rounds=3, both_rounds=3, gs_pairs=8, gs_updates=3, curve_updates=4, dense=12, dmn_rounds=2,
)  # fmt: skip


@pytest.mark.parametrize("name", PATHS)
def test_the_end_of_one_gaussians_path_is_the_known_one(name):
    """(x - alpha mean) / std is constant along the ODE."""
    path, mode = PATHS[name]
    mean, spread = torch.tensor([[0.7, -0.3, 0.1]], dtype=WIDE), torch.tensor([0.5, 1.0, 1.4], dtype=WIDE)
    asked = Problem("one", path, mode, Mixture(mean, spread))
    pairs = asked.pairs(20, 3)
    t = torch.tensor([path.t_max, path.t_min], dtype=WIDE)[:, None]
    alpha, sigma = path.alpha(t), path.sigma(t)
    std = (alpha**2 * spread**2 + sigma**2).sqrt()
    due = alpha[1] * mean + std[1] / std[0] * (pairs.noise * asked.scale - alpha[0] * mean)
    torch.testing.assert_close(pairs.target, due, atol=1e-5, rtol=0)


@pytest.mark.parametrize("name", PATHS)
def test_the_reference_is_far_finer_than_what_it_judges(name):
    """Twice the steps change it by less than a hundred thousandth, and another fine solver agrees."""
    asked = problem(name, 64)
    pairs = asked.pairs(5, 0)
    start = pairs.noise * asked.scale
    finer = runge_kutta(asked.mixture, asked.path, start, fine_times(asked.path, 200))
    assert float((finer - pairs.target).abs().max()) < 1e-4 and float((finer - pairs.target).std()) < 1e-5
    solved = dpm_solver_pp(3)(asked.network, start, fine_times(asked.path, 400), asked.path)
    assert float((solved - pairs.target).std()) < 2e-3


@pytest.mark.parametrize("predicts", ["data", "noise", "velocity"])
def test_the_prediction_is_the_posterior_mean(predicts):
    """Against weighted draws: E[data | x_t] from a million samples of a one-dimensional mixture."""
    mixture = Mixture(torch.tensor([[-1.0], [0.8]], dtype=WIDE), torch.tensor([0.3], dtype=WIDE))
    path, generator = dataclasses.replace(PATHS["flow"][0], predicts=predicts), torch.Generator().manual_seed(0)
    x, t = torch.tensor([[0.25]], dtype=WIDE), torch.tensor(0.4, dtype=WIDE)
    data = mixture.draw(200_000, generator)[:, 0]
    noise = (x - 0.6 * data) / 0.4
    weight = torch.softmax(-(noise[0] ** 2) / 2, 0)
    due = {"data": data, "noise": noise[0], "velocity": noise[0] - data}[predicts]
    assert float(mixture.network(path)(x, t)) == pytest.approx(float((weight * due).sum()), abs=0.01)


def test_problems_are_of_about_unit_variance():
    for name in PATHS:
        for size in SHAPES:
            drawn = problem(name, size).mixture.draw(500, torch.Generator().manual_seed(1))
            assert 0.5 < float(drawn.var()) < 2 and drawn.shape[1] == size


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """The file of a tiny study, done in one go."""
    path = tmp_path_factory.mktemp("study") / "exact-problems.json"
    assert run(TINY, path, 0.0, lambda text: None)
    return path


def test_every_solver_stands_beside_every_grid(whole):
    done = read(whole, TINY)
    assert set(done) == set(TINY.problems)
    for pieces in done.values():
        three, four = pieces["3"], pieces["4"]
        assert set(three) == {"dpmpp-3", "unipc-bh1-2", "ipndm-3", "gs"} and set(four) == {*three, "heun-2"}
        hand = {"uniform", "log_snr", "edm", "quadratic", "dmn", "gits", "ays"}
        assert set(four["unipc-bh1-2"]) == hand and set(four["heun-2"]) == (hand - {"dmn"}) | {"ld3"}
        assert set(four["dpmpp-3"]) == hand | {"ld3"} and set(four["gs"]) == {"gs"}
        assert set(four["ipndm-3"]) == hand | {"ld3", "ld3_hard", "ld3_grid", "ld3_published", "curve"}
        listed = [error for made in pieces.values() for errors in made.values() for error in errors.values()]
        assert all(0 < error < math.inf for error in listed)


@pytest.mark.parametrize("name", ["vp-64", "flow-64"])
def test_ld3_beats_every_other_grid_of_its_solver(name):
    """At the study's own size, on fresh noises."""
    study = Study(solvers=("ipndm-3",))
    errors = exact_study.piece(open_bench(name, study), study, 4)["ipndm-3"]
    hand = min(errors[grid] for grid in exact_study.HAND_MADE)
    print(f"{name} NFE 4 iPNDM-3:", {grid: f"{error:.4f}" for grid, error in errors.items()})
    assert errors["ld3"] < 0.95 * hand


def test_figures_are_of_noises_that_nothing_was_learned_from():
    bench = open_bench("ve-2", TINY)
    groups = [pairs.noise for pairs in (bench.train, bench.held, bench.fresh, bench.many)]
    rows = [tuple(row) for group in groups for row in group.tolist()]
    assert len(set(rows)) == len(rows) == 6 + 6 + 20 + 8


def test_a_stopped_study_goes_on_and_ends_the_same(whole, tmp_path):
    path, now = tmp_path / "exact-problems.json", [0.0]

    def clock():
        now[0] += 25.0
        return now[0]

    stops = 0
    while not run(TINY, path, 1.0, lambda text: None, clock):
        stops += 1
        assert stops < 9
    assert stops >= 2 and json.loads(path.read_text()) == json.loads(whole.read_text())
    assert due_pieces(TINY, read(path, TINY)) == []
    kept = path.read_text()
    assert run(TINY, path, 0.0, pytest.fail) and path.read_text() == kept


def test_another_studys_file_is_refused(whole, tmp_path):
    with pytest.raises(UserError, match="other settings; remove it or choose another --out"):
        read(whole, dataclasses.replace(TINY, pairs=7))
    broken = tmp_path / "exact-problems.json"
    broken.write_text("{")
    with pytest.raises(UserError, match="no readable study"):
        run(TINY, broken, 0.0, pytest.fail)
    with pytest.raises(UserError, match="-1 minutes are no time"):
        run(TINY, whole, -1.0, pytest.fail)


def test_the_page_shows_every_figure(whole):
    done = read(whole, TINY)
    write(whole, TINY)
    page = whole.with_suffix(".md").read_text()
    for figures in done["ve-2"]["4"].values():
        for error in figures.values():
            assert f"{error:.4f}" in page
    assert "6 noises" not in page and "over 20 noises" in page and page.count("| flow-2 |") == 2


MADE = {
    "a-2": {"3": {"euler-1": {"uniform": 0.4, "edm": 0.2, "ld3": 0.1}, "dpmpp-3": {"gits": 0.5, "ld3": 0.6},
                  "gs": {"gs": 0.25}}},
    "b-2": {"3": {"euler-1": {"uniform": 0.3, "ld3": 0.6}}},
}  # fmt: skip


def test_ratios_by_hand():
    assert beside(MADE, "ld3", ("euler-1",), 3) == [("a-2", "euler-1", 0.5), ("b-2", "euler-1", 2.0)]
    assert summary(beside(MADE, "ld3", ("euler-1",), 3)) == "1.00 (1/2)"
    assert beside(MADE, "gs", ("dpmpp-3",), 3) == [("a-2", "dpmpp-3", 0.5)] and summary([]) == "-"
    assert best(MADE["a-2"]["3"], ("uniform", "edm", "gits")) == (0.2, "euler-1", "edm")


def test_where_ld3_loses_is_said():
    study = dataclasses.replace(TINY, solvers=("euler-1", "dpmpp-3"), calls=(3,))
    said = "\n".join(shortfalls(MADE, study))
    assert "a-2, dpmpp-3, NFE 3: 1.200" in said and "b-2, euler-1, NFE 3: 2.000" in said and "a-2, euler" not in said
    assert "b-2, NFE 3: of all solvers, none" in said and "a-2, NFE 3: of all" not in said
    assert "Nowhere." in "\n".join(shortfalls({"a-2": {"3": {"euler-1": {"uniform": 2.0, "ld3": 1.0}}}}, study))
    assert "1.200" in markdown(MADE, study)


def test_ld3_is_learned_from_the_best_other_grid(monkeypatch):
    """By validation, in units of its loss there; `ld3_published` from the uniform one in units of 1."""
    seen, learner = [], exact_study.Learner
    monkeypatch.setattr(exact_study, "Learner", lambda *given: seen.append(given) or learner(*given))
    bench = open_bench("ve-2", TINY)
    start = exact_study.common_grids(bench, TINY, 3)["gits"]
    exact_study.learned_grids(bench, TINY, "ipndm-3", start)
    assert [given[6] is start for given in seen] == [True, True, True, False] and seen[3][6] is None
    error = bench.error(bench.held, seen[0][2], start)
    assert [given[0].unit for given in seen] == pytest.approx([error**2] * 3 + [1.0])
    assert [given[0].soft for given in seen] == [True, False, True, True]
    rounds = [given[0].grid_rounds + given[0].both_rounds * given[0].decoupled for given in seen]
    assert len(set(rounds)) == 1 and not seen[2][0].decoupled
