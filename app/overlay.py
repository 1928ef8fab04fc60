"""What stands over the picture while playing: figures and their graph, messages, and the bar of a rewind.

Does not know where the figures come from.
"""

from __future__ import annotations

from collections.abc import Sequence

import pygame

from app.figures import Figures
from app.widgets import ACCENT, LINE, QUIET, TEXT, VEIL, progress_bar, shade, text, text_size, wrap, wrap_parts

WIDTH, PAD = 370, 14
BARS = 120  # frames in the graph
TOP = 3.0  # the graph ends at this many frame periods


def lines(figures: Figures, lead: float, frame_index: int, backend: str) -> list[tuple[str, str]]:
    """Label and value of every line; `lead` in seconds."""
    step, decode = figures.step_ms.recent(), figures.decode_ms.recent()
    delay, look = figures.input_to_submit_ms.recent(), figures.look_to_submit_ms.recent()
    drawn = figures.draw_ms.recent()
    rows = [
        ("video frames / s", f"{figures.recent_fps:.1f}"),
        ("step p50 / p99", f"{step['p50']:.0f} / {step['p99']:.0f} ms"),
        ("decode p50 / p99", f"{decode['p50']:.0f} / {decode['p99']:.0f} ms"),
        ("window drawn p50 / p99", f"{drawn['p50']:.0f} / {drawn['p99']:.0f} ms"),
        ("input latency p50 / p99", f"{delay['p50']:.0f} / {delay['p99']:.0f} ms"),
        ("lead", f"{1000 * lead:.0f} ms"),
        ("late frames", f"{figures.late_frames} of {figures.frames}"),
        ("latent frame", f"{frame_index}"),
        ("KV cache", "{} / {} latent frames".format(*figures.cache)),
        ("backend", backend),
    ]
    if len(figures.look_to_submit_ms):
        rows.insert(5, ("look, shifted p50 / p99", f"{look['p50']:.0f} / {look['p99']:.0f} ms"))
    return rows


def draw(
    surface: pygame.Surface, rows: list[tuple[str, str]], scale: float, frame_ms: Sequence[float], period_ms: float
) -> pygame.Rect:
    """The figures in the upper left corner, the graph of `frame_ms` below them; returns the area they cover."""
    height = round(text_size("0", 22 * scale)[1] + 7 * scale)
    margin, pad = round(16 * scale), round(PAD * scale)
    high = round(74 * scale)
    box = pygame.Rect(margin, margin, round(WIDTH * scale), len(rows) * height + 3 * pad + high)
    shade(surface, box, VEIL, round(10 * scale))
    for i, (label, value) in enumerate(rows):
        top = box.y + pad + i * height
        text(surface, label, (box.x + pad, top), 22 * scale, QUIET)
        text(surface, value, (box.right - pad, top), 22 * scale, ACCENT if i == 0 else TEXT, "right")
    area = pygame.Rect(box.x + pad, box.bottom - pad - high, box.width - 2 * pad, high)
    graph(surface, area, frame_ms, period_ms, scale)
    return box


def graph(
    surface: pygame.Surface, area: pygame.Rect, frame_ms: Sequence[float], period_ms: float, scale: float
) -> None:
    """Time between frames as bars, newest at the right, with a line at the period: higher bars are late frames.

    What it is stands above the highest bar.
    """
    high = area.height - round(text_size("0", 18 * scale)[1] - 2 * scale)
    line = area.bottom - round(high / TOP)
    step = area.width / BARS
    for place, value in enumerate(frame_ms[-BARS:], start=BARS - min(BARS, len(frame_ms))):
        bar = max(1, round(high * min(value / period_ms, TOP) / TOP))
        left, right = round(area.x + place * step), round(area.x + (place + 1) * step)
        late = value > 1.5 * period_ms
        pygame.draw.rect(surface, ACCENT if late else QUIET, (left, area.bottom - bar, max(1, right - left - 1), bar))
    pygame.draw.line(surface, LINE, (area.x, line), (area.right, line), max(1, round(scale)))
    text(surface, f"ms between frames, line: {period_ms:.1f}", (area.x, area.y - 4 * scale), 18 * scale, QUIET)


