"""How many bytes each process sends when P of them share the clips they train on (`--set context=P`), from the config.

Shape key: P ranks, N tokens per latent frame, n a rank's tokens, D width.
As in play (parallel_volume.py) a rank trades tokens for heads before the attention of every block and heads for tokens
after it, and gathers what is read out. A gradient takes each trade the other way round; where blocks are checkpointed
their trades are made once more before that. The discriminator's query heads trade keys and values too, and gather their
answers, and the gradient of their queries or of the patches that they judge, whichever learns. Held to the bytes that
were counted in training by a test. Not counted: gathers of weights and sums of gradients, which FSDP2 sends, and a text
prefix, which no stage gives.

Does not know about processes, losses or time.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

from generator.model.discriminator import HEAD_DEPTHS
from generator.model.dit import DiTConfig
from generator.model.ranks import size_of, spans

LATENT_BYTES = 4  # of a number that no autocast touches: patches and their gradients
STAGES = ("adaptation", "consistency", "own history", "adversarial")
Sent = Counter[str]


@dataclass(frozen=True)
class Clips:
    """What one of P ranks has of so many clips that they share; `value_bytes` of an activation."""

    dit: DiTConfig
    ranks: int
    rank: int
    clips: int
    value_bytes: int = 2

    @property
    def trades(self) -> tuple[int, int]:
        """Numbers, per head's share of the width, that leave this rank as tokens become heads, and back."""
        own = size_of(spans(self.dit.tokens, self.ranks)[self.rank])
        return own * (self.ranks - 1), self.dit.tokens - own

    @property
    def most(self) -> int:
        """The most tokens that a rank has: what every rank gives to a gather, for each of the others."""
        return size_of(spans(self.dit.tokens, self.ranks)[0]) * (self.ranks - 1)

    def blocks(self, frames: int, learns: bool, again: bool) -> int:
        """Bytes of all blocks' attention over clips of so many latent frames."""
        to_heads, to_tokens = self.trades
        passes = 2 if learns and again else 1
        traded = passes * (3 * to_heads + to_tokens) + learns * (3 * to_tokens + to_heads)
        return self.dit.depth * self.clips * frames * self.dit.model_width // self.ranks * traded * self.value_bytes

    def generated(self, frames: int, learns: bool = False, again: bool = False) -> Sent:
        """A pass of the generator over clips, or a rollout of them: forward, and if it `learns` backward.

        `again`: its blocks are checkpointed.
        """
        c = self.dit
        read = (c.latent_channels + (c.carried_channels if c.reproject else 0)) * c.patch**2
        output = self.clips * frames * self.most * read * self.value_bytes
        return Counter(attention=self.blocks(frames, learns, again), output=output)

    def judged(
        self, frames: int, learns: bool = False, guides: bool = False, again: bool = False, clip_level: bool = False
    ) -> Sent:
        """A pass of the discriminator over clips: forward, and backward if it `learns`, or `guides` a generator."""
        c, backward, heads = self.dit, learns or guides, len(HEAD_DEPTHS)
        to_heads, to_tokens = self.trades
        share = self.clips * c.model_width // self.ranks * self.value_bytes
        read = heads * 2 * share * frames * (to_heads + backward * to_tokens)
        answers = heads * (1 + learns) * share * (1 if clip_level else frames) * (self.ranks - 1)
        channels = c.latent_channels + c.recycled_channels + c.ray_channels
        patches = self.clips * frames * self.most * channels * c.patch**2 * LATENT_BYTES
        return Counter(attention=self.blocks(frames, backward, again) + read, output=answers + guides * patches)


def adaptation(clips: Clips, frames: int) -> Sent:
    """A step of stage 1."""
    return clips.generated(frames, learns=True)


def consistency(clips: Clips, frames: int, own_history: bool = False) -> Sent:
    """A step of stage 2: teacher and target beside the student, or the student's own rollout before it."""
    before = clips.generated(frames)
    return clips.generated(frames, learns=True) + before + (Counter() if own_history else before)


def adversarial(
    clips: Clips,
    frames: int,
    segments: int = 1,
    overlap: int = 0,
    checkpointed: bool = True,
    penalised: bool = True,
    clip_level: bool = False,
) -> Sent:
    """A step of stage 3 for one part of an update: per segment a rollout, the judge's update, and the generator's."""
    sent: Sent = Counter()
    for number in range(segments):
        length = frames + (overlap if number else 0)
        sent += clips.generated(frames) + clips.generated(frames, learns=True, again=checkpointed)
        for _ in range(4 if penalised else 2):
            sent += clips.judged(length, learns=True, again=checkpointed, clip_level=clip_level)
        sent += clips.judged(length, clip_level=clip_level)
        sent += clips.judged(length, guides=True, again=checkpointed, clip_level=clip_level)
    return sent


def table(rows: list[tuple[str, DiTConfig, int]]) -> list[str]:
    """A Markdown table of the busiest rank's megabytes per clip and latent frame of a step, in bf16: lines."""
    lines = ["| case | P | " + " | ".join(STAGES) + " |", "|---|---|" + "---|" * len(STAGES)]
    for name, dit, ranks in rows:
        each = [Clips(dit, ranks, rank, 1) for rank in range(ranks)]
        steps = (
            [adaptation(clips, 1) for clips in each],
            [consistency(clips, 1) for clips in each],
            [consistency(clips, 1, own_history=True) for clips in each],
            [adversarial(clips, 1) for clips in each],
        )
        most = [max(sent.total() for sent in stage) / 1e6 for stage in steps]
        lines.append(f"| {name} | {ranks} | " + " | ".join(f"{sent:,.0f}" for sent in most) + " |")
    return lines
