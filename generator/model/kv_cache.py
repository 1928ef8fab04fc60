"""Static rolling KV cache: `sink` first latent frames that stay, and a ring of the current and `window` past ones.

Shape key: B batch, A heads, N tokens per latent frame, E head width, S slots = sink + window + 1.
Sink keys are kept without their time rotation: once they have left the window they stand, as seen from the current
frame, directly before it, so no distance ever exceeds what training showed.

Does not know how keys are made or used.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class CacheShape:
    """Sizes of one layer's cache; all counts in latent frames but `tokens`."""

    batch: int
    heads: int
    tokens: int
    head_width: int
    window: int
    sink: int

    @property
    def slots(self) -> int:
        """Latent frames that the cache holds: the sinks, the window, and the current frame."""
        return self.sink + self.window + 1


def slot_of(frame_index: int, window: int, sink: int) -> int:
    """The slot that latent frame `frame_index` is written to."""
    if frame_index < sink:
        return frame_index
    return sink + (frame_index - sink) % (window + 1)


def slot_frame(slot: int, frame_index: int, window: int, sink: int) -> int:
    """The latent frame that a filled slot holds before `frame_index` is written."""
    if slot < sink:
        return slot
    newest = frame_index - 1
    return newest - (newest - sink - (slot - sink)) % (window + 1)


def filled_slots(frame_index: int, window: int, sink: int) -> int:
    """How many slots hold a frame once `frame_index` has been written; filled slots come first."""
    return min(frame_index + 1, sink + window + 1)


def sink_position(sink_index: Tensor, frame_index: Tensor, window: int, sink: int) -> Tensor:
    """Time index under which a sink frame is seen: its own, or directly before the window once it has left it."""
    return torch.maximum(sink_index, frame_index - (window + sink) + sink_index)


@dataclass(frozen=True)
class Past:
    """What one layer remembers of earlier latent frames: keys and values (B, A, K, N, E), frame_index int64 (K,).

    The first `sinks` keys have no time rotation, the others have theirs.
    """

    keys: Tensor
    values: Tensor
    frame_index: Tensor
    sinks: int


class KVCache:
    """Keys and values of every layer in static buffers, written in place at O(1) cost per latent frame.

    `keys` and `values` are (layers, B, A, S, N, E).
    """

    def __init__(self, layers: int, shape: CacheShape, dtype: torch.dtype, device: torch.device) -> None:
        self.shape = shape
        size = (
            layers,
            shape.batch,
            shape.heads,
            shape.slots,
            shape.tokens,
            shape.head_width,
        )
        self.keys = torch.zeros(size, dtype=dtype, device=device)
        self.values = torch.zeros(size, dtype=dtype, device=device)

    def write(self, layer: int, frame_index: int, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor]:
        """Store one frame's key and value (B, A, N, E); returns all filled ones, (B, A, slots * N, E) views."""
        shape = self.shape
        slot = slot_of(frame_index, shape.window, shape.sink)
        self.keys[layer, :, :, slot] = key
        self.values[layer, :, :, slot] = value
        count = filled_slots(frame_index, shape.window, shape.sink)
        return self.keys[layer, :, :, :count].flatten(2, 3), self.values[layer, :, :, :count].flatten(2, 3)

    def past(self, frame_index: int) -> list[Past]:
        """What every layer holds when latent frame `frame_index` is about to be generated: detached copies."""
        shape = self.shape
        count = filled_slots(frame_index - 1, shape.window, shape.sink) if frame_index else 0
        index = [slot_frame(slot, frame_index, shape.window, shape.sink) for slot in range(count)]
        place = torch.tensor(index, dtype=torch.int64, device=self.keys.device)
        sinks = min(shape.sink, count)
        kept = (tensor[:, :, :, :count].detach().clone() for tensor in (self.keys, self.values))
        return [Past(keys, values, place, sinks) for keys, values in zip(*kept, strict=True)]

    def reset(self) -> None:
        """Forget everything; the buffers stay where they are."""
        self.keys.zero_()
        self.values.zero_()

    @property
    def nbytes(self) -> int:
        """Bytes held by both buffers."""
        return 2 * self.keys.numel() * self.keys.element_size()
