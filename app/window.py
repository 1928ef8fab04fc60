"""The window: opening it, full screen, and putting a frame into it letterboxed.

A frame is always scaled from the original, smoothly or by a whole number. Does not know about screens or sessions.
"""

from __future__ import annotations

import os
import sys

import numpy as np
import numpy.typing as npt
import pygame

from app.widgets import forget
from controls.errors import UserError

Pixels = npt.NDArray[np.uint8]
START_SIZE = (1280, 800)
MIN_SIZE = (480, 300)


def check_pygame() -> None:
    """UserError when `pygame` is installed in the place of `pygame-ce`."""
    if not getattr(pygame, "IS_CE", False):
        raise UserError(
            "The package pygame is installed where pygame-ce is needed; run "
            "`pip uninstall -y pygame pygame-ce` and then `pip install pygame-ce`."
        )


def letterbox(frame: tuple[int, int], room: tuple[int, int], scaling: str) -> pygame.Rect:
    """Where a frame of size (X, Y) goes in a room of that kind of size, centred.

    `integer` uses the largest whole factor; when not even 1 fits, and with `smooth`, the largest that fits.
    """
    factor = min(room[0] / frame[0], room[1] / frame[1])
    if scaling == "integer" and factor >= 1:
        factor = int(factor)
    width, height = max(1, round(frame[0] * factor)), max(1, round(frame[1] * factor))
    return pygame.Rect((room[0] - width) // 2, (room[1] - height) // 2, width, height)


class Window:
    """The one window. UserError when there is no display."""

    def __init__(self, title: str, fullscreen: bool = False) -> None:
        check_pygame()
        if sys.platform == "linux" and not any(
            os.environ.get(name) for name in ("DISPLAY", "WAYLAND_DISPLAY", "SDL_VIDEODRIVER")
        ):
            raise UserError("There is no display (DISPLAY is not set); use --headless to play without a window.")
        try:
            pygame.display.init()
            pygame.font.init()
            self.fullscreen = fullscreen
            self.surface = self._open()
        except pygame.error as error:
            raise UserError(f"Could not open a window ({error}); use --headless to play without one.") from error
        pygame.display.set_caption(title)

    def _open(self) -> pygame.Surface:
        if self.fullscreen:
            return pygame.display.set_mode((0, 0), pygame.FULLSCREEN)
        return pygame.display.set_mode(START_SIZE, pygame.RESIZABLE)

    def toggle_fullscreen(self) -> None:
        """Between the window and the whole screen."""
        self.fullscreen = not self.fullscreen
        self.surface = self._open()

    def refresh(self) -> None:
        """The window's size has changed."""
        self.surface = pygame.display.get_surface() or self.surface

    def draw_frame(self, frame: Pixels, scaling: str) -> pygame.Rect:
        """Put the frame uint8 (Y, X, 3) into the window with black bars; returns where it is."""
        image = to_surface(frame)
        rect = letterbox(image.get_size(), self.surface.get_size(), scaling)
        if rect.size != self.surface.get_size():
            self.surface.fill((0, 0, 0))
        scale = pygame.transform.scale if scaling == "integer" else pygame.transform.smoothscale
        if self.surface.get_rect().contains(rect) and self.surface.get_bitsize() == 32:
            scale(image.convert(self.surface), rect.size, self.surface.subsurface(rect))
        else:
            self.surface.blit(scale(image, rect.size), rect)
        return rect

    def flip(self) -> None:
        """Submit what was drawn to the display."""
        pygame.display.flip()

    def close(self) -> None:
        """Give the pointer and the screen back."""
        pygame.event.set_grab(False)
        pygame.mouse.set_visible(True)
        forget()
        pygame.quit()


def to_surface(frame: Pixels) -> pygame.Surface:
    """A frame uint8 (Y, X, 3) as a surface of the same size."""
    height, width = frame.shape[:2]
    return pygame.image.frombuffer(np.ascontiguousarray(frame).tobytes(), (width, height), "RGB")
