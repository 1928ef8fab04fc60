"""What one latent frame costs, part by part, computed from the config: parameters, floating-point operations, bytes.

Shape key: N tokens per latent frame, D width, L layers, K keys that a query meets, P text tokens.
Counted for batch 1 at the full window. FLOPs are those of matrix products and convolutions, two for each multiply and
add; element-wise work is not counted. Bytes are the least that must move: every weight once, what each product or
convolution reads and writes, and the keys and values that attention reads (all of them) and writes (one frame's).
The text prefix is computed once a session; `once` marks it. Tests hold all of it to hooks on the modules themselves.

Does not know how fast a machine is, or about the reprojection (depth and encoder), which only small presets have.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from generator.checkpoint import WorldConfig
from generator.model.conditioning import TIME_WIDTH
from generator.model.dit import DiTConfig
from generator.model.layers import MODULATIONS
from generator.tokenizer.vae import TokenizerConfig


@dataclass(frozen=True)
class Part:
    """Cost of one part per latent frame, or once a session where `once` says so. `numbers` moved are not yet bytes."""

    name: str
    parameters: int
    flops: int
    numbers: int
    once: bool = False


@dataclass(frozen=True)
class Product:
    """`times` products of `rows` vectors of `inputs` numbers with a matrix of `outputs` rows and perhaps a bias."""

    rows: int
    inputs: int
    outputs: int
    bias: bool = True
    times: int = 1

    @property
    def parameters(self) -> int:
        """Weights and biases."""
        return self.times * (self.inputs * self.outputs + (self.outputs if self.bias else 0))

    @property
    def flops(self) -> int:
        """Two for each multiply and add."""
        return 2 * self.times * self.rows * self.inputs * self.outputs

    @property
    def numbers(self) -> int:
        """Weights, inputs and outputs."""
        return self.parameters + self.times * self.rows * (self.inputs + self.outputs)


@dataclass(frozen=True)
class Convolution:
    """A side x side convolution at `frames` pictures of `pixels` pixels."""

    inputs: int
    outputs: int
    side: int
    frames: int
    pixels: int

    @property
    def parameters(self) -> int:
        """Weights and biases."""
        return self.inputs * self.outputs * self.side**2 + self.outputs

    @property
    def flops(self) -> int:
        """Two for each multiply and add; padding counts, as it does in the hardware."""
        return 2 * self.inputs * self.outputs * self.side**2 * self.frames * self.pixels

    @property
    def numbers(self) -> int:
        """Weights, inputs and outputs."""
        return self.parameters + self.frames * self.pixels * (self.inputs + self.outputs)


def sum_up(
    name: str, layers: Iterable[Product | Convolution], extra: int = 0, moved: int = 0, once: bool = False
) -> Part:
    """The part made of these layers, with `extra` parameters that no layer has and `moved` further numbers."""
    kept = list(layers)
    return Part(
        name,
        sum(layer.parameters for layer in kept) + extra,
        sum(layer.flops for layer in kept),
        sum(layer.numbers for layer in kept) + extra + moved,
        once,
    )


def keys_met(config: DiTConfig, text_tokens: int) -> int:
    """K: keys that a token meets once the window is full: text, sinks, window and its own latent frame."""
    text = text_tokens if config.text_width else 0
    return text + (config.sink + config.window + 1) * config.tokens


def embedding(config: DiTConfig) -> Part:
    """Patches in, patches out, and the gates of what is carried over."""
    c, n, area = config, config.tokens, config.patch**2
    layers = [
        Product(n, (c.latent_channels + c.recycled_channels + c.ray_channels) * area, c.model_width),
        Product(n, c.model_width, c.latent_channels * area),
    ]
    if c.reproject:
        layers.append(Product(n, c.model_width, c.carried_channels * area))
    return sum_up("embedding", layers)


def attention_linear(config: DiTConfig) -> Part:
    """Query, key, value and output of the video stream, with the gains of their norms."""
    d = config.model_width
    return sum_up("attention linear", projections(config, config.tokens), 2 * config.depth * (d // config.heads))


def projections(config: DiTConfig, rows: int) -> list[Product]:
    """The four projections of every layer's attention, of either stream."""
    d = config.model_width
    return [Product(rows, d, 3 * d, False, config.depth), Product(rows, d, d, False, config.depth)]


