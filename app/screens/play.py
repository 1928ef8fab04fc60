"""The play screen: events to the sampler, due frames to the window, and what stands over them.

Does not know about pacing, processes, files or how frames are made.
"""

from __future__ import annotations

from typing import Any

import pygame

from app import keyview, overlay
from app.drift import AWAY, DriftWatch, cross_fade
from app.figures import rss_mb
from app.flash import FlashGuard
from app.hints import held_hints, hotkey_hint, input_hint, play_hints
from app.hotkeys import HOTKEYS
from app.player import PlaySession
from app.reproject import MARGIN, Pair, shift_of
from app.screens.commands import (
    Change,
    Command,
    LoadSlot,
    MoveSlot,
    OpenSettings,
    Pause,
    Reanchor,
    Recover,
    Restart,
    SaveSlot,
    Screenshot,
)
from app.settings import HUDS, Settings
from app.sound.scape import Soundscape
from app.ticks import Pixels, VideoFrame
from app.widgets import unit
from app.window import Window, to_surface
from controls.devices import gamepad, keyboard
from controls.devices.mouse import Mouse
from controls.sampler import InputSampler

SLOW_ANSWER = 2.0  # seconds after which the player is told that the generator is not answering
HINT_FRAMES = 120
MESSAGE_TIME = 2.5  # seconds
FADE = 0.8  # seconds from one picture to another that does not follow it
BEFORE_DUE = 0.006  # seconds: no shifted picture is drawn this shortly before the next frame
NO_SHIFT: Pair = (0.0, 0.0)


