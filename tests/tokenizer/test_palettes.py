"""Few colours that stand for many."""

import pytest
import torch

from generator.tokenizer.palettes import AT_ONCE, alike, few


@pytest.mark.parametrize("count", [0, 1, 40, 2000])
def test_few_colours_stand_for_many(count):
    colour = torch.rand(count, 3, generator=torch.Generator().manual_seed(count)) * 2 - 1
    chosen, which = few(colour, 64)
    assert chosen.shape == (min(64, len(chosen)), 3) and which.shape == (count,)
    if count:
        apart = (chosen[which] - colour).abs().amax(1)
        assert apart.mean() < (0.05 if count <= 40 else 0.3) and apart.max() < 0.8
        assert torch.equal(chosen[which], few(colour, 64)[0][which]), "the same every time"


@pytest.mark.parametrize("count", [0, 3, AT_ONCE + 5])
def test_colours_are_alike_what_they_are_made_of(count):
    generator = torch.Generator().manual_seed(1)
    palette = torch.rand(20, 3, generator=generator) * 2 - 1
    which = torch.randint(20, (count,), generator=generator)
    assert torch.equal(alike(palette[which] + 0.001, palette), which)
