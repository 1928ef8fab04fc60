"""One network on several processes is the network on one: latents, pictures, bytes sent, and refusals."""

import copy

import pytest
import torch

from generator import rollout
from generator.model.ranks import counted, spans
from generator.model.share import Share
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
            ahead = torch.randn(1, c.latent_channels, c.height, c.width, generator=g) if c.reproject else None
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
