"""The decoder in tiles is the whole streaming decoder: pictures, memory, and what crosses between neighbours."""

import copy
import dataclasses

import numpy as np
import pytest
import torch

from controls.errors import UserError
from generator.model.ranks import counted
from generator.runtime.eager import EagerDecoder
from generator.runtime.parallel_decoder import TiledDecoder, rows_fault
from generator.tokenizer.vae import PRESETS, VideoVAE
from tests.processes import forks, together

VIDEO = 1e-5  # largest difference of a memory's number, of order 1: convolutions may sum in another order
FRAMES = 4
pytestmark = forks


@pytest.fixture(scope="module")
def paper_like():
    """The paper's kind of decoder, made small: patch 1, time kernels of 3, one scale that keeps the rate."""
    sizes = {"encoder_channels": (4,) * 4, "decoder_channels": (4, 4, 8, 8), "latent_channels": 4, "size": (40, 48)}
    torch.manual_seed(2)
    return VideoVAE(dataclasses.replace(PRESETS["paper"], **sizes, encoder_blocks=(1,) * 4)).eval()


def stream(decoder, latents):
    """Pictures of a clip, uint8 (T, Y, X, 3)."""
    return np.concatenate([decoder.first(latents[:1]), *(decoder.next(z[None]) for z in latents[1:])])


@pytest.mark.parametrize(("count", "kind"), [(2, "paper"), (4, "debug")])
def test_tiles_are_the_whole_decoder(paper_like, tiny_vae, count, kind):
    vae = paper_like if kind == "paper" else tiny_vae  # 5 rows on 2 processes, or 4 rows on 4
    c = vae.config
    latents = torch.randn(2 * FRAMES, c.latent_channels, *c.latent_size, generator=torch.Generator().manual_seed(4))
    whole = EagerDecoder(vae)
    right, after = stream(whole, latents[:FRAMES]), whole.state()
    later = np.concatenate([whole.next(z[None]) for z in latents[FRAMES:]])

    def act(meeting):
        ranks = meeting.join()
        tiled = TiledDecoder(copy.deepcopy(vae), ranks)
        with counted(ranks) as sent:
            made, state = stream(tiled, latents[:FRAMES]), tiled.state()
        tiled.next(latents[:1])  # elsewhere, and back
        tiled.load(state)
        follows = np.concatenate([tiled.next(z[None]) for z in latents[FRAMES:]])
        tiled.load(after if meeting.rank == 0 else {})  # a state of the whole decoder is one of the tiles
        again = np.concatenate([tiled.next(z[None]) for z in latents[FRAMES:]])
        tensors = [torch.from_numpy(array) for array in (made, follows, again)]
        return tensors, {name: torch.from_numpy(array) for name, array in state.items()}, dict(sent)

    told = together(count, act)
    (made, follows, again), state, _ = told[0]
    assert right.std() > 10 and made.shape == right.shape
    for mine, theirs in ((made, right), (follows, later), (again, later)):
        gap = (mine.int() - torch.from_numpy(theirs).int()).abs()
        assert gap.max() <= 1 and gap.float().mean() < 1e-3, "a byte may round the other way, and few do"
    assert state.keys() == after.keys()
    for name, kept in after.items():
        assert (state[name] - torch.from_numpy(kept)).abs().max() < VIDEO and np.abs(kept).max() > 0.1
    for rank, (_, theirs, sent) in enumerate(told):
        assert sent["halo"] > 0 and ("pictures" in sent) == (rank > 0) and (not theirs) == (rank > 0)


def test_more_processes_than_rows_are_refused():
    assert rows_fault(4, 4) == "" and "at most 4" in rows_fault(4, 5)


def test_a_number_that_is_not_finite_in_any_tile_is_told_on_rank_0(tiny_vae):
    c = tiny_vae.config
    latents = torch.randn(2, c.latent_channels, *c.latent_size, generator=torch.Generator().manual_seed(4))
    whole = EagerDecoder(tiny_vae)
    stream(whole, latents)
    poisoned = whole.state()
    last = list(poisoned)[-1]
    poisoned[last][..., -1, -1] = np.nan  # in the lowest row, which is rank 1's

    def act(meeting):
        ranks = meeting.join()
        tiled = TiledDecoder(copy.deepcopy(tiny_vae), ranks)
        tiled.load(poisoned if meeting.rank == 0 else {})
        try:
            tiled.next(latents[:1])
        except UserError as error:
            return str(error)
        return ""

    told = together(2, act)
    assert "no longer finite" in told[0] and told[1] == ""
