"""Large presets are laid out without memory and filled shard by shard with the numbers that a small one would have."""

import dataclasses

import pytest
import torch

from controls.errors import UserError
from generator.model.dit import CausalDiT
from generator.runtime import build
from generator.runtime.build import materialise, on_meta, parse_size, random_weights, world_config

CPU = torch.device("cpu")


def test_a_preset_is_filled_shard_by_shard():
    config, seen = dataclasses.replace(world_config("debug").dit, depth=3, text_width=16, model_width=128), []
    made = materialise(config, CPU, torch.bfloat16, 4, seen.append)
    assert seen == ["around", "block 0", "block 1", "block 2"]
    torch.manual_seed(0)
    whole = CausalDiT(config)
    assert made.state_dict().keys() == whole.state_dict().keys()
    for name, right in whole.named_parameters():
        own = made.get_parameter(name)
        assert own.shape == right.shape and own.dtype == torch.bfloat16 and own.device == CPU, name
        if right.numel() > 500:
            assert own.std().item() == pytest.approx(right.std().item(), rel=0.2), name
        assert own.mean().item() == pytest.approx(right.mean().item(), abs=0.05), name
    assert all(torch.equal(a, b) for a, b in zip(made.buffers(), whole.buffers(), strict=True))
    assert made.space_cos.dtype == torch.float32


def test_seeds_make_the_numbers():
    config = world_config("debug").dit
    one, again, other = (materialise(config, CPU, torch.float32, seed) for seed in (1, 1, 2))
    same = [torch.equal(a, b) for a, b in zip(one.parameters(), again.parameters(), strict=True)]
    assert all(same) and not torch.equal(one.embed.weight, other.embed.weight)
    assert not torch.equal(one.blocks[0].mlp.up.weight, one.blocks[1].mlp.up.weight)


def test_the_meta_device_holds_eight_billion_numbers():
    dit = on_meta(lambda: CausalDiT(world_config("aapt-8b").dit))
    assert {p.device.type for p in dit.parameters()} == {"meta"}
    assert sum(p.numel() for p in dit.parameters()) > 8.1e9


def test_another_resolution_keeps_the_positions_grid():
    weights = random_weights("debug", size=parse_size("128x96", 2))
    assert weights.config.picture == (128, 96) and weights.tokenizer.config.latent_size == (6, 8)
    assert weights.dit.config.window == 2 and weights.dit.config.reference == (2, 2)
    own = random_weights("debug").dit
    assert weights.dit.space_cos.shape[0] == 12 and own.space_cos.shape[0] == 4
    assert weights.dit.space_cos.min() >= own.space_cos.min() - 0.3


@pytest.mark.parametrize(
    ("resolution", "window", "said"),
    [
        ("740x416", 0, "740x416 does not divide: the sides of aapt-8b are multiples of 16; choose 736x416"),
        ("1280", 0, "not of the form WIDTHxHEIGHT"),
        ("0x16", 0, "not of the form"),
        ("", -1, "--window -1 is below 0"),
    ],
)
def test_sizes_that_cannot_be_are_said(resolution, window, said):
    with pytest.raises(UserError, match=said):
        world_config("aapt-8b", parse_size(resolution, window))


def test_too_little_memory_is_said_before_anything_is_made(monkeypatch):
    monkeypatch.setattr(build, "available_memory", lambda device: 30e9)
    monkeypatch.setattr(build, "materialise", None)
    with pytest.raises(UserError, match=r"aapt-8b.*736x416, window 30.*needs \d+\.\d GB here, but 30\.0 GB are free"):
        random_weights("aapt-8b")


def test_the_cache_counts_towards_the_memory():
    config = world_config("debug")
    cache = random_weights("debug").dit.new_cache(1)
    assert build.cache_numbers(config.dit) * 4 == cache.nbytes
    assert build.needed_memory(config, 4, 2) == 4 * (2 * build.count_parameters(config)) + cache.nbytes
