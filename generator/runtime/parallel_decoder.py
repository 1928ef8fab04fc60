"""The streaming decoder cut into tiles: each rank decodes some rows of the latent grid, and the picture on rank 0.

Shape key: B batch, T frames at a layer's own rate, C channels, H, W its size, h this rank's rows, Y, X video size.
Before every 3 x 3 convolution a rank trades one row of its input with either neighbour; at the edges of the picture the
missing row is zeros, as the whole decoder pads. The memory of a causal convolution keeps these rows too, so each is
traded once and not again for every frame that looks back at it. The decoder takes no statistics (blocks.py), so nothing
else has to be known of other tiles: the pictures are those of the whole decoder but for the order of sums.

Does not know about latents' origin, transformers, or how processes are started.
"""

from __future__ import annotations

import torch
import torch.nn.functional as nnf
from torch import Tensor, nn

from generator.model.ranks import Ranks, size_of, spans
from generator.runtime.backend import Pixels, State, check_level, level_of, to_array, to_pixels, to_tensor
from generator.tokenizer.blocks import LAST, CausalConv
from generator.tokenizer.blocks import State as Memory
from generator.tokenizer.vae import Decoder, VideoVAE

EDGE = 1  # rows of the neighbour that a 3 x 3 convolution sees


class TiledConv(nn.Module):
    """A `CausalConv` on this rank's rows; `memory` and calls are as there, but its memory has the edges as well."""

    def __init__(self, whole: CausalConv, ranks: Ranks) -> None:
        super().__init__()
        self.conv, self.kernel, self.inputs, self.ranks = whole.conv, whole.kernel, whole.inputs, ranks

    @property
    def memory(self) -> int:
        """How many earlier frames this layer keeps."""
        return self.kernel - 1

    def forward(self, x: Tensor, batch: int, past: Tensor | None) -> tuple[Tensor, Tensor | None]:
        """(T*B) C h W and the memory ((kernel-1)*B) C h+2 W -> outputs (T*B) C' h W and the next memory."""
        padded, rows = self.widen(x), x.shape[0]
        if self.kernel > 1:
            assert past is not None, "a causal convolution needs its memory"
            padded = torch.cat([past, padded], dim=0)
        seen = torch.cat([padded[i * batch : i * batch + rows] for i in range(self.kernel)], dim=1)
        made = nnf.conv2d(seen, self.conv.weight, self.conv.bias, padding=(0, EDGE))
        return made, padded[rows:] if self.kernel > 1 else None

    def widen(self, x: Tensor) -> Tensor:
        """(n, C, h, W) with the nearest row of either neighbour: (n, C, h + 2, W)."""
        rank, last = self.ranks.rank, self.ranks.size - 1
        above, below = x.new_zeros(x[:, :, :EDGE].shape), x.new_zeros(x[:, :, :EDGE].shape)
        gives, takes = {}, {}
        if rank > 0:
            gives[rank - 1], takes[rank - 1] = x[:, :, :EDGE].contiguous(), above
        if rank < last:
            gives[rank + 1], takes[rank + 1] = x[:, :, -EDGE:].contiguous(), below
        self.ranks.trade(gives, takes, "halo")
        return torch.cat([above, x, below], dim=2).contiguous(memory_format=LAST)


def tile_decoder(decoder: Decoder, ranks: Ranks) -> None:
    """Make a decoder (a copy that nobody else uses) one that is called with this rank's rows of the latents."""
    decoder.stem, decoder.head = TiledConv(decoder.stem, ranks), TiledConv(decoder.head, ranks)
    for stage in decoder.stages:
        for block in stage:  # type: ignore[union-attr]
            block.first, block.second = TiledConv(block.first, ranks), TiledConv(block.second, ranks)


def rows_fault(rows: int, ranks: int) -> str:
    """Why a latent grid cannot be cut into so many tiles, or nothing."""
    return f"{rows} rows of latents are fewer than {ranks} processes; start at most {rows}." if rows < ranks else ""


