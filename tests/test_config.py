"""Presets, config dataclasses from plain data, and --set."""

from dataclasses import dataclass

import pytest

from controls.errors import UserError
from generator.config import PRESETS, build, override, preset
from generator.model.dit import DiTConfig
from generator.samplers.schedule import token_shift
from generator.tokenizer.vae import PRESETS as TOKENIZERS


@dataclass(frozen=True)
class Sizes:
    """One field of every kind."""

    count: int
    rate: float = 0.5
    name: str = "a"
    fast: bool = False
    crop: tuple[int, ...] = (1, 2)


@pytest.mark.parametrize("name", PRESETS)
def test_a_preset_fits_its_tokenizer(name):
    table = preset(name)
    tokenizer, dit = TOKENIZERS[table["tokenizer"]], build(DiTConfig, table["dit"], "dit")
    picture = table["picture"]
    assert dit.latent_channels == tokenizer.latent_channels
    assert (dit.height * tokenizer.space, dit.width * tokenizer.space) == (picture["height"], picture["width"])
    assert dit.ticks == tokenizer.time
    assert dit.height % dit.patch == dit.width % dit.patch == 0
    assert dit.model_width % dit.heads == 0 and (dit.model_width // dit.heads) % 4 == 0
    assert token_shift(dit.tokens) > 0


def test_unknown_preset_is_guessed():
    with pytest.raises(UserError, match="pocket"):
        preset("poket")


def test_building_from_plain_data():
    made = build(Sizes, {"count": 3, "rate": 1, "crop": [4, 5]}, "sizes")
    assert made == Sizes(3, 1.0, "a", False, (4, 5)) and isinstance(made.rate, float)


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"cuont": 1}, "did you mean"),
        ({}, "incomplete"),
        ({"count": 1.5}, "sizes.count"),
        ({"count": True}, "sizes.count"),
        ({"count": "many"}, "many"),
        ({"count": None}, "sizes.count"),
        ({"count": 1, "rate": "quick"}, "sizes.rate"),
    ],
)
def test_bad_data_is_a_sentence(values, words):
    with pytest.raises(UserError, match=words):
        build(Sizes, values, "sizes")


def test_overriding():
    made = override(Sizes(1), ["count=7", "rate=1e-3", "fast=true", "name=b"], "sizes")
    assert made == Sizes(7, 1e-3, "b", True)


@pytest.mark.parametrize("text", ["count", "cuont=1", "count=1.5", "count=", "rate=fast", "fast=maybe"])
def test_bad_settings_are_sentences(text):
    with pytest.raises(UserError):
        override(Sizes(1), [text], "sizes")


@pytest.mark.parametrize(("text", "crop"), [("crop=4,5", (4, 5)), ("crop=9", (9,))])
def test_a_list_of_numbers_can_be_set(text, crop):
    assert override(Sizes(1), [text], "sizes").crop == crop
    with pytest.raises(UserError, match=r"sizes\.crop"):
        override(Sizes(1), ["crop=wide"], "sizes")
