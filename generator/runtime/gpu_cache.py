"""The ring cache of the GPU runtime: buffers that never move, written by a slot number that lives on the GPU.

Shape key: L layers, A heads, N tokens per latent frame, E head width, P text tokens, S slots = sink + window + 1.
One buffer per layer holds, side by side along the keys, the text prefix, the sinks and the ring, so that attention
reads a plain slice and nothing is concatenated. Sinks are kept a second time without their time rotation, and are
turned anew in their slots at every step. With fp8, rows are stored as e4m3 with a scale each, and one layer at a time
is spread out in a shared buffer for the kernel: half the memory, more traffic.

Does not know about weights, graphs or pictures.
"""

from __future__ import annotations

import torch
from torch import Tensor

from generator.model.dit import DiTConfig, Prefix
from generator.model.kv_cache import filled_slots
from generator.runtime.fp8 import E4M3, from_fp8, to_fp8


class GpuCache:
    """Keys and values (L, A, P + S N, E) of one rollout, in `dtype` or in fp8."""

    def __init__(self, config: DiTConfig, text: int, dtype: torch.dtype, device: torch.device, fp8: bool) -> None:
        c = self.config = config
        self.text, self.fp8, self.dtype = text, fp8, dtype
        self.head = c.model_width // c.heads
        self.length = text + (c.sink + c.window + 1) * c.tokens
        size = (c.depth, c.heads, self.length, self.head)
        kind = E4M3 if fp8 else dtype
        self.keys, self.values = (torch.zeros(size, dtype=kind, device=device) for _ in range(2))
        scales = (*size[:3], 1) if fp8 else (0,)
        self.key_scale, self.value_scale = (torch.zeros(scales, device=device) for _ in range(2))
        self.sinks = torch.zeros((c.depth, c.heads, c.sink * c.tokens, self.head), dtype=dtype, device=device)
        self.spread = torch.zeros((2, *size[1:]) if fp8 else (0,), dtype=dtype, device=device)
        self.places = torch.zeros(c.tokens, dtype=torch.int64, device=device)
        self.tokens = torch.arange(c.tokens, dtype=torch.int64, device=device)

    def reset(self, prefix: Prefix | None) -> None:
        """Forget everything but the text, whose keys and values (1, A, P, E) are written once."""
        for tensor in (self.keys, self.values, self.key_scale, self.value_scale, self.sinks):
            tensor.zero_()
        for layer, (key, value) in enumerate(prefix or ()):
            where = torch.arange(self.text, device=self.keys.device)
            self._store(layer, where, key[0].to(self.dtype), value[0].to(self.dtype))

    def aim(self, slot: Tensor) -> None:
        """The next writes go to this slot, an int64 number on the GPU."""
        self.places.copy_(self.tokens + (self.text + slot * self.config.tokens))

    def write(self, layer: int, key: Tensor, value: Tensor) -> None:
        """Store one frame's key and value (A, N, E), the key turned in time, where `aim` said."""
        self._store(layer, self.places, key, value)

    def keep_sink(self, layer: int, number: int, key: Tensor) -> None:
        """Store a sink's key (A, N, E) as it is without rotation in time."""
        tokens = self.config.tokens
        self.sinks[layer, :, number * tokens : (number + 1) * tokens].copy_(key)

    def place_sinks(self, layer: int, turned: Tensor) -> None:
        """Write the sinks' keys (A, count N, E) as they are seen from here."""
        where = slice(self.text, self.text + turned.shape[1])
        if self.fp8:
            small, scale = to_fp8(turned)
            self.keys[layer, :, where].copy_(small)
            self.key_scale[layer, :, where].copy_(scale)
        else:
            self.keys[layer, :, where].copy_(turned)

    def read(self, layer: int, frame_index: int) -> tuple[Tensor, Tensor]:
        """All that latent frame `frame_index` sees once it is written: keys and values (1, A, K, E)."""
        c = self.config
        length = self.text + filled_slots(frame_index, c.window, c.sink) * c.tokens
        if not self.fp8:
            return self.keys[layer, None, :, :length], self.values[layer, None, :, :length]
        pairs = ((self.keys, self.key_scale), (self.values, self.value_scale))
        for number, (small, scale) in enumerate(pairs):
            spread = from_fp8(small[layer, :, :length], scale[layer, :, :length], self.dtype)
            self.spread[number, :, :length].copy_(spread)
        return self.spread[0, None, :, :length], self.spread[1, None, :, :length]

    def tensors(self) -> dict[str, Tensor]:
        """All that the next step depends on, by name."""
        named = {"keys": self.keys, "values": self.values, "sinks": self.sinks}
        return named | ({"key_scale": self.key_scale, "value_scale": self.value_scale} if self.fp8 else {})

    def _store(self, layer: int, where: Tensor, key: Tensor, value: Tensor) -> None:
        kept = ((self.keys, self.key_scale, key), (self.values, self.value_scale, value))
        for numbers, scales, rows in kept:
            if self.fp8:
                small, scale = to_fp8(rows)
                at = numbers[layer].view(torch.uint8)  # copies by index know bytes, not this type
                at.index_copy_(1, where, small.view(torch.uint8))
                scales[layer].index_copy_(1, where, scale)
            else:
                numbers[layer].index_copy_(1, where, rows.to(self.dtype))
