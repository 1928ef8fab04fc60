"""Seeds, rates, Muon, resume files, budgets, metrics and EMA: what all stages share."""

import json

import numpy as np
import pytest
import torch

from controls.errors import UserError
from generator.training import helpers
from generator.training.ema import Ema
from generator.training.metrics import Metrics, contact_sheet, draw_metrics, read_metrics


def test_seeds_differ_by_seed_step_and_use_and_repeat():
    seeds = {helpers.step_seed(s, k, u) for s in range(5) for k in range(5) for u in ("a", "b")}
    assert len(seeds) == 50 and all(0 <= s < 2**63 for s in seeds)
    draws = [torch.rand(3, generator=helpers.step_generator(1, 2, "noise")) for _ in range(2)]
    assert torch.equal(*draws)


def test_rate_warms_up_holds_and_falls():
    assert helpers.rate_at(0.0, 0, warmup=10) == pytest.approx(0.1)
    assert helpers.rate_at(0.2, 100, warmup=10) == 1.0
    assert helpers.rate_at(1.0, 1000, warmup=10) == pytest.approx(0.02)
    falling = [helpers.rate_at(p / 10, 1000) for p in range(11)]
    assert falling == sorted(falling, reverse=True)


@pytest.mark.parametrize("shape", [(8, 24), (24, 8)])
def test_orthogonalise_brings_singular_values_near_one(shape):
    torch.manual_seed(0)
    values = torch.linalg.svdvals(helpers.orthogonalise(torch.randn(shape)).float())
    assert values.min() > 0.5 and values.max() < 1.4


@pytest.mark.parametrize("shape", [(8, 24), (24, 8)])
def test_matrices_are_made_orthogonal_together_as_one_by_one(shape):
    torch.manual_seed(0)
    matrices = torch.randn(3, *shape) * torch.tensor([0.01, 1.0, 100.0])[:, None, None]
    alone = torch.stack([helpers.orthogonalise(matrix) for matrix in matrices])
    torch.testing.assert_close(helpers.orthogonalise(matrices), alone, rtol=0.0, atol=1e-2)


def test_muon_moves_each_matrix_as_if_it_were_alone():
    torch.manual_seed(0)
    shapes = [(4, 6), (6, 4), (4, 6), (4, 3, 2), (5,) * 2]
    together = [torch.nn.Parameter(torch.randn(shape)) for shape in shapes]
    alone = [torch.nn.Parameter(parameter.detach().clone()) for parameter in together]
    optimisers = [helpers.Muon(together, lr=0.1, decay=0.1), *(helpers.Muon([p], lr=0.1, decay=0.1) for p in alone)]
    for _ in range(3):
        for mine, its in zip(together, alone, strict=True):
            mine.grad = torch.randn(mine.shape)
            its.grad = mine.grad.clone()
        together[-1].grad = alone[-1].grad = None
        for optimiser in optimisers:
            optimiser.step()
    for mine, its in zip(together, alone, strict=True):
        torch.testing.assert_close(mine, its, rtol=0.0, atol=1e-3)


def test_muon_lowers_a_matrix_regression():
    torch.manual_seed(0)
    layer, x = torch.nn.Conv2d(3, 4, 3), torch.randn(8, 3, 6, 6)
    target = torch.nn.Conv2d(3, 4, 3)(x).detach()
    optimisers = helpers.split_optimisers(layer.named_parameters(), lr=1e-2, muon=5e-2)
    assert [type(o).__name__ for o in optimisers] == ["AdamW", "Muon"]
    losses = []
    for step in range(60):
        helpers.set_rate(optimisers, helpers.rate_at(step / 60, step, warmup=5))
        loss = (layer(x) - target).square().mean()
        loss.backward()
        losses.append(loss.item())
        for optimiser in optimisers:
            optimiser.step()
            optimiser.zero_grad()
    assert losses[-1] < 0.1 * losses[0]


def test_split_gives_every_trainable_parameter_to_exactly_one_optimiser():
    model = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.Conv2d(4, 4, 3))
    model[0].bias.requires_grad_(False)
    made = helpers.split_optimisers(model.named_parameters(), 1e-3, 1e-2, plain=lambda n: n.startswith("0."))
    held = [p for o in made for g in o.param_groups for p in g["params"]]
    assert {id(p) for p in held} == {id(p) for p in model.parameters() if p.requires_grad}
    assert len(held) == 3 and len(made[1].param_groups[0]["params"]) == 1


