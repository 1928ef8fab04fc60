"""The play screen: events to the sampler, due frames to the window, figures on F3.

Does not know about pacing, processes or how frames are made.
"""

from __future__ import annotations

import pygame

from app import overlay
from app.player import PlaySession, VideoFrame
from app.screens.commands import Command, Pause, Restart, ToMenu
from app.widgets import TEXT, shade, text, unit
from app.window import Pixels, Window
from controls.devices import gamepad, keyboard
from controls.devices.mouse import Mouse
from controls.sampler import InputSampler

SLOW_ANSWER = 2.0  # seconds after which the player is told that the generator is not answering
FIRST_HINT = "WASD: walk     Mouse: look     Shift: run     Space: jump     E: use     Esc: pause"
HINT_FRAMES = 120


class PlayScreen:
    """Shows a session in a window; `capture` must be called when it becomes and stops being the present screen."""

    def __init__(
        self,
        window: Window,
        session: PlaySession,
        sampler: InputSampler,
        pads: gamepad.Gamepads | None,
        backend: str,
        scaling: str,
    ) -> None:
        self.window = window
        self.session = session
        self.sampler = sampler
        self.scaling = scaling
        self.figures_on = False
        self.dirty = False
        self._pads = pads
        self._mouse = Mouse()
        self._backend = backend
        self._due: VideoFrame | None = None
        self._last: Pixels | None = None
        self._told = False

    @property
    def stalled(self) -> bool:
        """Whether the generator has owed an answer for long."""
        return self.session.waiting() > SLOW_ANSWER

    def capture(self, on: bool) -> None:
        """Take the mouse and go on, or free it and release every key."""
        self._mouse.capture(on)
        self.sampler.reset()
        if on:
            self.session.resume()
        else:
            self.session.pause()

    def handle(self, event: pygame.event.Event) -> Command | None:
        """The window's own keys first, everything else to the sampler."""
        if event.type == pygame.KEYDOWN:
            if event.key in (pygame.K_ESCAPE, pygame.K_p):
                return Pause()
            if event.key == pygame.K_h:
                return Restart()
            if event.key == pygame.K_F3:
                self.figures_on = not self.figures_on
                self.dirty = True
                return None
        if event.type == pygame.WINDOWFOCUSLOST:
            self.sampler.focus_lost()
            return None if pygame.key.get_focused() else Pause()  # changing to full screen loses it for a moment
        used = keyboard.handle(event, self.sampler) or self._mouse.handle(event, self.sampler)
        if not used and self._pads is not None:
            if gamepad.source_of(event) == "pad start" and event.type == pygame.CONTROLLERBUTTONDOWN:
                return Pause()
            self._pads.handle(event, self.sampler)
        return None

    def update(self) -> Command | None:
        """Sample what is over, find the frame that is due."""
        self.session.poll()
        if self.session.failure is not None:
            return ToMenu(self.session.failure)
        self.session.sample()
        if self._due is None:
            self._due = self.session.due()
        self.dirty = self.dirty or self._due is not None or self.stalled or self._told
        self._told = self.stalled
        return None

    def draw(self, surface: pygame.Surface) -> None:
        """The frame, and what stands over it."""
        self.draw_frame(surface)
        size = surface.get_size()
        scale = unit(size)
        if self.figures_on:
            session = self.session
            rows = overlay.lines(session.figures, session.lead.seconds, session.frame_index, self._backend)
            overlay.draw(surface, rows, scale)
        if self._told:
            waited = f"The generator has not answered for {self.session.waiting():.0f} s.  Esc: menu"
            self._banner(surface, waited, scale)
        elif self.session.figures.frames < HINT_FRAMES:
            self._banner(surface, FIRST_HINT, scale)

    def draw_frame(self, surface: pygame.Surface) -> None:
        """The frame alone: the one that is due, or the one before."""
        if self._due is not None:
            self._last = self._due.pixels
        self.dirty = False
        if self._last is None:
            surface.fill((0, 0, 0))
        else:
            self.window.draw_frame(self._last, self.scaling)

    def _banner(self, surface: pygame.Surface, words: str, scale: float) -> None:
        width, height = surface.get_size()
        bar = pygame.Rect(0, 0, min(width, round(820 * scale)), round(44 * scale))
        bar.midbottom = (width // 2, height - round(24 * scale))
        shade(surface, bar, 205, round(10 * scale))
        text(surface, words, (width / 2, bar.y + 14 * scale), 22 * scale, TEXT, "centre", bar.width)

    def drawn(self) -> None:
        """What `draw` put into the window was submitted to the display."""
        if self._due is not None:
            self.session.shown(self._due)
            self._due = None
