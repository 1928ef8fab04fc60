"""Clips on several processes: passes, gradients of parameters and of inputs are those of one, for both networks."""

import copy

import pytest
import torch
import torch.distributed as dist

from generator.model.discriminator import Discriminator
from generator.model.kv_cache import Past
from generator.model.share import Share
from tests.processes import forks, together

RELATIVE = 1e-5  # of the norm of each output and gradient: sums are taken in parts
FRAMES = 6  # beyond the window of 3
UNREAD = "blocks.1.attention.text"  # nobody reads the text after the last block
pytestmark = forks

TRANSFORMERS = [
    pytest.param(2, {}, {}, id="2"),
    pytest.param(2, {"sink": 0, "height": 6, "width": 6, "reproject": False}, {}, id="2, uneven tokens, no sink"),
    pytest.param(2, {"sink": 2}, {"past": True, "checkpointed": True}, id="2, behind a past, checkpointed"),
    pytest.param(2, {"text_width": 6}, {"text": True}, id="2, after a text"),
    pytest.param(4, {"heads": 4, "height": 6, "width": 6, "sink": 2}, {}, id="4, uneven tokens"),
    pytest.param(4, {"heads": 4, "text_width": 6}, {"text": True}, id="4, after a text"),
]
JUDGES = [
    pytest.param(2, {}, {}, id="2"),
    pytest.param(2, {"height": 6, "width": 6}, {"clip_level": True}, id="2, clip level, uneven tokens"),
    pytest.param(4, {"heads": 4, "height": 6, "width": 6}, {"shifted": True}, id="4, uneven tokens, shifted"),
    pytest.param(4, {"heads": 4}, {"clip_level": True, "checkpointed": True}, id="4, clip level, checkpointed"),
]


def weighed(made):
    """A loss to which every number of an output matters differently."""
    return (made * torch.linspace(-1, 1, made.numel()).view_as(made)).sum() + made.square().mean()


def measured(network, made, inputs):
    """Output, gradients of what was given, and of every parameter, by name."""
    network.zero_grad(set_to_none=True)
    weighed(made).backward()
    found = {"output": made.detach()} | {f"input {name}": value.grad for name, value in inputs.items()}
    return found | {name: p.grad for name, p in network.named_parameters() if p.grad is not None}


def averaged(found, group=None):
    """As training on several processes has it: the mean of the parameters' gradients."""
    for name, value in found.items():
        if name != "output" and not name.startswith("input"):
            dist.all_reduce(value, group=group)
            value /= dist.get_world_size(group)
    return found


def hold_equal(right, made):
    assert right.keys() == made.keys() and len(right) > 20
    for name, value in right.items():
        if UNREAD in name and not value.any():
            assert not made[name].any()
            continue
        assert value.norm() > 1e-6, f"{name} is nothing, which is easily equalled"
        gap = ((made[name] - value).norm() / value.norm()).item()
        assert gap < RELATIVE, f"{name}: {gap}"


def clip_of(dit, options, share=None):
    """A clip's velocity and the inputs that take gradients."""
    c, g = dit.config, torch.Generator().manual_seed(4)

    def draw(*shape):
        return torch.randn(shape, generator=g)

    noisy = draw(2, FRAMES, c.latent_channels, c.height, c.width).requires_grad_()
    recycled = draw(2, FRAMES, c.recycled_channels, c.height, c.width).requires_grad_()
    conditions = draw(2, FRAMES, c.ticks, c.action_fields), draw(2, FRAMES, c.ray_channels, c.height, c.width)
    inputs, more = {"noisy": noisy, "recycled": recycled}, {"checkpointed": options.get("checkpointed", False)}
    if options.get("text"):
        more["text"] = inputs["text"] = draw(2, 5, c.text_width).requires_grad_()
    if options.get("past"):
        size = (2, c.heads, c.sink + 1, c.tokens, c.model_width // c.heads)
        kept = [(draw(*size), draw(*size)) for _ in range(c.depth)]
        kept = [tuple(share._part(each, 1, [share.heads] * share.size) if share else each for each in p) for p in kept]
        index = torch.arange(c.sink + 1)
        more |= {"past": [Past(k, v, index, c.sink) for k, v in kept], "start": c.sink + 1}
    made = dit(noisy, recycled, torch.tensor([0.3, 0.9]), *conditions, **more)
    return made, inputs


def judged(judge, options):
    """A clip's logits and the inputs that take gradients."""
    c, g = judge.body.config, torch.Generator().manual_seed(4)

    def draw(*shape):
        return torch.randn(shape, generator=g)

    frames = draw(2, FRAMES, c.latent_channels, c.height, c.width).requires_grad_()
    recycled = draw(2, FRAMES, c.recycled_channels, c.height, c.width)
    conditions = draw(2, FRAMES, c.ticks, c.action_fields), draw(2, FRAMES, c.ray_channels, c.height, c.width)
    shift = torch.tensor([[1, 0], [0, 1]]) if options.get("shifted") else None
    checkpointed = options.get("checkpointed", False)
    made = judge(frames, recycled, torch.tensor([0.3, 0.9]), *conditions, checkpointed=checkpointed, shift=shift)
    return made, {"frames": frames}


@pytest.mark.parametrize(("count", "changes", "options"), TRANSFORMERS)
def test_a_clip_and_its_gradients_are_those_of_one_process(make_dit, count, changes, options):
    dit = make_dit(**changes)
    right = measured(dit, *clip_of(dit, options))

    def act(meeting):
        mine = copy.deepcopy(dit)
        share = Share(meeting.join(), mine.config.heads, mine.config.tokens)
        mine.spread(share)
        return averaged(measured(mine, *clip_of(mine, options, share)))

    for made in together(count, act):
        hold_equal(right, made)


@pytest.mark.parametrize(("count", "changes", "options"), JUDGES)
def test_a_judgement_and_its_gradients_are_those_of_one_process(make_dit, count, changes, options):
    judge = Discriminator(make_dit(**changes), options.get("clip_level", False))
    right = measured(judge, *judged(judge, options))

    def act(meeting):
        mine = copy.deepcopy(judge)
        mine.body.spread(Share(meeting.join(), mine.body.config.heads, mine.body.config.tokens))
        return averaged(measured(mine, *judged(mine, options)))

    for made in together(count, act):
        hold_equal(right, made)


def test_neighbours_share_among_themselves(make_dit):
    """Four processes in two pairs: each pair is one process, and sends nothing to the other."""
    dit = make_dit()
    right = measured(dit, *clip_of(dit, {}))

    def act(meeting):
        whole = meeting.join()
        pair, mine = whole.neighbours(2), copy.deepcopy(dit)
        mine.spread(Share(pair, mine.config.heads, mine.config.tokens))
        told = torch.tensor([float(meeting.rank)])
        pair.tell(told)
        came = torch.zeros(1)
        peer = 1 - pair.rank
        pair.trade({peer: torch.tensor([float(meeting.rank)])}, {peer: came}, "test")
        found = averaged(measured(mine, *clip_of(mine, {})), pair.group)
        return found, [pair.rank, int(told), int(came), whole.sent.get("attention", 0), pair.sent["attention"]]

    for rank, (made, (place, told, came, apart, sent)) in enumerate(together(4, act)):
        assert (place, told, came) == (rank % 2, rank // 2 * 2, rank ^ 1), "ranks count within the pair"
        assert apart == 0 < sent
        hold_equal(right, made)
