"""Stage 2: one step that lands where the teacher's path ends, and histories of the student's own."""

import pytest
import torch

from controls.errors import UserError
from generator.checkpoint import load_weights
from generator.data.latents import LatentClips
from generator.model.sampler_file import LearnedSampler, save_sampler
from generator.rollout import frame_noise, open_eye
from generator.samplers.sampler import Sampler
from generator.samplers.schedule import uniform_times
from generator.training import consistency
from generator.training.consistency import (
    ConsistencyTraining,
    consistency_loss,
    fixed_times,
    laid_through,
    own_history_loss,
    own_recycled,
)
from generator.training.helpers import step_generator, step_rng


def windows(latents, count: int, frames: int):
    """A batch of a few windows of the tiny data set."""
    return LatentClips(latents, "train").draw(count, frames, step_rng(0, 0))


def fit(dit, loss, steps: int, rate: float = 3e-3) -> list[float]:
    """Losses of plain Adam steps on one batch."""
    optimiser, losses = torch.optim.Adam(dit.parameters(), rate), []
    for step in range(steps):
        optimiser.zero_grad()
        value = loss(step_generator(0, step % 4))
        value.backward()
        optimiser.step()
        losses.append(value.item())
    return losses


def test_consistency_learns_a_clip_by_heart(make_dit, latents):
    student, teacher, batch = make_dit().train(), make_dit(1), windows(latents, 2, 4)
    times = torch.linspace(1, 0, 9, dtype=torch.float64)
    losses = fit(student, lambda g: consistency_loss(student, teacher, batch, batch.recycled, times, 0.25, g), 100)
    assert sum(losses[-4:]) < 0.5 * sum(losses[:4])


def test_at_the_last_time_the_target_is_the_teachers_data(latents):
    """With one interval the student is pulled to x - v(x, 1): the teacher's own one-step guess, whatever it says."""
    batch, times = windows(latents, 2, 3), torch.tensor([1.0, 0.0])

    def teacher(x, recycled, t, actions, rays):
        return x - batch.target

    loss = consistency_loss(teacher, teacher, batch, batch.recycled, times, 1.0, step_generator(0, 0))
    assert loss.item() == pytest.approx(0.0, abs=1e-9)


@pytest.mark.parametrize("reproject", [True, False], ids=["reproject", "last"])
def test_own_history_is_what_a_rollout_would_recycle(make_dit, tiny_vae, latents, reproject):
    """One-step frames are the fixed point: under the rollout's own noise the whole clip gives the rollout again."""
    dit, batch = make_dit(reproject=reproject), windows(latents, 2, 4)
    eye = open_eye(dit, tiny_vae, 90.0)
    recycled = own_recycled(dit, batch, 5, eye)
    assert recycled.shape[2] == dit.config.recycled_channels and not recycled.requires_grad
    last = recycled[:, :, : dit.config.latent_channels]
    assert torch.equal(last[:, 0], batch.first)
    if eye:
        eye.open(batch.first)
        assert torch.equal(
            recycled[:, 0, dit.config.latent_channels :], eye.ahead(batch.look[:, 0], batch.actions[:, 0])
        )
    noise = torch.stack(
        [torch.stack([frame_noise(5 + b, k, batch.first.shape[1:]) for k in range(4)]) for b in range(2)]
    )
    with torch.no_grad():
        made = noise - dit(noise, recycled, torch.ones(2), batch.actions, batch.rays)
    assert torch.allclose(made[:, :-1], last[:, 1:], atol=1e-5)
    assert not torch.allclose(last[:, 1:], batch.target[:, :-1], atol=1e-2)


def test_a_perfect_student_has_no_loss_after_its_own_history(latents):
    batch = windows(latents, 2, 4)
    made = own_history_loss(lambda n, *rest: n - batch.target, batch, batch.recycled, step_generator(0, 0))
    assert made.item() == pytest.approx(0.0, abs=1e-9)


def test_the_picture_loss_is_nothing_for_the_truth_and_grows_with_the_error(tiny_vae, monkeypatch):
    """With a plain distance in the place of LPIPS: what is decoded and compared is the test here."""

    class Plain(torch.nn.Module):
        def forward(self, first, second):
            return (first - second).square().mean((1, 2, 3))

    monkeypatch.setattr(consistency, "Lpips", Plain)
    high, wide = tiny_vae.config.latent_size
    target = torch.randn(2, 4, tiny_vae.config.latent_channels, high, wide)
    loss = consistency.PictureLoss(tiny_vae, 1.0, 2)
    made = (target + 0.1).requires_grad_()
    near, far = (loss(made + shift, target, step_generator(0, 3)) for shift in (0.0, 0.5))
    assert loss(target, target, step_generator(0, 3)) == 0.0
    assert 0.0 < near < far
    near.backward()
    assert made.grad is not None and made.grad.abs().sum() > 0


GRID = torch.tensor([1.0, 0.8, 0.2, 0.0], dtype=torch.float64)


@pytest.fixture
def grid_file(world_folder, tmp_path):
    """A learned grid of the tiny world."""
    path = tmp_path / "nfe-3.yaml"
    sampler = Sampler("ipndm", 3, GRID, GRID)
    save_sampler(path, LearnedSampler(load_weights(world_folder).hash, sampler, "l2", {"learned": 1.0}, []))
    return path


def test_fixed_times_are_shifted_or_a_grids_own_or_laid_through_it(grid_file, world_folder):
    assert torch.equal(fixed_times("8", 4.0, world_folder), uniform_times(8, 4.0))
    assert torch.equal(fixed_times(str(grid_file), 4.0, world_folder), GRID)
    laid = fixed_times(f"{grid_file}:6", 4.0, world_folder).tolist()
    assert laid == pytest.approx([1, 0.9, 0.8, 0.5, 0.2, 0.1, 0])
    odd = laid_through(GRID, 5)
    assert odd[0] == 1 and odd[-1] == 0 and len(odd) == 6 and (odd.diff() < 0).all()


def test_a_stage_trains_on_a_grids_times(grid_file, world_folder, latents, tmp_path, monkeypatch):
    seen, loss = [], consistency.consistency_loss
    monkeypatch.setattr(consistency, "consistency_loss", lambda *given: seen.append(given[4]) or loss(*given))
    config = ConsistencyTraining(
        latents=str(latents), start=str(world_folder), steps=2, batch=1, frames=3, own_history=0.0,
        times=str(grid_file), device="cpu", bf16=False,
    )  # fmt: skip
    run = consistency.train(config, tmp_path / "run", quiet=True)
    assert run.step == 2 and len(seen) == 2 and all(torch.equal(times, GRID) for times in seen)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("0", "give a number from 1"),
        ("FILE:0", "give a number from 1"),
        ("nowhere.yaml", "Cannot read"),
        ("", "give a number from 1"),
    ],
)
def test_times_that_are_none_are_refused(text, said, world_folder):
    with pytest.raises(UserError, match=said):
        fixed_times(text, 4.0, world_folder)


def test_a_grid_of_other_weights_is_refused(grid_file, make_world):
    with pytest.raises(UserError, match="belongs to the weights"):
        fixed_times(str(grid_file), 4.0, make_world(7))
