"""The F3 figures over the picture.

Does not know where the figures come from.
"""

from __future__ import annotations

import pygame

from app.figures import Figures
from app.widgets import ACCENT, QUIET, TEXT, shade, text, text_size

WIDTH, PAD = 350, 14


def lines(figures: Figures, lead: float, frame_index: int, backend: str) -> list[tuple[str, str]]:
    """Label and value of every line; `lead` in seconds."""
    step, decode = figures.step_ms.recent(), figures.decode_ms.recent()
    delay = figures.input_to_submit_ms.recent()
    return [
        ("video frames / s", f"{figures.recent_fps:.1f}"),
        ("step p50 / p99", f"{step['p50']:.0f} / {step['p99']:.0f} ms"),
        ("decode p50 / p99", f"{decode['p50']:.0f} / {decode['p99']:.0f} ms"),
        ("input latency p50 / p99", f"{delay['p50']:.0f} / {delay['p99']:.0f} ms"),
        ("lead", f"{1000 * lead:.0f} ms"),
        ("late frames", f"{figures.late_frames} of {figures.frames}"),
        ("latent frame", f"{frame_index}"),
        ("backend", backend),
    ]


def draw(surface: pygame.Surface, rows: list[tuple[str, str]], scale: float) -> pygame.Rect:
    """The figures in the upper left corner; returns the area they cover."""
    height = round(text_size("0", 22 * scale)[1] + 7 * scale)
    margin, pad = round(16 * scale), round(PAD * scale)
    box = pygame.Rect(margin, margin, round(WIDTH * scale), len(rows) * height + 2 * pad)
    shade(surface, box, 215, round(10 * scale))
    for i, (label, value) in enumerate(rows):
        top = box.y + pad + i * height
        text(surface, label, (box.x + pad, top), 22 * scale, QUIET)
        text(surface, value, (box.right - pad, top), 22 * scale, ACCENT if i == 0 else TEXT, "right")
    return box
