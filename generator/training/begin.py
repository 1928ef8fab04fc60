"""What a CausalDiT stage begins with: tokenizer, transformer and parallax, of weights that exist or of a preset.

Does not know how a run goes on.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from controls.errors import UserError
from generator.checkpoint import load_weights
from generator.config import build, preset
from generator.data.latents import LatentClips, tokenizer_hash
from generator.model.dit import CausalDiT, DiTConfig
from generator.samplers.schedule import token_shift
from generator.tokenizer.parallax import Parallax
from generator.tokenizer.place import place_channels
from generator.tokenizer.place_map import CHANNELS
from generator.tokenizer.vae import VideoVAE
from generator.training.helpers import pick_device
from generator.training.parallax_files import load_parallax
from generator.training.tokenizer import load_tokenizer

if TYPE_CHECKING:
    from generator.training.dit_run import DiTTraining

MAPPED = {place_channels(1.0, checkered, levels=1) for checkered in (False, True)}  # K of places with a map


def open_model(
    config: DiTTraining, clips: LatentClips, parallax: Parallax | None = None
) -> tuple[VideoVAE, CausalDiT, float]:
    """Tokenizer, transformer and time shift to begin with: those of `start`, else a new transformer of the preset.

    A transformer that knew no place gets used to that of the `parallax`.
    Where the latents are of another tokenizer than that of `start`, the one of the settings takes its place: the
    transformer then gets used to it.
    """
    table = preset(config.preset)
    begin = load_weights(Path(config.start)) if config.start else None
    if begin is not None and tokenizer_hash(begin.tokenizer) == clips.tokenizer:
        tokenizer = begin.tokenizer
    elif begin is not None and not Path(config.tokenizer).exists():
        tokenizer = begin.tokenizer  # which `check_fit` refuses
    else:
        tokenizer = load_tokenizer(Path(config.tokenizer))
    sizes = begin.config.dit if begin else build(DiTConfig, table["dit"], "dit")
    if config.window < 0:
        raise UserError(f"A window of {config.window} latent frames cannot be; give 1 or more, or 0 for the preset's.")
    torch.manual_seed(config.seed)
    recycle = config.recycle and sizes.recycle
    told = parallax.place_channels if parallax is not None and sizes.reproject else 0
    changed = {"window": config.window or sizes.window, "recycle": recycle, "place_channels": told}
    dit = CausalDiT(replace(sizes, **changed))
    if begin is not None:
        dit.load_state_dict(with_place(begin.dit, dit))
    return tokenizer, dit, config.shift or (begin.config.shift if begin else token_shift(dit.config.tokens))


def with_place(begin: CausalDiT, dit: CausalDiT) -> dict[str, Tensor]:
    """The weights of `begin` for a transformer that is told of a place, or more of it, which it does not heed at first;
    of one that knew the map of another place it heeds the views of its own. UserError when it knew another one without.
    """
    taken, old, new = dict(begin.state_dict()), begin.config, dit.config
    more = new.place_channels - old.place_channels
    if not more:
        return taken
    area, before = new.patch**2, new.latent_channels + old.recycled_channels
    weight, at = taken["embed.weight"], before * area
    kept, ends = weight[:, :at], [weight[:, at:]]
    if {old.place_channels, new.place_channels} <= MAPPED:  # views of another map mean the same, waves do not
        kept, ends = weight[:, : at - old.place_channels * area], [weight[:, at - CHANNELS * area :]]
        more = new.place_channels - CHANNELS
    elif old.place_channels and more != CHANNELS:
        raise UserError("The world to start from knows a place, and the parallax another one, or none; give its own.")
    taken["embed.weight"] = torch.cat([kept, weight.new_zeros(len(weight), more * area), *ends], dim=1)
    return taken


def open_parallax(config: DiTTraining) -> Parallax | None:
    """The parallax of the settings, else of the weights that the run starts from."""
    if config.parallax:
        found: Parallax | None = load_parallax(Path(config.parallax))
    else:
        found = load_weights(Path(config.start)).parallax if config.start else None
    return found.to(pick_device(config.device)).requires_grad_(False) if found else None
