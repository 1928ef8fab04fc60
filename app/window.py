"""The window: opening it, full screen, and putting a frame into it letterboxed.

A frame is always scaled from the original, smoothly or by a whole number. Does not know about screens or sessions.
"""

from __future__ import annotations

import os
import sys
import warnings

import numpy as np
import numpy.typing as npt
import pygame

from app.widgets import forget
from controls.errors import UserError

Pixels = npt.NDArray[np.uint8]
START_SIZE = (1280, 800)
MIN_SIZE = (480, 300)
CLIPBOARD = ("image/png", "image/jpeg", "image/bmp")


def check_pygame() -> None:
    """UserError when `pygame` is installed in the place of `pygame-ce`."""
    if not getattr(pygame, "IS_CE", False):
        raise UserError(
            "The package pygame is installed where pygame-ce is needed; run "
            "`pip uninstall -y pygame pygame-ce` and then `pip install pygame-ce`."
        )


def fitting(size: tuple[int, int], screen: tuple[int, int]) -> tuple[int, int]:
    """A window's (X, Y) pixels from MIN_SIZE to the size of the screen."""
    wide, high = (min(max(s, low), top) for s, low, top in zip(size, MIN_SIZE, screen, strict=True))
    return wide, high


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
            self._kept: tuple[Pixels, str, tuple[int, int], pygame.Surface] | None = None
        except pygame.error as error:
            raise UserError(f"Could not open a window ({error}); use --headless to play without one.") from error
        pygame.display.set_caption(title)

    def _open(self) -> pygame.Surface:
        if self.fullscreen:
            return pygame.display.set_mode((0, 0), pygame.FULLSCREEN)
        return pygame.display.set_mode(fitting(START_SIZE, pygame.display.get_desktop_sizes()[0]), pygame.RESIZABLE)

    def toggle_fullscreen(self) -> None:
        """Between the window and the whole screen."""
        self.fullscreen = not self.fullscreen
        self.surface = self._open()

    def resize(self, size: tuple[int, int]) -> None:
        """Make the window (X, Y) pixels, from MIN_SIZE to the size of the screen; nothing in full screen."""
        if self.fullscreen:
            return
        most = pygame.display.get_desktop_sizes()[0]
        self.surface = pygame.display.set_mode(fitting(size, most), pygame.RESIZABLE)

    def refresh(self) -> None:
        """The window's size has changed."""
        self.surface = pygame.display.get_surface() or self.surface

    def draw_ahead(self, frame: Pixels, scaling: str, shift: tuple[float, float], margin: float) -> pygame.Rect:
        """As `draw_frame`, `margin` of the frame hidden on every side, its content moved by `shift`; both are shares.

        A frame that is drawn again, with another shift, is not scaled again. Whole factors keep their pixels: the view
        becomes smaller instead of the picture larger.
        """
        view = letterbox((frame.shape[1], frame.shape[0]), self.surface.get_size(), scaling)
        size, share = view.size, 1 - 2 * margin
        if scaling == "integer":
            view.size = (round(view.width * share), round(view.height * share))
            view.center = self.surface.get_rect().center
        else:
            size = (round(view.width / share), round(view.height / share))
        if view.size != self.surface.get_size():
            self.surface.fill((0, 0, 0))
        place = pygame.Rect((0, 0), size)
        place.center = (view.centerx + round(shift[0] * size[0]), view.centery + round(shift[1] * size[1]))
        place.left = max(view.right - size[0], min(view.left, place.left))
        place.top = max(view.bottom - size[1], min(view.top, place.top))
        self.surface.set_clip(view)
        self.surface.blit(self._scaled(frame, scaling, size), place)
        self.surface.set_clip(None)
        return view

    def _scaled(self, frame: Pixels, scaling: str, size: tuple[int, int]) -> pygame.Surface:
        kept = self._kept
        if kept is None or kept[0] is not frame or kept[1:3] != (scaling, size):
            scale = pygame.transform.scale if scaling == "integer" else pygame.transform.smoothscale
            kept = self._kept = (frame, scaling, size, scale(to_surface(frame).convert(self.surface), size))
        return kept[3]

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


def from_clipboard() -> tuple[bytes | None, str]:
    """What the clipboard gives: the bytes of a picture file, None without one, and text, "" without any.

    SDL 2 passes text on every system, pictures only where pygame has a way of its own: X11, and Windows as a bitmap.
    """
    blob = None
    with warnings.catch_warnings():  # pygame calls this interface experimental, or old, by version
        warnings.simplefilter("ignore")
        try:
            if not pygame.scrap.get_init():
                pygame.scrap.init()
            blob = next((data for kind in CLIPBOARD if (data := pygame.scrap.get(kind))), None)
        except (pygame.error, AttributeError, TypeError, ValueError):
            blob = None
        try:
            words = pygame.scrap.get_text()
        except (pygame.error, AttributeError, UnicodeDecodeError):
            words = ""
    return blob, words
