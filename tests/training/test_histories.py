"""Own histories: guesses take the truth's place, round after round, on the recorded path."""

import dataclasses
import itertools

import pytest
import torch

from generator.data.encoding import reprojected
from generator.tokenizer.reproject import Reprojector, to_picture
from generator.training.adaptation import AdaptationTraining, adaptation_loss, train
from generator.training.dit_run import open_run
from generator.training.helpers import step_generator, step_rng
from generator.training.histories import OwnHistories, after_own_guesses, true_history


@pytest.fixture(params=[True, False], ids=["reproject", "last"])
def run(request, latents, tokenizer_run, parallax_run, world_folder, make_world, tmp_path):
    """An opened run of stage 1 from a tiny world."""
    start = world_folder if request.param else make_world(reproject=False)
    config = AdaptationTraining(
        latents=str(latents), start=str(start), preset="debug", steps=9, batch=2, frames=4, bf16=False, device="cpu"
    )
    return open_run(config, tmp_path / "run", "adaptation")


def guessed(run, batch) -> torch.Tensor:
    """The recycled frames after one round of guesses."""
    return after_own_guesses(run, true_history(run, batch), step_generator(0, 0)).recycled


def perfect(batch):
    """A student that always guesses the truth."""
    return lambda noise, *rest: noise - batch.target


def test_a_perfect_student_keeps_the_truth(run, monkeypatch):
    batch = run.draw()
    monkeypatch.setattr(run.dit, "forward", perfect(batch))
    made = guessed(run, batch)
    channels = run.dit.config.latent_channels
    assert made.shape == batch.recycled.shape
    torch.testing.assert_close(made[:, :, :channels], batch.recycled[:, :, :channels], atol=1e-5, rtol=1e-5)


def test_what_lies_ahead_is_made_of_the_guesses(run, monkeypatch):
    """From true frames and the expected moves it is what the latents hold; from others it is something else."""
    if not run.dit.config.reproject:
        pytest.skip("this model recycles the last latent alone")
    run.parallax.config = dataclasses.replace(run.parallax.config, agree=0.0)  # shows what is decoded
    batch = run.clips.gather([(0, 0), (1, 0)], 4)
    turn = Reprojector(run.tokenizer, run.world.hfov, run.parallax)
    true = torch.cat([batch.first[0, None], batch.target[0]])
    monkeypatch.setattr(run.dit, "forward", perfect(batch))
    monkeypatch.setattr(run.parallax, "moves", lambda seen, actions, pace, look: (torch.zeros(len(pace), 4, 3), pace))
    still = reprojected(turn, true[None], batch.look[:1], batch.actions[:1], torch.float32)[0][0]
    assert not batch.moves.any(), "the tiny walks stand still"
    made = guessed(run, batch)[0, :, 8:]
    assert (made - still).abs().mean() < 1e-3
    far = dataclasses.replace(batch, moves=batch.moves + 8.0)
    assert (guessed(run, far)[0, :, 8:] - still).abs().mean() > 0.05


def test_the_first_recycled_frame_stays_true_and_a_frame_is_told_of_the_one_before(run):
    batch, channels = run.draw(), run.dit.config.latent_channels
    made = guessed(run, batch)
    assert torch.equal(made[:, 0, :channels], batch.first)
    assert not torch.allclose(made[:, 1:, :channels], batch.target[:, :-1], atol=0.05)
    assert not made.requires_grad


def test_histories_age_and_begin_anew(run, monkeypatch):
    made, guess = [], after_own_guesses
    monkeypatch.setattr(
        "generator.training.histories.after_own_guesses",
        lambda run, before, *rest: (made.append(before), guess(run, before, *rest))[1],
    )
    histories = OwnHistories(run, rounds=2, reuse=2)
    for step in range(12):
        run.step = step
        batch, recycled = histories.draw(step_rng(0, step, "choice"))
        assert recycled.shape == batch.recycled.shape
    assert len(made) == 6 and len(histories.held) == 4
    for k, before in enumerate(made):
        true = torch.equal(before.recycled, before.batch.recycled)
        assert true == (k % 2 == 0), "every other round begins with the truth"
        assert k % 2 == 0 or before.batch is made[k - 1].batch


def test_a_loss_after_an_own_history_sees_it(run):
    batch = run.draw()
    own = guessed(run, batch)
    losses = [adaptation_loss(run.dit, batch, 4.0, 0.0, step_generator(0, 1), given) for given in (None, own)]
    assert losses[0] != losses[1]
    same = adaptation_loss(run.dit, batch, 4.0, 0.0, step_generator(0, 1), batch.recycled)
    assert same == losses[0]


@pytest.mark.parametrize("share", [0.0, 1.0])
def test_a_run_with_and_without_own_histories(latents, tokenizer_run, parallax_run, tmp_path, share):
    config = AdaptationTraining(
        latents=str(latents), tokenizer=str(tokenizer_run), parallax=str(parallax_run), preset="debug", steps=3,
        batch=2, frames=4, own_history=share, log_every=1, device="cpu",
    )  # fmt: skip
    run = train(config, tmp_path / "run", quiet=True)
    text = (tmp_path / "run" / "metrics.jsonl").read_text()
    assert run.step == 3 and ("own_history" in text) == bool(share)


def test_a_history_is_shown_as_play_shows_it(run):
    """The second round follows the composed pictures of the first: what an eye sees of the same guesses."""
    if not run.dit.config.reproject:
        pytest.skip("this model recycles the last latent alone")
    batch = run.draw()
    batch = dataclasses.replace(batch, moves=0 * batch.moves)
    true = true_history(run, batch)
    made = after_own_guesses(run, true, step_generator(0, 0))
    turn = Reprojector(run.tokenizer, run.world.hfov, run.parallax)
    last = made.recycled[:, :, : run.dit.config.latent_channels]
    with torch.no_grad():
        video = to_picture(run.tokenizer.decode(run.tokenizer.denormalise(last)))[:, 5:9]  # of the second latent frame
        seen = run.parallax.perceive(true.pictures[:, 1])
        views = turn.moved(true.pictures[:, 1], batch.look[:, 1], torch.zeros(2, 4, 3), seen)
        shown = turn.compose(views, video)[:, -1]
    torch.testing.assert_close(made.pictures[:, 2], shown, atol=1.1 / 127.5, rtol=0)
    assert torch.equal(made.pictures[:, 0], true.pictures[:, 0])
    assert not torch.equal(made.pictures[:, 2], video[:, -1])


def test_staggered_clips_begin_in_turn(run):
    """After as many draws as there are rounds every clip was begun anew once, and the rest went on."""
    histories = OwnHistories(run, 3, 1, staggered=True)
    places, made = [], []
    for run.step in range(7):
        batch, recycled = histories.draw(step_rng(0, run.step))
        places.append(batch.places)
        made.append(recycled)
        assert recycled.shape == batch.recycled.shape
    changed = [[a != b for a, b in zip(*pair, strict=True)] for pair in itertools.pairwise(places)]
    assert changed == [[True, False], [False, True], [False, False]] * 2
    run.step = 5
    fresh = run.draw("own history", count=1)
    assert fresh.places[0] == places[5][1]
    alone, beside = guessed(run, fresh)[0, 0], made[5][1, 0]  # some processors add up one clip and two in another order
    torch.testing.assert_close(alone, beside, atol=1e-5, rtol=1e-5, msg="the first recycled frame is the true one")
