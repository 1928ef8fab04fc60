"""Stage 1: the diffusion objective."""

import torch

from generator.data.latents import LatentClips
from generator.training.adaptation import adaptation_loss
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


def test_adaptation_learns_a_clip_by_heart(make_dit, latents):
    dit, batch = make_dit().train(), windows(latents, 2, 4)
    losses = fit(dit, lambda g: adaptation_loss(dit, batch, 2.0, 0.0, g), 100)
    assert sum(losses[-4:]) < 0.5 * sum(losses[:4])


def test_a_perfect_velocity_has_no_loss(latents):
    """The target is noise - data for every frame of a clip at one time, and the recycled frames are the truth."""
    batch, seen = windows(latents, 3, 4), []

    def oracle(noisy, recycled, t, actions, rays):
        seen.append((t, recycled))
        return (noisy - batch.target) / t.view(-1, 1, 1, 1, 1)

    assert adaptation_loss(oracle, batch, 4.0, 0.0, step_generator(0, 0)).item() < 1e-6
    t, recycled = seen[0]
    assert t.shape == (3,) and t.min() > 0 and t.max() < 1
    last, ahead = recycled.chunk(2, dim=2)
    assert torch.equal(last[:, 0], batch.first) and torch.equal(last[:, 1:], batch.target[:, :-1])
    assert torch.equal(ahead, batch.ahead)


def test_resident_clips_are_put_together_on_their_device(latents):
    kept = LatentClips(latents, "train")
    kept.reside(torch.device("meta"))
    batch, usual = kept.draw(2, 4, step_rng(0, 0)), windows(latents, 2, 4)
    for name in ("first", "target", "ahead"):
        made = getattr(batch, name)
        assert made.is_meta and made.shape == getattr(usual, name).shape and made.dtype == torch.float32
    assert torch.equal(batch.actions, usual.actions) and torch.equal(batch.rays, usual.rays)
    kept.reside(torch.device("cpu"))
    assert torch.equal(kept.draw(2, 4, step_rng(0, 0)).target, usual.target)


def test_clips_are_put_together_within_autocast_as_without_it(latents):
    usual = windows(latents, 2, 4)
    with torch.autocast("cpu", torch.bfloat16):
        batch = windows(latents, 2, 4)
    for name in ("first", "target", "ahead"):
        assert getattr(batch, name).dtype == torch.float32 and torch.equal(getattr(batch, name), getattr(usual, name))