def attention_scores(config: DiTConfig, text_tokens: int) -> Part:
    """Queries times keys, weights times values; nothing learned."""
    n, d, keys = config.tokens, config.model_width, keys_met(config, text_tokens)
    read, written = 2 * keys * d + n * d, 2 * n * d + n * d
    return Part("attention scores", 0, config.depth * 4 * n * keys * d, config.depth * (read + written))


def mlps(config: DiTConfig, rows: int) -> list[Product]:
    """The two products of every layer's MLP, of either stream."""
    d, hidden = config.model_width, config.mlp_ratio * config.model_width
    return [Product(rows, d, hidden, times=config.depth), Product(rows, hidden, d, times=config.depth)]


def modulation(config: DiTConfig) -> Part:
    """Time and action to the vectors that all blocks share, and each block's own offsets."""
    d = config.model_width
    layers = [
        Product(1, TIME_WIDTH, d),
        Product(1, d, d),
        Product(1, config.ticks * config.action_fields, d),
        Product(1, d, d),
        Product(1, d, MODULATIONS * d),
        Product(1, d, 2 * d),
        Product(1, d, d, False),
    ]
    return sum_up("modulation", layers, config.depth * MODULATIONS * d)


def text(config: DiTConfig, text_tokens: int) -> Part:
    """The text stream, once a session: its entrance, and its own weights in every block."""
    if not config.text_width:
        return Part("text", 0, 0, 0, True)
    d, p = config.model_width, text_tokens
    layers = [Product(p, config.text_width, d), *projections(config, p), *mlps(config, p)]
    made = sum_up("text", layers, 2 * config.depth * (d // config.heads), config.depth * 4 * p * d, True)
    scores = config.depth * 4 * p * p * d
    return Part(made.name, made.parameters, made.flops + scores, made.numbers, True)


def decoder(config: TokenizerConfig) -> Part:
    """The streaming decoder on one latent frame."""
    channels, kernels = config.decoder_channels[::-1], config.temporal_kernel[::-1]
    blocks, halve = config.decoder_blocks[::-1], config.halve_time[::-1]
    (high, wide), frames = config.latent_size, 1
    pixels = high * wide
    layers = [Convolution(config.latent_channels, channels[0], 3, frames, pixels)]
    for stage, (width, kernel, count) in enumerate(zip(channels, kernels, blocks, strict=True)):
        if stage:
            often = 2 if halve[stage - 1] else 1
            layers.append(Convolution(channels[stage - 1], 4 * often * width, 1, frames, pixels))
            frames, pixels = frames * often, pixels * 4
        pair = [Convolution(width * kernel, width, 3, frames, pixels), Convolution(width, width, 3, frames, pixels)]
        layers += pair * count
    layers.append(Convolution(channels[-1], 3 * config.patch**2, 3, frames, pixels))
    return sum_up("decoder", layers)


def count(config: WorldConfig, text_tokens: int) -> list[Part]:
    """Every part of a world with a text prefix of `text_tokens` (none where the model takes no text)."""
    dit = config.dit
    return [
        embedding(dit),
        attention_linear(dit),
        attention_scores(dit, text_tokens),
        sum_up("mlp", mlps(dit, dit.tokens)),
        modulation(dit),
        text(dit, text_tokens),
        decoder(config.tokenizer),
    ]


def table(config: WorldConfig, text_tokens: int, width: int) -> dict[str, Any]:
    """The counts as plain data, with numbers of `width` bytes; totals are per latent frame, without the text."""
    parts = count(config, text_tokens)
    each = [part for part in parts if not part.once]
    return {
        "preset": config.preset,
        "resolution": list(config.picture),
        "window": config.dit.window,
        "tokens": config.dit.tokens,
        "keys": keys_met(config.dit, text_tokens),
        "text_tokens": text_tokens if config.dit.text_width else 0,
        "parts": [
            {
                "part": part.name,
                "parameters": part.parameters,
                "flops": part.flops,
                "bytes": part.numbers * width,
                "once_a_session": part.once,
            }
            for part in parts
        ],
        "parameters": sum(part.parameters for part in parts),
        "flops": sum(part.flops for part in each),
        "bytes": sum(part.numbers for part in each) * width,
    }
