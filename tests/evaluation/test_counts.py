"""The computed counts are what hooks on the modules count, at debug size; and the paper's model has its size."""

import dataclasses

import pytest
import torch
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from generator.evaluation import counts
from generator.model.dit import CausalDiT
from generator.runtime.build import count_parameters, parse_size, world_config
from generator.tokenizer.streaming import StreamingDecoder
from generator.tokenizer.vae import VideoVAE

TEXT = 7


def config_with(**changes):
    config = world_config("debug")
    return dataclasses.replace(config, dit=dataclasses.replace(config.dit, **changes))


CONFIGS = {
    "text and sinks": config_with(text_width=24, sink=2, reproject=False, depth=3),
    "reprojection": config_with(sink=0),
    "paper's tokenizer": dataclasses.replace(
        config_with(text_width=8),
        tokenizer=dataclasses.replace(
            world_config("aapt-8b").tokenizer,
            encoder_channels=(8, 8, 8, 16), decoder_channels=(4, 8, 8, 16), latent_channels=8, size=(64, 64),
        ),
    ),
}  # fmt: skip


@pytest.fixture(params=CONFIGS)
def config(request):
    return CONFIGS[request.param]


def part_of(name: str) -> str:
    """The part that a module of the transformer belongs to."""
    if "text" in name:
        return "text"
    if name in ("embed", "out", "carry"):
        return "embedding"
    if "attention" in name:
        return "attention linear"
    return "mlp" if ".mlp." in name else "modulation"


class Hooks:
    """Parameters, FLOPs and numbers moved of every product and convolution that runs, by part."""

    def __init__(self, module: nn.Module, part) -> None:
        self.flops, self.numbers = {}, {}
        for name, layer in module.named_modules():
            if isinstance(layer, nn.Linear | nn.Conv2d):
                layer.register_forward_hook(lambda *given, name=name: self.add(part(name), *given))

    def add(self, part, layer, given, made):
        weights = sum(p.numel() for p in layer.parameters())
        self.flops[part] = self.flops.get(part, 0) + 2 * made.numel() * layer.weight[0].numel()
        moved = weights + given[0].numel() + made.numel()
        self.numbers[part] = self.numbers.get(part, 0) + moved


def counted(function):
    """Floating-point operations that torch's own counter sees, attention as plain products among them."""
    with torch.no_grad(), sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        made = function()
    return counter.get_total_flops(), made


def full_step(dit: CausalDiT, prefix):
    """One latent frame once every slot of the cache is filled."""
    c, cache = dit.config, dit.new_cache(1)
    shapes = (c.latent_channels, c.recycled_channels, c.ray_channels)
    noise, recycled, rays = (torch.randn(1, n, c.height, c.width) for n in shapes)
    frame = 3 * (c.window + c.sink)
    given = (noise, recycled, torch.ones(1), torch.randn(1, c.ticks, c.action_fields), rays, cache, frame, prefix)
    return dit.step(*given)


def test_the_transformer(config):
    dit, found = CausalDiT(config.dit).eval(), {p.name: p for p in counts.count(config, TEXT)}
    own = {}
    for name, parameter in dit.named_parameters():
        place = "modulation" if name.endswith("offsets") else part_of(name.rsplit(".", 1)[0])
        own[place] = own.get(place, 0) + parameter.numel()
    assert {name: p.parameters for name, p in found.items() if p.parameters and name != "decoder"} == own
    hooks, prefix = Hooks(dit, part_of), None
    if config.dit.text_width:
        flops, prefix = counted(lambda: dit.prefill(torch.randn(1, TEXT, config.dit.text_width)))
        assert found["text"].flops == flops > hooks.flops["text"]
    flops, _ = counted(lambda: full_step(dit, prefix))
    linear = ("embedding", "attention linear", "mlp", "modulation")
    assert {name: found[name].flops for name in linear} == {name: hooks.flops[name] for name in linear}
    assert found["attention scores"].flops == flops - sum(hooks.flops[name] for name in linear) > 0
    extra = {"attention linear": 2 * config.dit.depth * config.dit.model_width // config.dit.heads}
    extra["modulation"] = sum(block.offsets.numel() for block in dit.blocks)
    assert {n: found[n].numbers for n in linear} == {n: hooks.numbers[n] + extra.get(n, 0) for n in linear}
    kept = dit.new_cache(1)
    read = (
        kept.keys.numel()
        + kept.values.numel()
        + (2 * TEXT * config.dit.model_width * config.dit.depth) * bool(config.dit.text_width)
    )
    rest = 4 * config.dit.depth * config.dit.tokens * config.dit.model_width  # queries, results, new keys and values
    assert found["attention scores"].numbers == read + rest


def test_the_decoder(config):
    vae = VideoVAE(config.tokenizer).eval()
    part = counts.decoder(config.tokenizer)
    assert part.parameters == sum(p.numel() for p in vae.decoder.parameters())
    hooks, streaming = Hooks(vae.decoder, lambda name: "decoder"), StreamingDecoder(vae)
    latent = torch.randn(1, config.tokenizer.latent_channels, *config.tokenizer.latent_size)
    flops, made = counted(lambda: streaming.decode_next(latent, streaming.init_state()))
    assert made[0].shape[1] == 4
    assert part.flops == hooks.flops["decoder"] == flops and part.numbers == hooks.numbers["decoder"]


def test_the_papers_model_has_the_papers_size():
    """8.15 billion parameters, 1,196 tokens, 9.8 TFLOP linear; window 15 at 720p."""
    config = world_config("aapt-8b")
    dit, found = config.dit, {p.name: p for p in counts.count(config, 128)}
    assert (dit.depth, dit.model_width, dit.heads, dit.mlp_ratio, dit.window, dit.sink) == (36, 3072, 24, 4, 30, 1)
    assert dit.tokens == 1196 and dit.text_width and config.picture == (736, 416)
    blocks = sum(found[name].parameters for name in ("attention linear", "mlp", "text"))
    assert blocks - dit.text_width * dit.model_width == pytest.approx(8.15e9, rel=1e-3)
    linear = found["attention linear"].flops + found["mlp"].flops
    assert linear == pytest.approx(9.8e12, rel=0.01)
    assert found["attention scores"].flops == pytest.approx(4 * 1196 * (32 * 1196 + 128) * 3072 * 36)
    wide = world_config("aapt-8b", parse_size("1280x720"))
    assert wide.dit.window == 15 and wide.dit.tokens == 3600 and wide.dit.reference == (26, 46)
    assert sum(p.parameters for p in counts.count(wide, 1)) < count_parameters(wide)


def test_the_table_is_in_bytes():
    config = world_config("debug")
    half, whole = (counts.table(config, 0, width) for width in (2, 4))
    assert whole["bytes"] == 2 * half["bytes"] and whole["flops"] == half["flops"]
    assert sum(p["flops"] for p in half["parts"] if not p["once_a_session"]) == half["flops"]