def frame_rate(surface: pygame.Surface, fps: float, scale: float) -> pygame.Rect:
    """The frame rate alone, in the upper left corner."""
    margin = round(16 * scale)
    box = pygame.Rect(margin, margin, round(96 * scale), round(36 * scale))
    shade(surface, box, 215, round(10 * scale))
    text(surface, f"{fps:.1f} fps", (box.centerx, box.y + 10 * scale), 22 * scale, TEXT, "centre")
    return box


def banner(surface: pygame.Surface, parts: Sequence[str], scale: float) -> pygame.Rect:
    """Hints or sentences at the lower edge, each whole, in as many lines as they need."""
    width, height = surface.get_size()
    lines = wrap_parts(parts, 22 * scale, width - 60 * scale)
    wide = max(text_size(line, 22 * scale)[0] for line in lines)
    bar = pygame.Rect(0, 0, round(wide + 60 * scale), round((20 + 26 * len(lines)) * scale))
    bar.midbottom = (width // 2, height - round(24 * scale))
    shade(surface, bar, 205, round(10 * scale))
    for number, line in enumerate(lines):
        text(surface, line, (width / 2, bar.y + (15 + 26 * number) * scale), 22 * scale, TEXT, "centre")
    return bar


def message(
    surface: pygame.Surface, words: str, picture: pygame.Surface | None, scale: float, beside: int = 0
) -> pygame.Rect:
    """A sentence at the upper edge, with a small picture where there is one, right of what ends at `beside`."""
    width = surface.get_width()
    small = round(96 * scale) if picture is not None else 0
    gap, line = round(16 * scale), round(26 * scale)
    room = width - beside - 2 * gap
    lines = wrap(words, 22 * scale, room - 3 * gap - small)
    room = round(min(max(text_size(part, 22 * scale)[0] for part in lines) + 3 * gap + small, room))
    high = max(round(small * 0.625 + 20 * scale) if small else 0, round(18 * scale) + line * len(lines))
    box = pygame.Rect(max((width - room) // 2, beside + gap), round(20 * scale), room, high)
    shade(surface, box, 225, round(10 * scale))
    left = box.x + gap
    if picture is not None:
        shown = pygame.transform.smoothscale(picture, (small, round(small * 0.625)))
        surface.blit(shown, (left, box.centery - shown.get_height() // 2))
        left += small + gap
    top = box.centery - (line * (len(lines) - 1) + text_size("0", 22 * scale)[1]) / 2
    for number, part in enumerate(lines):
        text(surface, part, (left, top + line * number), 22 * scale, TEXT, width=box.right - left - gap / 2)
    return box


def rewind_bar(surface: pygame.Surface, back: float, reach: float, memory_mb: float, scale: float) -> pygame.Rect:
    """How far back a rewind has come, of how much: `back` and `reach` in seconds; and what keeping that takes."""
    width, height = surface.get_size()
    box = pygame.Rect(0, 0, min(width, round(620 * scale)), round(74 * scale))
    box.midbottom = (width // 2, height - round(24 * scale))
    shade(surface, box, 225, round(10 * scale))
    pad = round(18 * scale)
    top = box.y + 14 * scale
    text(surface, f"<<  {back:.1f} s back", (box.x + pad, top), 24 * scale, ACCENT)
    kept = f"{reach:.0f} s kept, {memory_mb:.0f} MB.  Let go to walk on from here"
    text(surface, kept, (box.right - pad, top + 2 * scale), 20 * scale, TEXT, "right")
    bar = pygame.Rect(box.x + pad, box.bottom - round(26 * scale), box.width - 2 * pad, round(10 * scale))
    progress_bar(surface, bar, 1 - back / reach if reach > 0 else 0.0)
    return box