class TiledDecoder:
    """This rank's part of the decoder behind the backend's interface; every rank makes the same calls.

    Pictures and states are whole on rank 0 and empty elsewhere. `vae` is this decoder's own copy.
    """

    def __init__(self, vae: VideoVAE, ranks: Ranks) -> None:
        self.vae, self.ranks = vae, ranks
        config = vae.config
        self.rows = spans(config.latent_size[0], ranks.size)
        self.span = self.rows[ranks.rank]
        self.shapes = [tuple(m.shape) for m in vae.decoder.init_state(1, config.latent_size, vae.shift)]
        tile_decoder(vae.decoder, ranks)
        self.memory: Memory = tuple(self._empty(number) for number in range(len(self.shapes)))

    def first(self, latent: Tensor) -> Pixels:
        """Normalised latent 0 (1, C, H, W) to one picture, uint8 (1, Y, X, 3)."""
        self.memory = tuple(torch.zeros_like(m) for m in self.memory)
        return self._decode(latent, True)

    def next(self, latent: Tensor) -> Pixels:
        """A later latent frame to its pictures, uint8 (4, Y, X, 3)."""
        return self._decode(latent, False)

    @torch.inference_mode()
    def _decode(self, latent: Tensor, first: bool) -> Pixels:
        weight = next(self.vae.decoder.parameters())
        own = self.vae.denormalise(latent[:, :, self.span].to(weight))
        video, memory = self.vae.decoder(own[:, None], self.memory, first)
        self.memory = tuple(m.contiguous(memory_format=LAST) for m in memory)
        picture = self._picture(torch.from_numpy(to_pixels(video.cpu())).to(weight.device))
        for level in self.ranks.collect(level_of(video), [(1,)] * len(self.rows), "level"):
            check_level(float(level))  # last, so that nobody is left waiting
        return picture

    def _picture(self, tile: Tensor) -> Pixels:
        """Rows of a picture (T, y, X, 3) to all of them, on rank 0."""
        space = self.vae.config.space
        shapes = [(len(tile), size_of(rows) * space, *tile.shape[2:]) for rows in self.rows]
        parts = self.ranks.collect(tile, shapes, "pictures")
        return torch.cat(parts, dim=1).cpu().numpy() if parts else to_pixels(torch.zeros(1, 0, 3, 0, 0))

    def _scales(self) -> list[int]:
        """Rows of each memory per row of latents."""
        return [shape[2] // self.vae.config.latent_size[0] for shape in self.shapes]

    def state(self) -> State:
        """The whole memory, as the decoder on one process keeps it; empty but on rank 0."""
        made = {}
        for number, (own, scale) in enumerate(zip(self.memory, self._scales(), strict=True)):
            shapes = [(*own.shape[:2], size_of(rows) * scale, own.shape[3]) for rows in self.rows]
            parts = self.ranks.collect(own[:, :, EDGE:-EDGE].contiguous(), shapes, "state")
            if parts:
                made[str(number)] = to_array(torch.cat(parts, dim=2))
        return made

    def load(self, state: State) -> None:
        """Continue from `state()`, which rank 0 has; the others give an empty one."""
        like, made = next(self.vae.decoder.parameters()), []
        for number, scale in enumerate(self._scales()):
            parts: list[Tensor] = []
            if self.ranks.rank == 0:
                padded = nnf.pad(to_tensor(state[str(number)], like), (0, 0, EDGE, EDGE))
                parts = [padded[:, :, span.start * scale : span.stop * scale + 2 * EDGE] for span in self.rows]
            own = self.ranks.deal(parts, self._empty(number), "state")
            made.append(own.contiguous(memory_format=LAST))
        self.memory = tuple(made)

    def _empty(self, number: int) -> Tensor:
        """One memory of this rank's rows and their edges before the first latent."""
        like, shape = next(self.vae.decoder.parameters()), self.shapes[number]
        rows = size_of(self.span) * self._scales()[number] + 2 * EDGE
        return like.new_zeros(*shape[:2], rows, shape[3]).contiguous(memory_format=LAST)
