"""3-D rotary positions: a growing integer time index and a stretched spatial grid.

Shape key: F latent frames, N tokens per latent frame, E head width, R rotated pairs (E / 2).
Angles are computed, not looked up, so a session has no last frame. Source: AAPT section 3.1 (fixed time spacing,
spatial axes stretched with resolution).

Does not know about attention, caches or masks.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

TIME_BASE = 100.0
SPACE_BASE = 100.0


def split_pairs(head_width: int) -> tuple[int, int, int]:
    """Rotated pairs given to time, height and width; they add up to head_width / 2."""
    assert head_width % 4 == 0, f"head width {head_width} is not a multiple of 4"
    spatial = head_width * 3 // 16
    return head_width // 2 - 2 * spatial, spatial, spatial


def frequencies(pairs: int, base: float) -> Tensor:
    """float32 (pairs,) angular frequencies, from 1 down towards 1 / base."""
    return base ** (-torch.arange(pairs, dtype=torch.float32) / max(pairs, 1))


def time_angles(frame_index: Tensor, head_width: int) -> Tensor:
    """float32 (..., R_time) angles in [0, 2 pi) of integer frame indices (...).

    Computed in float64: in float32 a frame an hour old stands measurably beside its place, a day old far beside it.
    """
    pairs = split_pairs(head_width)[0]
    freq = frequencies(pairs, TIME_BASE).to(frame_index.device)
    angle = frame_index.to(torch.float64)[..., None] * freq.to(torch.float64)
    return torch.remainder(angle, 2 * math.pi).to(torch.float32)


def space_angles(rows: int, columns: int, head_width: int, reference: tuple[int, int]) -> Tensor:
    """float32 (N, R_height + R_width) angles of a token grid, stretched to the reference grid."""
    _, pairs_h, pairs_w = split_pairs(head_width)
    y = (torch.arange(rows, dtype=torch.float32) + 0.5) * (reference[0] / rows)
    x = (torch.arange(columns, dtype=torch.float32) + 0.5) * (reference[1] / columns)
    angle_y = y[:, None] * frequencies(pairs_h, SPACE_BASE)
    angle_x = x[:, None] * frequencies(pairs_w, SPACE_BASE)
    grid = [
        angle_y[:, None, :].expand(rows, columns, pairs_h),
        angle_x[None, :, :].expand(rows, columns, pairs_w),
    ]
    return torch.cat(grid, dim=-1).reshape(rows * columns, -1)


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Rotate pairs (first half, second half) of the last axis: x (..., 2R), cos and sin (..., R)."""
    first, second = x.float().chunk(2, dim=-1)
    return torch.cat([first * cos - second * sin, first * sin + second * cos], dim=-1).to(x.dtype)
