"""The computed bytes per latent frame are those that processes count, and the documented table is computed."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch

from generator.checkpoint import load_weights
from generator.config import build, preset
from generator.model.dit import DiTConfig
from generator.model.ranks import counted
from generator.runtime import parallel
from generator.runtime.parallel_volume import table, volume
from generator.tokenizer.vae import PRESETS as TOKENIZERS
from tests.processes import forks, together

DOCS = Path(__file__).resolve().parents[2] / "docs" / "parallel.md"


@forks
@pytest.mark.parametrize(("backend", "size", "reproject"), [("torch-fp32", 4, True), ("torch-bf16", 2, False)])
def test_computed_bytes_are_those_counted(make_world, backend, size, reproject):
    folder = make_world(heads=4, reproject=reproject)

    def act(meeting):
        crew = parallel.assemble(meeting, parallel.Request(folder, backend, 1))
        with counted(crew.ranks) as begun:
            if meeting.rank:
                crew.follow()
                return [{}, crew.ranks.sent]
            c, rng = crew.weights.config.dit, np.random.default_rng(0)
            made = parallel.lead(crew, backend)
            frame = (1, c.latent_channels, c.height, c.width)
            made.transformer.reset(torch.randn(frame), 1)
            made.decoder.first(torch.randn(frame))
        with counted(crew.ranks) as sent:
            for _ in range(2):
                actions = rng.normal(size=(c.ticks, c.action_fields)).astype(np.float32)
                rays = rng.normal(size=(c.ray_channels, c.height, c.width)).astype(np.float32)
                made.decoder.next(made.transformer.step(actions, rays, torch.randn(frame) if reproject else None))
        crew.stop()
        return [sent, begun]

    config = load_weights(folder).config
    wanted = volume(config.dit, config.tokenizer, size, 4 if backend == "torch-fp32" else 2)
    told = together(size, act)
    assert told[0][0] == {name: 2 * count for name, count in wanted[0].items() if count}
    for (_, sent), want in zip(told[1:], wanted[1:], strict=True):
        assert {name: sent[name] for name in ("attention", "output")} == {
            name: 2 * want[name] for name in ("attention", "output")
        }
        first = sent["pictures"] - 2 * want["pictures"]
        assert 0 < first < want["pictures"], "a lone first picture besides"
        assert 2 * want["halo"] < sent["halo"] < 3 * want["halo"]


def large(width, height, window):
    """The preset aapt-8b and its tokenizer at a resolution in pixels."""
    tokenizer = dataclasses.replace(TOKENIZERS["paper"], size=(height, width))
    rows, columns = tokenizer.latent_size
    sizes = {**preset("aapt-8b")["dit"], "height": rows, "width": columns, "window": window}
    return build(DiTConfig, sizes, "dit"), tokenizer


def test_the_documented_table_is_computed():
    cases = [("736x416, window 30", 736, 416, 30), ("1280x720, window 15", 1280, 720, 15)]
    rows = [(name, *large(*size), ranks) for name, *size in cases for ranks in (2, 4, 8, 24)]
    assert "\n".join(table(rows)) in DOCS.read_text()
