"""One network on several processes is the network on one: latents, pictures, bytes sent, and refusals."""

import copy
import shutil

import numpy as np
import pytest
import torch

from controls.action import Action
from controls.errors import UserError
from generator import rollout
from generator.checkpoint import load_weights
from generator.model.ranks import Meeting, counted, disagreement, spans
from generator.model.share import Share
from generator.runtime import parallel
from generator.runtime.select import open_backend
from generator.world import World
from tests.processes import forks, together

STEPS = 14  # the window of the tiny world is 3, so that it is filled after 4 and long past at the end
LATENT = 2e-5  # largest difference of a latent, which has a standard deviation of about 1: sums are taken in parts
pytestmark = forks


def test_runs_cover_everything_and_differ_by_one_at_most():
    for count, parts in ((8, 2), (1196, 8), (7, 4), (4, 4)):
        found = spans(count, parts)
        sizes = [span.stop - span.start for span in found]
        assert [i for span in found for i in range(count)[span]] == list(range(count))
        assert len(sizes) == parts and max(sizes) - min(sizes) <= 1


def roll(dit, steps=STEPS, prefix=None):
    """Latents (F, C, H, W) of a rollout without a reprojection's pictures: what lies ahead is drawn."""
    c, g = dit.config, torch.Generator().manual_seed(3)
    state = rollout.start(dit, torch.randn(1, c.latent_channels, c.height, c.width, generator=g), seed=5)
    state.prefix = prefix
    made = []
    with torch.inference_mode():
        for _ in range(steps):
            actions = torch.randn(1, c.ticks, c.action_fields, generator=g)
            rays = torch.randn(1, c.ray_channels, c.height, c.width, generator=g)
            ahead = torch.randn(1, c.ahead_channels, c.height, c.width, generator=g) if c.reproject else None
            made.append(rollout.advance(dit, state, actions, rays, ahead).clone())
    return torch.cat(made), state.cache


SIZES = [
    pytest.param(2, {}, id="2"),
    pytest.param(2, {"sink": 0, "height": 6, "width": 6, "reproject": False}, id="2, uneven tokens, no sink"),
    pytest.param(4, {"heads": 4, "height": 6, "width": 6, "sink": 2}, id="4, uneven tokens"),
]


@pytest.mark.parametrize(("count", "changes"), SIZES)
def test_latents_are_those_of_one_process(make_dit, count, changes):
    dit = make_dit(**changes)
    right, whole = roll(dit)

    def act(meeting):
        ranks, mine = meeting.join(), copy.deepcopy(dit)
        mine.spread(Share(ranks, mine.config.heads, mine.config.tokens))
        with counted(ranks) as sent:
            made, cache = roll(mine)
        return made, cache.keys, dict(sent)

    for rank, (made, keys, sent) in enumerate(together(count, act)):
        assert right.std() > 0.3 and made.shape == right.shape
        for name, part in (("before", slice(0, 3)), ("at", slice(3, 5)), ("after", slice(5, None))):
            worst = (made[part] - right[part]).abs().max().item()
            assert worst < LATENT, f"{name} the window fills: {worst}"
        own = dit.config.heads // count
        torch.testing.assert_close(keys, whole.keys[:, :, rank * own : (rank + 1) * own], atol=LATENT, rtol=0)
        assert set(sent) == {"attention", "output"}


def test_a_text_prefix_is_shared_by_heads(make_dit):
    dit = make_dit(text_width=6, heads=4)
    text = torch.randn(1, 5, 6, generator=torch.Generator().manual_seed(1))

    def act(meeting):
        mine = copy.deepcopy(dit)
        mine.spread(Share(meeting.join(), 4, mine.config.tokens))
        return roll(mine, 6, mine.prefill(text))[0]

    right, without = roll(dit, 6, dit.prefill(text))[0], roll(dit, 6)[0]
    assert (right - without).abs().max() > 0.01
    for made in together(2, act):
        assert (made - right).abs().max() < LATENT


# --- a world ---------------------------------------------------------------------------------------------------------
def play(world, picture, look, steps):
    """Pictures of `steps` latent frames with half the keys held and a turning head, uint8 (T, Y, X, 3)."""
    action = Action(np.tile(np.arange(len(world.spec.keys)) % 2, (4, 1)).astype(np.uint8), look)
    return np.concatenate([world.step(action) for _ in range(steps)])