def test_resume_state_comes_back_without_pickle(tmp_path):
    model = torch.nn.Conv2d(3, 4, 3).to(memory_format=torch.channels_last)
    optimisers = helpers.split_optimisers(model.named_parameters(), 1e-3, 1e-2)
    for _ in range(2):
        model(torch.randn(1, 3, 5, 5)).sum().backward()
        for optimiser in optimisers:
            optimiser.step()
    path = tmp_path / "resume.safetensors"
    assert helpers.load_resume(path) is None
    tree = {"step": 2, "name": None, "optimisers": [o.state_dict() for o in optimisers]}
    helpers.save_resume(path, tree)
    again = helpers.load_resume(path)
    assert again["step"] == 2 and again["name"] is None
    fresh = helpers.split_optimisers(model.named_parameters(), 5e-4, 1e-2)
    helpers.load_optimisers(fresh, again["optimisers"])
    assert fresh[0].param_groups[0]["lr"] == 5e-4  # the present command's rate
    for old, new in zip(optimisers, fresh, strict=True):
        for parameter, state in old.state.items():
            for name, value in state.items():
                kept = new.state[parameter][name]
                assert torch.equal(kept, value) and (kept.ndim < 4 or kept.stride() == parameter.stride())


def test_unreadable_weights_are_a_sentence(tmp_path):
    path = tmp_path / "w.safetensors"
    with pytest.raises(UserError, match="not a readable weights file"):
        helpers.load_tensors(path)
    path.write_bytes(b"not tensors at all")
    with pytest.raises(UserError, match="not a readable weights file"):
        helpers.load_tensors(path)


def test_a_failed_write_leaves_the_old_file(tmp_path):
    path = tmp_path / "w.safetensors"
    helpers.save_tensors(path, {"a": torch.ones(2)}, {"n": 1})
    with pytest.raises(TypeError):
        helpers.save_tensors(path, {"a": torch.zeros(2)}, {"n": object()})
    tensors, meta = helpers.load_tensors(path)
    assert torch.equal(tensors["a"], torch.ones(2)) and meta == {"n": 1}


def test_budget_counts_earlier_starts_and_either_limit():
    now = [0.0]
    budget = helpers.Budget(100, 1.0, lambda: now[0])
    now[0] = 30.0
    assert budget.progress(10) == pytest.approx(0.5) and budget.progress(80) == pytest.approx(0.8)
    budget.resume(45.0)
    now[0] += 30.0
    assert budget.spent == pytest.approx(75.0) and budget.progress(0) == 1.0
    with pytest.raises(UserError, match="no end"):
        helpers.Budget(0, 0)


def test_metrics_drop_what_a_resumed_run_repeats(tmp_path):
    metrics = Metrics(tmp_path)
    for step in (1, 2, 3):
        metrics.add(step, loss=step / 3)
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write('{"step": 4, "lo')
    Metrics(tmp_path, 2).add(3, loss=9.0)
    rows = read_metrics(tmp_path / "metrics.jsonl")
    assert [r["step"] for r in rows] == [1, 2, 3] and rows[-1]["loss"] == 9.0
    assert json.loads((tmp_path / "metrics.jsonl").read_text().splitlines()[0])["loss"] == 0.333333
    assert draw_metrics(tmp_path).read_bytes()[:4] == b"\x89PNG"


def test_contact_sheet_takes_rows_of_different_lengths(tmp_path):
    rows = [np.zeros((3, 4, 5, 3), np.uint8), np.full((1, 4, 5, 3), 255, np.uint8)]
    contact_sheet(tmp_path / "sheet.png", rows)
    from PIL import Image

    assert Image.open(tmp_path / "sheet.png").size == (15, 8)


def test_ema_follows_and_resumes():
    model = torch.nn.Linear(2, 2)
    ema = Ema(model, 0.9)
    start = model.weight.detach().clone()
    with torch.no_grad():
        model.weight.add_(1.0)
    for _ in range(200):
        ema.update(model)
    assert torch.allclose(ema.weights["weight"], start + 1, atol=1e-3)
    other = Ema(torch.nn.Linear(2, 2), 0.9)
    other.load(ema.state())
    assert other.updates == 200 and torch.equal(other.weights["weight"], ema.weights["weight"])
    fresh = torch.nn.Linear(2, 2)
    other.copy_to(fresh)
    assert torch.equal(fresh.weight, ema.weights["weight"])