class PlayScreen:
    """Shows a session in a window; `capture` must be called when it becomes and stops being the present screen.

    `hfov` of the pictures in degrees; `info` is what the generator said of itself.
    """

    def __init__(
        self,
        window: Window,
        session: PlaySession,
        sampler: InputSampler,
        pads: gamepad.Gamepads | None,
        info: dict[str, Any],
        settings: Settings,
        sound: Soundscape | None = None,
        watch: DriftWatch | None = None,
    ) -> None:
        self.window = window
        self.session = session
        self.sampler = sampler
        self.settings = settings
        self.sound = sound or Soundscape.silent()
        self.guard = FlashGuard()
        self.watch = watch or DriftWatch({})
        self.frozen = False
        self.dirty, self.pad = False, ""
        self.last: VideoFrame | None = None
        self._pads = pads
        self._mouse = Mouse()
        calls = int(info.get("nfe", 1))
        self._backend = str(info.get("backend", "unknown")) + (f", {calls} calls" if calls > 1 else "")
        hfov = info.get("hfov", 90.0)
        self._hfov = hfov if isinstance(hfov, float) else 90.0
        self._due: VideoFrame | None = None
        self._seen: Pixels | None = None  # what the screen shows of `last`: the flash guard may have softened it
        self._fade: tuple[Pixels, float | None] | None = None  # from what, and since when
        self._told = False
        self._shift = NO_SHIFT
        self._looked_at: float | None = None  # when the oldest look motion came that no drawn picture has yet
        self._message: tuple[str, pygame.Surface | None, float] | None = None
        self._memory = (0.0, 0.0)  # when it was read, in MB

    @property
    def stalled(self) -> bool:
        """Whether the generator has owed an answer for long."""
        return self.session.waiting() > SLOW_ANSWER

    def capture(self, on: bool) -> None:
        """Take the mouse and go on, or free it and release every key."""
        self._mouse.capture(on)
        self.sampler.reset()
        self.frozen = False
        if on:
            self.session.resume()
        else:
            self.session.pause()

    def freeze(self, on: bool) -> None:
        """Hold the picture without a menu, or go on; what was pressed meanwhile counts only while it is held."""
        self.frozen = on
        self.dirty = True
        self.sampler.still()
        if on:
            self.session.pause()
        else:
            self.session.resume()

    def step(self) -> None:
        """One latent frame more, with the keys that are held, and hold."""
        if not self.frozen:
            self.freeze(True)
        self.session.step_once()

    def tell(self, words: str, picture: Pixels | None = None) -> None:
        """Show a sentence for a moment, beside a small picture uint8 (Y, X, 3) if there is one."""
        small = to_surface(picture) if picture is not None else None
        self._message = (words, small, self.session.clock.now() + MESSAGE_TIME)
        self.dirty = True

    def fade(self) -> None:
        """The next picture does not follow this one: go over to it softly."""
        if self._seen is not None:
            self._fade = (self._seen, None)
        self.watch.forget()
        self.sound.jumped()

    def handle(self, event: pygame.event.Event) -> Command | None:
        """The window's own keys first, everything else to the sampler."""
        source = keyboard.source_of(event) or gamepad.source_of(event)
        if source in HOTKEYS:
            return self._hotkey(HOTKEYS[source], event.type in (pygame.KEYDOWN, pygame.CONTROLLERBUTTONDOWN))
        if event.type == pygame.WINDOWFOCUSLOST:
            self.sampler.focus_lost()
            self.session.end_rewind()
            return None if pygame.key.get_focused() else Pause()  # changing to full screen loses it for a moment
        used = keyboard.handle(event, self.sampler) or self._mouse.handle(event, self.sampler)
        if used and event.type == pygame.MOUSEMOTION and self._looked_at is None:
            self._looked_at = self.session.clock.now()
        if not used and self._pads is not None:
            self._pads.handle(event, self.sampler)
        return None

    def _hotkey(self, name: str, down: bool) -> Command | None:
        if name == "rewind":
            if down:
                self.session.start_rewind()
            else:
                self.session.end_rewind()
            self.dirty = True
        elif down and name == "freeze":
            self.freeze(not self.frozen)
        elif name == "step":
            if down and self.frozen:
                self.step()
        elif down:
            following = HUDS[(HUDS.index(self.settings.hud) + 1) % len(HUDS)]
            commands: dict[str, Command] = {
                "pause": Pause(),
                "restart": Restart(),
                "save": SaveSlot(),
                "load": LoadSlot(),
                "slot before": MoveSlot(-1),
                "slot after": MoveSlot(1),
                "picture": Screenshot(),
                "figures": Change("hud", following),
                "inputs": Change("inputs", not self.settings.inputs),
                "settings": OpenSettings(),
                "mute": Change("muted", not self.settings.muted),
            }
            return commands.get(name)
        return None

    def update(self) -> Command | None:
        """Sample what is over, find the frame that is due, and how far to shift the one that is shown."""
        session = self.session
        session.poll()
        if session.failure is not None:
            return Recover(session.failure)
        session.sample()
        if self._due is None:
            self._due = session.due()
        while session.notices:
            self.tell(session.notices.popleft())
        if self._message is not None and session.clock.now() > self._message[2]:
            self._message, self.dirty = None, True
        self.dirty = self.dirty or self._due is not None or self.stalled or self._told
        self._told = self.stalled
        self.dirty = self._moved() or self.dirty
        waited = self.settings.reanchor and bool(self.watch.away) and self.watch.since >= AWAY
        return Reanchor() if self.sampler.take("reanchor") or waited else None

    def _moved(self) -> bool:
        """Find the shift; whether it differs visibly from the one drawn last, and there is time to draw it."""
        before, self._shift = self._shift, self._wanted_shift()
        differs = any(
            abs(one - other) * side > 0.5
            for one, other, side in zip(before, self._shift, self.window.surface.get_size(), strict=True)
        )
        if differs and self._due is None and self.session.until_due() < BEFORE_DUE:
            self._shift = before
            return False
        return differs

    def _wanted_shift(self) -> Pair:
        frame = self._due or self.last
        session = self.session
        if frame is None or frame.looked is None or not self.settings.ahead or session.paused or session.rewinding:
            return NO_SHIFT
        waiting = self.sampler.waiting
        turn = (
            session.looked[0] + waiting[0] - frame.looked[0],
            session.looked[1] + waiting[1] - frame.looked[1],
        )
        return shift_of(turn, self._hfov, frame.pixels.shape[1] / frame.pixels.shape[0], self.settings.ahead)

    def draw(self, surface: pygame.Surface) -> None:
        """The frame, and what stands over it."""
        self.draw_frame(surface)
        scale = unit(surface.get_size())
        session, corner = self.session, pygame.Rect(0, 0, 0, 0)
        if self.settings.hud == "full":
            period = 1000 * session.config.period
            corner = overlay.draw(surface, self._lines(), scale, session.figures.frame_ms.newest(overlay.BARS), period)
        elif self.settings.hud == "fps":
            corner = overlay.frame_rate(surface, session.figures.recent_fps, scale)
        if self.settings.inputs:
            keyview.draw(surface, session.last_action, session.acted, self.sampler.spec, scale)
        if self._message is not None:
            overlay.message(surface, self._message[0], self._message[1], scale, corner.right)
        if session.rewinding:
            seconds = session.config.latent_period
            back = (session.film.newest - session.rewind_index()) * seconds
            overlay.rewind_bar(surface, back, self._reach(), session.memory_mb, scale)
        elif self._told:
            late = f"The generator has not answered for {session.waiting():.0f} s."
            overlay.banner(surface, [late, hotkey_hint("pause", "menu", self.pad)], scale)
        elif self.frozen:
            overlay.banner(surface, held_hints(self.pad), scale)
        elif session.figures.frames < HINT_FRAMES:
            overlay.banner(surface, play_hints(self.sampler.bindings, self.pad), scale)

    def _reach(self) -> float:
        """How far back a rewind reaches, in seconds."""
        film = self.session.film
        return (film.newest - self.session.reach) * self.session.config.latent_period if len(film) else 0.0

    def _lines(self) -> list[tuple[str, str]]:
        session, now = self.session, self.session.clock.now()
        rows = overlay.lines(session.figures, session.lead.seconds, session.frame_index, self._backend)
        if now - self._memory[0] > 1:
            self._memory = (now, rss_mb() + rss_mb(session.generator.pid))
        if self._memory[1]:
            rows.append(("memory, both processes", f"{self._memory[1]:.0f} MB"))
        rows.append(("detail", "light" if session.generator.light else "full"))
        rows.append(("sound", self.sound.figures()))
        rows.append(("picture", self.watch.words()))
        rows.append(("softened by the flash guard", f"{self.guard.softened} pictures"))
        rows.append(("rewind reaches", f"{self._reach():.0f} s, {session.memory_mb:.0f} MB"))
        return rows

    def draw_frame(self, surface: pygame.Surface) -> None:
        """The frame alone: the one that is due, or the one before."""
        if self._due is not None and self._due is not self.last:
            self.last = self._due
            self.guard.on = self.settings.flash_guard
            self._seen = self.guard.show(self._faded(self.last.pixels), self.session.clock.now())
            if self.last.tick_began is not None:
                self.sound.frame(self.last.pixels)
        self.dirty = False
        if self._seen is None:
            surface.fill((0, 0, 0))
        elif self.settings.ahead:
            self.window.draw_ahead(self._seen, self.settings.scaling, self._shift, MARGIN)
        else:
            self.window.draw_frame(self._seen, self.settings.scaling)

    def _faded(self, picture: Pixels) -> Pixels:
        if self._fade is None or self._fade[0].shape != picture.shape:
            return picture
        before, since = self._fade
        now = self.session.clock.now()
        since = now if since is None else since
        self._fade = (before, since) if now < since + FADE else None
        return cross_fade(before, picture, (now - since) / FADE)

    def _look(self, frame: VideoFrame) -> None:
        """Once a latent frame: whether the picture has drifted, said when it begins."""
        if frame.tick_began is None or frame.number % self.session.config.ticks:
            return
        before = self.watch.away
        self.watch.look(frame.pixels)
        if self.watch.away and not before:
            how = input_hint(self.sampler.bindings, ("reanchor",), "bring it back", self.pad)
            how = how or "The pause menu can bring it back"
            self.tell(f"The picture has drifted: {self.watch.away}.  {how}")

    def drawn(self) -> None:
        """What `draw` put into the window was submitted to the display."""
        if self._looked_at is not None:
            if self.settings.ahead and self.last is not None and self.last.looked is not None:
                self.session.figures.look_to_submit_ms.add(1000 * (self.session.clock.now() - self._looked_at))
            self._looked_at = None
        if self._due is not None:
            self.session.shown(self._due)
            self._look(self._due)
            self._due = None