@pytest.mark.parametrize(("changes", "byte"), [
    ({"reproject": False}, 0.002), ({}, 0.3), ({"place": True}, 1.0),
])  # mean difference, of 255: a rounding may be another block of a map  # fmt: skip
def test_a_world_on_two_processes_is_the_world_on_one(make_world, first_picture, monkeypatch, changes, byte):
    world_folder = make_world(**changes)
    look = np.float32([[2, -1]] * 4)
    alone = World(world_folder, "torch-fp32", threads=1)
    right = [alone.reset(first_picture, 7), play(alone, first_picture, look, 6)]
    kept = alone.save_state()
    right += [play(alone, first_picture, look, 3)]

    def act(meeting):
        monkeypatch.setattr(parallel, "launched", lambda: (meeting.rank, meeting.size))
        monkeypatch.setattr(parallel.Meeting, "arranged", lambda: meeting)
        request = parallel.Request(world_folder, "torch-fp32", 1)
        if meeting.rank:
            parallel.follow(request)
            return []
        monkeypatch.setenv("WORLD_SIZE", "2")
        world = World(world_folder, "torch-fp32", threads=1)
        made = [world.reset(first_picture, 7), play(world, first_picture, look, 6)]
        own = world.save_state()
        assert {k: (v.shape, v.dtype) for k, v in own.items() if k != "identity"} == {
            k: (v.shape, v.dtype) for k, v in kept.items() if k != "identity"
        }
        made += [play(world, first_picture, look, 3)]
        with pytest.raises(UserError, match="torch-fp32-x2"):
            world.load_state(kept)
        with pytest.raises(UserError, match="damaged"):
            world.load_state(own | {"transformer.keys": own["transformer.keys"][:1]})
        world.load_state(own)
        made += [play(world, first_picture, look, 3)]
        name = world.info["backend"]
        world._backend.transformer.crew.stop()
        return [torch.from_numpy(video) for video in made], name

    (made, name), _ = together(2, act)
    assert name == "torch-fp32-x2"
    for mine, theirs in zip(made, [*right, right[-1]], strict=True):
        gap = (mine.int() - torch.from_numpy(theirs).int()).abs()
        # bytes on the edge of rounding; a reprojection feeds them back and chooses between pictures by a threshold
        recycles = changes.get("reproject", True)
        assert theirs.std() > 5 and gap.float().mean() < byte and (recycles or gap.max() <= 1)
    assert torch.equal(made[2], made[3]), "a state leads to the same frames"


def test_a_text_prefix_outlives_a_saved_state(make_world):
    """The latents of one process, and after going back to a state the same ones again."""
    folder = make_world(reproject=False, text_width=6)
    text = torch.randn(1, 5, 6, generator=torch.Generator().manual_seed(1))

    def walked(transformer, steps=5, kept=None):
        c, rng, made = load_weights(folder).config.dit, np.random.default_rng(2), []
        transformer.reset(torch.ones(1, c.latent_channels, c.height, c.width), 3)
        for step in range(steps):
            if step == 3 and kept is not None:
                kept |= transformer.state()
            rays = rng.normal(size=(c.ray_channels, c.height, c.width)).astype(np.float32)
            given = rng.normal(size=(c.ticks, c.action_fields)).astype(np.float32), rays
            made.append(transformer.step(*given))
        if kept is not None:
            made += [transformer.load(kept) or transformer.step(*given)]
        return torch.cat(made)

    right, without = (walked(open_backend("torch-fp32", load_weights(folder), 1, t).transformer) for t in (text, None))

    def act(meeting):
        crew = parallel.assemble(meeting, parallel.Request(folder, "torch-fp32", 1, text=text))
        if meeting.rank:
            return crew.follow()
        kept = {}
        transformer = parallel.lead(crew, "torch-fp32").transformer
        made = [walked(transformer), walked(transformer, 4, kept)]
        crew.stop()
        return made

    (made, again), _ = together(2, act)
    assert (right - without).abs().max() > 0.01
    assert (made - right).abs().max() < LATENT
    assert torch.equal(again[3], again[4]), "the step after the state, before and after going back"


def refusal(folders, **request):
    """What each of two processes is told."""

    def act(meeting):
        with pytest.raises(UserError) as told:
            parallel.assemble(meeting, parallel.Request(folders[meeting.rank], "torch-fp32", 1, **request))
        return str(told.value)

    said = together(len(folders), act)
    assert len(set(said)) == 1 and "\n" not in said[0]
    return said[0]


def test_processes_that_do_not_fit_are_all_told_the_same(world_folder, make_world, tmp_path):
    assert "disagree on the weights" in refusal([world_folder, make_world(9)])
    assert "Process 1 stopped: There are no weights" in refusal([world_folder, tmp_path])
    odd = make_world(heads=2, height=6, width=6)
    assert "2 attention heads cannot be shared evenly by 3 processes; start 2" in refusal([odd] * 3)
    assert refusal([world_folder] * 2, nfe=4).startswith("Several processes make")
    assert "--parallel 4 is not the 2 processes" in refusal([world_folder] * 2, parallel=4)
    broken = tmp_path / "broken"
    shutil.copytree(world_folder, broken)
    next(broken.glob("*.safetensors")).write_bytes(b"half")
    assert "Process 1 stopped" in (said := refusal([world_folder, broken])) and "damaged" in said


def test_a_preset_that_differs_is_named_before_the_weights():
    abouts = [{"preset": "debug", "weights": "a"}, {"preset": "pocket", "weights": "b"}]
    assert "disagree on the preset: process 0 has 'debug', process 1 has 'pocket'" in disagreement(abouts, ["", ""])


def test_one_that_does_not_come_is_not_waited_for_forever():
    def act(meeting):
        if meeting.rank:
            return ""
        impatient = Meeting(0, 2, meeting.store, patience=1.0)
        with pytest.raises(UserError, match="within 1 s") as told:
            impatient.agree("request", {})
        return str(told.value)

    assert together(2, act)[0]


def test_the_leader_going_ends_the_others(world_folder):
    def act(meeting):
        crew = parallel.assemble(meeting, parallel.Request(world_folder, "torch-fp32", 1))
        if meeting.rank == 0:
            return ""
        with pytest.raises(UserError, match="leads has gone") as told:
            crew.follow()
        return str(told.value)

    assert together(2, act)[1]
