"""How many bytes each process of a shared world sends per latent frame, from the config alone.

Shape key: P ranks, N tokens per latent frame, n a rank's tokens, D width.
A rank sends, to all others together: queries, keys and values of its tokens, and what it attended, per block; what it
read out of its tokens; a row to either neighbour before each 3 x 3 convolution of the decoder; its rows of the pictures
to rank 0. Rank 0 also sends orders and actions. Held to the bytes that were counted in a run by a test.

Does not know about processes, links or time.
"""

from __future__ import annotations

from generator.model.dit import DiTConfig
from generator.model.ranks import size_of, spans
from generator.tokenizer.vae import TokenizerConfig

ORDER_BYTES = 4 * 8  # an order is four whole numbers
PURPOSES = ("attention", "output", "halo", "pictures", "control")


def volume(dit: DiTConfig, tokenizer: TokenizerConfig, ranks: int, value_bytes: int = 2) -> list[dict[str, int]]:
    """Bytes that each rank sends per latent frame after the first, by purpose; `value_bytes` of an activation."""
    tokens = [size_of(span) for span in spans(dit.tokens, ranks)]
    rows = [size_of(span) for span in spans(tokenizer.latent_size[0], ranks)]
    area, others = dit.patch**2, ranks - 1
    read = dit.latent_channels * area + (dit.carried_channels * area if dit.reproject else 0)
    made = []
    for rank in range(ranks):
        traded = 3 * tokens[rank] * others + dit.tokens - tokens[rank]
        neighbours = (rank > 0) + (rank < others)
        video = tokenizer.time * rows[rank] * tokenizer.space * tokenizer.size[1] * 3
        sent = {
            "attention": dit.depth * dit.model_width // ranks * traded * value_bytes,
            "output": max(tokens) * read * others * value_bytes,
            "halo": neighbours * halo_values(tokenizer) * value_bytes,
            "pictures": video if rank else 0,
            "control": 0 if rank else control_bytes(dit) * others,
        }
        made.append({purpose: sent[purpose] for purpose in PURPOSES})
    return made


def halo_values(tokenizer: TokenizerConfig) -> int:
    """Numbers in the rows that one neighbour is sent while a latent frame is decoded."""
    wide, frames = tokenizer.latent_size[1], 1
    total = tokenizer.latent_channels * wide  # before the stem
    channels, blocks = tokenizer.decoder_channels[::-1], tokenizer.decoder_blocks[::-1]
    faster = (False, *tokenizer.halve_time[::-1])
    for scale, (width, count) in enumerate(zip(channels, blocks, strict=True)):
        wide, frames = wide * (2 if scale else 1), frames * (2 if faster[scale] else 1)
        total += 2 * count * width * frames * wide
    return total + channels[-1] * frames * wide  # before the head


def control_bytes(dit: DiTConfig) -> int:
    """Bytes of the two orders of a latent frame with its actions, to one other rank."""
    values = dit.ticks * dit.action_fields + dit.ray_channels * dit.height * dit.width
    if dit.reproject:
        values += dit.ahead_channels * dit.height * dit.width
    return 2 * ORDER_BYTES + 4 * values


def table(rows: list[tuple[str, DiTConfig, TokenizerConfig, int]]) -> list[str]:
    """A Markdown table of the busiest rank's megabytes per latent frame in bf16: lines."""
    lines = ["| case | P | " + " | ".join(PURPOSES) + " | MB sent |", "|---|---|" + "---|" * (len(PURPOSES) + 1)]
    for name, dit, tokenizer, ranks in rows:
        busiest = max(volume(dit, tokenizer, ranks), key=lambda sent: sum(sent.values()))
        parts = " | ".join(f"{busiest[purpose] / 1e6:.2f}" for purpose in PURPOSES)
        lines.append(f"| {name} | {ranks} | {parts} | {sum(busiest.values()) / 1e6:.2f} |")
    return lines
