"""What a processor moves pictures with is what tensors say, and training still gets its gradients."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from generator.tokenizer import reproject, reproject_steps
from generator.tokenizer.parallax import Seen
from generator.tokenizer.reproject import Reprojector, mixed, really_shown

WIDE, HIGH = 96, 64


@pytest.fixture(scope="module")
def turn(tiny_vae, tiny_parallax) -> Reprojector:
    return Reprojector(tiny_vae, 90.0, tiny_parallax)


def drawn(seed: int, *shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def seen_of(seed: int, batch: int = 2) -> Seen:
    return Seen(drawn(seed, batch, 1, HIGH // 4, WIDE // 4).exp() * 0.2, 0.1 * drawn(seed, batch))


def of_tensors(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reproject, "compiled", lambda given: False)


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("seed", range(4))
def test_pixels_come_from_where_tensors_say(turn, monkeypatch, seed, threads):
    monkeypatch.setattr(torch, "get_num_threads", lambda: threads)
    look, moves = 20.0 * drawn(seed, 8, 2), 0.5 * drawn(seed + 9, 8, 3)
    with torch.no_grad():
        made = turn.walk(look, moves, seen_of(seed), (HIGH, WIDE))
        shown = really_shown(made)
        of_tensors(monkeypatch)
        due = turn.walk(look, moves, seen_of(seed), (HIGH, WIDE))
        assert torch.equal(shown, really_shown(made)) and 0 < shown.float().mean() < 1
    # where something is nearly as near as the camera, a rounding is many pixels
    apart = (made - due).abs() / (1 + due.abs())
    assert apart.quantile(0.999) < 1e-4 and apart.mean() < 1e-4, (apart.quantile(0.999), apart.mean())


@given(seed=st.integers(0, 99), spread=st.floats(0.05, 1.0), size=st.tuples(st.integers(3, 9), st.integers(3, 9)))
@settings(max_examples=20, deadline=None)
def test_pictures_are_mixed_as_tensors_mix_them(seed, spread, size):
    high, wide = (2 * side for side in size)
    one, other = drawn(seed, 3, 3, high, wide).clamp(-1, 1), drawn(seed + 1, 3, 3, high, wide).clamp(-1, 1)
    other = torch.lerp(one, other, spread)
    inside, within = (drawn(seed + 2, 3, 1, high, wide) > 0).float(), 0.1 + drawn(seed, 3, 1, 1, 1).abs()
    due = mixed(one, other, inside, within)  # with gradients wanted: by tensors
    with torch.no_grad():
        made = mixed(one, other, inside, within)
    assert torch.allclose(made, due, atol=1e-5)
    assert torch.equal(made[(inside == 0).expand_as(made)], other[(inside == 0).expand_as(made)])


def test_what_is_as_near_as_the_border_is_read_from_it():
    rows = np.arange(12, dtype=np.float32).reshape(3, 4)
    assert reproject_steps.between(rows, np.float32(-5), np.float32(-5)) == 0
    assert reproject_steps.between(rows, np.float32(5), np.float32(5)) == 11
    assert reproject_steps.between(rows, np.float32(0), np.float32(0)) == pytest.approx(5.5)


def test_what_is_no_number_is_not_looked_up_anywhere(turn):
    """A world whose numbers have gone wrong is told so later; reading beyond an array would end the program first."""
    for wrong in (float("nan"), float("inf"), -float("inf")):
        seen = seen_of(0)
        seen.nearness[0, 0, 3, 5] = seen.horizon[1] = wrong
        with torch.no_grad():
            made = turn.walk(drawn(0, 8, 2), drawn(1, 8, 3), seen, (HIGH, WIDE))
            assert made.shape == (8, HIGH, WIDE, 2) and really_shown(made).dtype == torch.bool
            mixed(*(torch.full((2, 3, HIGH, WIDE), wrong) for _ in range(2)), torch.ones(2, 1, HIGH, WIDE), wrong)
    rows = np.ones((3, 4), np.float32)
    assert reproject_steps.between(rows, np.float32("nan"), np.float32("nan")) == 1


def test_training_has_gradients_of_nearness_moves_and_stretch(turn):
    seen, moves = seen_of(3), (0.3 * drawn(5, 8, 3)).requires_grad_()
    seen.nearness.requires_grad_()
    turn.walk(5.0 * drawn(4, 8, 2), moves, seen, (HIGH, WIDE)).square().sum().backward()
    assert seen.nearness.grad is not None and moves.grad is not None
    assert seen.nearness.grad.abs().sum() > 0 and moves.grad.abs().sum() > 0


def test_a_first_walk_finds_all_steps_compiled(turn):
    wide, high = turn.parallax.config.size
    turn.ready()
    for step in (reproject_steps.moved_from, reproject_steps.shown_of, reproject_steps.mixed_of):
        assert step.signatures
    before = [len(step.signatures) for step in (reproject_steps.moved_from, reproject_steps.mixed_of)]
    with torch.no_grad():
        still = torch.zeros(1, 4, 3)
        picture = torch.zeros(1, 3, high, wide)
        turn.moved(picture, still[..., :2], still, turn.parallax.perceive(picture))
        mixed(picture, picture, torch.ones(1, 1, high, wide), torch.ones(1, 1, 1, 1))
    assert before == [len(step.signatures) for step in (reproject_steps.moved_from, reproject_steps.mixed_of)]
