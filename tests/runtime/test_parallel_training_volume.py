"""The computed bytes of context-parallel training are those that processes count; the documented table is computed."""

import dataclasses
from collections import Counter
from pathlib import Path

import pytest
import torch

from generator.config import build, preset
from generator.model.discriminator import Discriminator
from generator.model.dit import DiTConfig
from generator.model.ranks import counted
from generator.model.share import Share
from generator.runtime import parallel_training_volume as volume
from generator.runtime.parallel_training_volume import Clips, table
from generator.tokenizer.vae import PRESETS as TOKENIZERS
from generator.training import adaptation, adversarial, consistency, dit_run, parallel
from generator.training.adaptation import AdaptationTraining
from generator.training.adversarial_settings import AdversarialTraining
from generator.training.consistency import ConsistencyTraining
from tests.processes import forks, together

DOCS = Path(__file__).resolve().parents[2] / "docs" / "parallel.md"
FRAMES, CLIPS = 5, 2  # beyond the window of 3


def drawn(c, learns):
    """Frames, and the rest that a pass of either network takes."""
    g = torch.Generator().manual_seed(1)

    def draw(*shape):
        return torch.randn(CLIPS, *shape, generator=g)

    frames = draw(FRAMES, c.latent_channels, c.height, c.width).requires_grad_(learns)
    conditions = draw(FRAMES, c.ticks, c.action_fields), draw(FRAMES, c.ray_channels, c.height, c.width)
    return frames, draw(FRAMES, c.recycled_channels, c.height, c.width), torch.tensor([0.2, 0.7]), *conditions


PASSES = {
    "generator": lambda dit, judge: dit(*drawn(dit.config, False)),
    "generator, checkpointed": lambda dit, judge: dit(*drawn(dit.config, False), checkpointed=True),
    "judge": lambda dit, judge: judge(*drawn(dit.config, False)),
    "judge that guides": lambda dit, judge: judge(*drawn(dit.config, True), checkpointed=True),
}


@forks
@pytest.mark.parametrize(
    ("size", "clip_level", "changes"),
    [(2, False, {"reproject": False}), (4, True, {"heads": 4})],
    ids=["2", "4, clip level"],
)
def test_passes_over_uneven_tokens_send_what_is_computed(make_dit, size, clip_level, changes):
    """9 tokens on 2 and on 4 processes: ranks send different amounts."""
    dit = make_dit(height=6, width=6, **changes)

    def act(meeting):
        ranks, told = meeting.join(), {}
        judge = Discriminator(make_dit(height=6, width=6, **changes), clip_level)
        for network in (dit, judge.body):
            network.spread(Share(ranks, dit.config.heads, dit.config.tokens))
        for name, go in PASSES.items():
            judge.freeze("guides" in name)
            with counted(ranks) as forward, torch.no_grad():
                go(dit, judge)
            with counted(ranks) as both:
                go(dit, judge).sum().backward()
            told[name] = [dict(forward), dict(both)]
        return told

    for rank, told in enumerate(together(size, act)):
        clips, level = Clips(dit.config, size, rank, CLIPS, 4), {"clip_level": clip_level}
        wanted = {
            "generator": [clips.generated(FRAMES), clips.generated(FRAMES, True)],
            "generator, checkpointed": [clips.generated(FRAMES), clips.generated(FRAMES, True, True)],
            "judge": [clips.judged(FRAMES, **level), clips.judged(FRAMES, learns=True, **level)],
            "judge that guides": [
                clips.judged(FRAMES, **level), clips.judged(FRAMES, guides=True, again=True, **level),
            ],
        }  # fmt: skip
        assert told == {name: [dict(sent) for sent in pair] for name, pair in wanted.items()}


@pytest.fixture
def settings(latents, tokenizer_run, parallax_run, monkeypatch):
    """Settings of every stage: one step of two clips, without pictures."""
    monkeypatch.setattr(dit_run, "draw_sheet", lambda run, teacher: None)
    monkeypatch.setattr(dit_run, "draw_metrics", lambda folder: None)
    paths = {"latents": str(latents), "tokenizer": str(tokenizer_run), "parallax": str(parallax_run)}
    return {**paths, "steps": 1, "batch": CLIPS, "frames": 3, "preset": "debug", "device": "cpu", "context": 2}


@forks
@pytest.mark.parametrize(
    ("stage", "bf16", "changes"),
    [
        ("adaptation", True, {}),
        ("consistency", False, {"own_history": 0.0}),
        ("consistency", True, {"own_history": 1.0}),
        ("adversarial", True, {"segments": 2}),
        ("adversarial", False, {"accumulate": 2, "checkpointed": False, "penalty_every": 2}),
    ],
    ids=str,
)
def test_a_step_sends_what_is_computed(settings, make_world, tmp_path, monkeypatch, stage, bf16, changes):
    module = {"adaptation": adaptation, "consistency": consistency, "adversarial": adversarial}[stage]
    kind = {"adaptation": AdaptationTraining, "consistency": ConsistencyTraining, "adversarial": AdversarialTraining}
    start = {} if stage == "adaptation" else {"start": str(make_world(reproject=stage == "consistency"))}
    more = {"least_motion": 0.0, "overlap": 1} if stage == "adversarial" else {}
    config = kind[stage](**settings, **start, **more, **changes, bf16=bf16)

    monkeypatch.setattr("generator.precision.computes_bf16", lambda kind: True)  # where it is imitated too

    def act(meeting):
        monkeypatch.setattr("generator.training.parallel_run.launched", lambda: (meeting.rank, meeting.size))
        monkeypatch.setattr(parallel.Meeting, "arranged", lambda: meeting)
        run = module.train(config, tmp_path / "run", quiet=True)
        return [dict(run.team.context.sent), dataclasses.asdict(run.dit.config)]

    for rank, (sent, sizes) in enumerate(together(2, act)):
        clips = Clips(DiTConfig(**sizes), 2, rank, CLIPS, 2 if bf16 else 4)
        if stage == "adaptation":
            wanted = volume.adaptation(clips, config.frames)
        elif stage == "consistency":
            wanted = volume.consistency(clips, config.frames, config.own_history == 1)
        else:
            more = {"checkpointed": config.checkpointed, "penalised": config.penalty_every == 1}
            part = volume.adversarial(clips, config.frames, config.segments, config.overlap, **more)
            wanted = Counter({name: config.accumulate * count for name, count in part.items()})
        assert sent == dict(wanted)


def large(width, height):
    """The preset aapt-8b at a resolution in pixels."""
    rows, columns = dataclasses.replace(TOKENIZERS["paper"], size=(height, width)).latent_size
    return build(DiTConfig, {**preset("aapt-8b")["dit"], "height": rows, "width": columns}, "dit")


def test_the_documented_table_is_computed():
    cases = [("736x416", 736, 416), ("1280x720", 1280, 720)]
    lines = table([(name, large(*size), ranks) for name, *size in cases for ranks in (2, 4, 8)])
    assert "\n".join(lines) in DOCS.read_text()
