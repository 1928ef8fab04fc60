"""The window program: menu, loading, play and pause, one generator process, and the way between them.

Does not know how a screen looks or how a session is paced.
"""

from __future__ import annotations

from argparse import Namespace
from typing import Any

import pygame

from app.choices import Choices
from app.cues import cue
from app.door import DEFAULT_SIZE, Door, Pixels
from app.hotkeys import HOTKEYS
from app.keeping import Keeper
from app.pacing import WallClock, rest
from app.places import Place, open_place, walk_of
from app.player import PlaySession
from app.protocol import Failed, Load, Ready
from app.recovery import Watchdog
from app.screens import commands
from app.screens.loading import LoadingScreen
from app.screens.menu import MenuScreen
from app.screens.navigation import PadKeys
from app.screens.pause import STRIP, PauseScreen
from app.screens.play import PlayScreen
from app.screens.settings import SettingsScreen
from app.session import GeneratorProcess
from app.settings import Settings, data_folder, log_path
from app.slots import Slots
from app.sound.scape import Soundscape
from app.walk import LOST, Walk
from app.window import Window
from controls.action import ActionSpec
from controls.bindings import Bindings
from controls.devices import gamepad
from controls.errors import UserError
from controls.sampler import InputSampler

IDLE_REST = 1 / 60  # seconds; menus look for events this often
WINDOW_KEYS = tuple(HOTKEYS)
Screen = MenuScreen | LoadingScreen | PlayScreen | PauseScreen | SettingsScreen


class Program:
    """Owns the window's screens and the generator; `loop` runs until the player leaves."""

    def __init__(
        self,
        args: Namespace,
        door: Door,
        window: Window,
        settings: Settings,
        bindings: Bindings,
        scenes: list[Any],
        keeper: Keeper | None = None,
        sound: Soundscape | None = None,
    ) -> None:
        self.args = args
        self.door = door
        self.window = window
        self.bindings = bindings
        self.sound = sound or Soundscape.silent()
        self.clock = WallClock()
        load = Load(args.weights, args.backend, args.threads, log_path(), args.nfe, parallel=args.parallel)
        self.menu = MenuScreen(scenes, lambda s: door.load_picture(s.picture, DEFAULT_SIZE), self._status)
        self.generator = GeneratorProcess(load, door.open_world)  # loads while the player chooses
        self.pads = _pads()
        keeper = keeper or Keeper(reserved=WINDOW_KEYS)
        self.choices = Choices(keeper, settings, window, self.sound, self.pads)
        self.slots = Slots(data_folder() / "places")
        self.screen: Screen = self.menu
        self.walk: Walk | None = None
        self.watchdog = Watchdog(self.clock)
        self.running = True
        self._pad_keys = PadKeys()
        self._resting = InputSampler(ActionSpec(), bindings)  # hears pads come and go while nothing is played
        self._under: Screen = self.menu  # the settings
        self._menu_keys(True)
        self.menu.notice = " ".join(keeper.notices)

    @property
    def settings(self) -> Settings:
        """The settings in use."""
        return self.choices.settings

    @property
    def session(self) -> PlaySession | None:
        """The session of the walk that is on, if one has begun."""
        return self.walk.session if self.walk is not None else None

    @property
    def play(self) -> PlayScreen | None:
        """The screen of the walk that is on, if one has begun."""
        return self.walk.play if self.walk is not None else None

    def loop(self) -> None:
        """Events, update, draw, rest: until the player leaves."""
        while self.running:
            self.turn()

    def close(self) -> None:
        """End the generator and remove what was kept for a failure."""
        self.generator.close(patience=0.3)
        self._leave_walk()

    def turn(self) -> None:
        """One round of the loop."""
        for event in pygame.event.get():
            self._event(event)
        if words := self.watchdog.overdue(self.generator, self.session):
            self.generator.give_up(words)
            if self.session is not None:
                self.session.feed([Failed(words)])
        if not isinstance(self.screen, PlayScreen):
            self._feed_generator()
        elif self.walk is not None:
            self.walk.follow()
        self.carry_out(self.screen.update())
        if words := self.sound.news():
            self._say(f"{self.menu.notice} {words}".strip() if self.screen is self.menu else words)
        if self.screen.dirty:
            screen = self.screen
            screen.draw(self.window.surface)
            self.window.flip()
            if isinstance(screen, PlayScreen):
                screen.drawn()
        self._rest()

    def _rest(self) -> None:
        if isinstance(self.screen, PlayScreen) and self.session is not None:
            session = self.session
            rest(self.clock, self.generator.wait, session.next_wake(limit=IDLE_REST), session.config.spin)
        else:
            self.generator.wait(IDLE_REST)

    def _event(self, event: pygame.event.Event) -> None:
        if event.type == pygame.QUIT:
            self.running = False
        elif event.type in (pygame.WINDOWRESIZED, pygame.WINDOWSIZECHANGED, pygame.WINDOWEXPOSED):
            self.window.refresh()
            self.screen.dirty = True
        elif event.type == pygame.KEYDOWN and self._is_fullscreen_key(event):
            self.carry_out(commands.Change("fullscreen", not self.settings.fullscreen))
        elif event.type in (pygame.CONTROLLERDEVICEADDED, pygame.CONTROLLERDEVICEREMOVED):
            if self.pads is not None:
                self.pads.handle(event, self.play.sampler if self.play is not None else self._resting)
        elif isinstance(self.screen, PlayScreen):
            self.carry_out(self.screen.handle(event))
        else:
            raw = isinstance(self.screen, SettingsScreen) and self.screen.listening
            event = event if raw else self._pad_keys.key_event(event) or event
            command = self.screen.handle(event)
            self.sound.interface(cue(event, command))
            self.carry_out(command)

    @staticmethod
    def _is_fullscreen_key(event: pygame.event.Event) -> bool:
        return bool(event.key == pygame.K_F11 or (event.key == pygame.K_RETURN and event.mod & pygame.KMOD_ALT))

    def _feed_generator(self) -> None:
        """While nothing is being played, listen to the generator, and start what was picked once it can."""
        replies = self.generator.poll()
        if self.session is not None:
            self.session.feed(replies)
            while self.session.notices and isinstance(self.screen, PauseScreen):
                self._say(self.session.notices.popleft())
        screen = self._under if isinstance(self.screen, SettingsScreen) else self.screen
        walk, ready = self.walk, self.generator.ready
        if isinstance(screen, MenuScreen) or walk is None:
            return
        failure = self.generator.failure or (walk.session.failure if walk.session and not walk.resuming else None)
        if failure is not None:
            self.carry_out(commands.Recover(failure))
        elif isinstance(screen, PauseScreen):
            return
        elif walk.session is None and ready is not None:
            try:
                self._begin(walk, ready)
            except UserError as error:
                self._to_menu(str(error))
        elif walk.resuming and ready is not None:
            self._resume(walk)
        elif walk.session is not None and not walk.resuming and walk.session.has_frame:
            self.carry_out(commands.Play())
            if walk.was_paused:
                walk.was_paused = False
                self.carry_out(commands.Pause())

    def _status(self) -> str:
        if self.generator.failure is not None:
            return "The world is not loaded"
        ready = self.generator.ready
        if ready is None:
            return f"{self.generator.progress.stage} ..."
        return f"Ready on {ready.info.get('backend', 'the CPU')}"

    def carry_out(self, command: commands.Command | None) -> None:
        """Do what a screen asked for; a UserError becomes a notice in the menu."""
        try:
            self._carry_out(command)
        except UserError as error:
            self._to_menu(str(error))

    def _carry_out(self, command: commands.Command | None) -> None:
        match command:
            case commands.Pick(scene):
                self._pick(scene)
            case commands.PickPicture(path):
                self._pick(self.door.find_scene(str(path)))
            case commands.Play() | commands.Resume() if self.play is not None:
                self._show(self.play)
                self.play.capture(True)
            case commands.Pause() if self.play is not None:
                self.play.capture(False)
                marks = walk_of(self.play.session, STRIP)
                self._show(PauseScreen(self.play.draw_frame, self.slots.look, marks))
            case commands.Restart():
                self._restart()
            case commands.SaveSlot():
                self._save()
            case commands.LoadSlot():
                self._load()
            case commands.MoveSlot(step):
                slot = self.slots.move(step)
                self._say(slot.words().capitalize(), slot.picture)
            case commands.BackTo(index) if self.session is not None:
                self.session.go_back(index)
                self.carry_out(commands.Resume())
            case commands.SingleStep() if self.play is not None:
                self.carry_out(commands.Resume())
                self.play.step()
            case commands.Screenshot():
                self._keep_picture()
            case commands.Change(name, value):
                self._change(name, value)
            case commands.Rebind(bindings):
                self.bindings = bindings
                if unsaved := self.choices.rebind(bindings, self.play):
                    self._say(unsaved)
            case commands.OpenSettings():
                self._open_settings()
            case commands.CloseSettings():
                self._show(self._under)
            case commands.Recover(words):
                self._recover(words)
            case commands.ToMenu(notice):
                self._to_menu(notice)
            case commands.Quit():
                self.running = False

    def _show(self, screen: Screen) -> None:
        self.screen = screen
        screen.dirty = True
        self._menu_keys(not isinstance(screen, PlayScreen | PauseScreen))
        self.sound.paused(not isinstance(screen, PlayScreen))

    @staticmethod
    def _menu_keys(repeat: bool) -> None:
        pygame.key.set_repeat(*((350, 60) if repeat else ()))

    def _pick(self, scene: Any, place: Place | None = None) -> None:
        walk = Walk(self.generator, self.door, scene, self.args.seed, place)
        if not self.generator.alive:
            self.generator.restart()
        self.menu.notice = ""
        self._leave_walk()
        self.walk = walk
        known = next((one for one in self.menu.scenes if one.name == scene.name), scene)
        walk.hint = self.sound.scene(known, walk.card)
        self._show_loading(walk.card)

    def _show_loading(self, picture: Pixels, said: str = "") -> None:
        assert self.walk is not None
        plain = self.settings.reduced_motion
        self._show(LoadingScreen(self.walk.scene.title, picture, self._progress, self.clock, plain, said))

    def _progress(self) -> tuple[float, str]:
        if self.session is not None and self.walk is not None and not self.walk.resuming:
            return 1.0, "Drawing the first frame"
        progress = self.generator.progress
        return 0.95 * progress.fraction, progress.stage

    def _begin(self, walk: Walk, ready: Ready) -> None:
        s = self.settings
        sampler = InputSampler(ready.spec, self.bindings, s.sensitivity, s.invert)

        def screen(session: PlaySession, sampler: InputSampler) -> PlayScreen:
            return PlayScreen(self.window, session, sampler, self.pads, ready.info, s, self.sound)

        walk.begin(ready, self.clock, sampler, screen)
        self.choices.tell(self.play)

    def _restart(self) -> None:
        if self.walk is not None and self.play is not None and self.walk.restart():
            self._show(self.play)
            self.play.capture(True)

    def _recover(self, words: str) -> None:
        """The generator has failed: go on with a new one, or, when nothing was shown or it fails too often, end."""
        walk = self.walk
        if walk is None or not walk.may_resume:
            self._to_menu(words)
        elif walk.failed(paused=not isinstance(self.screen, PlayScreen)):
            assert self.play is not None and self.play.last is not None
            self._show_loading(self.play.last.pixels, words)
        else:
            self._to_menu(f"{words} {LOST}")

    def _resume(self, walk: Walk) -> None:
        said = walk.resume()
        if walk.session is not None:
            walk.session.notices.append(said)

    def _say(self, words: str, picture: Pixels | None = None) -> None:
        """Tell the player something, wherever they are."""
        if isinstance(self.screen, PauseScreen | SettingsScreen):
            self.screen.said = words
        elif isinstance(self.screen, PlayScreen):
            self.screen.tell(words, picture)
        else:
            self.menu.notice = words
        self.screen.dirty = True

    def _save(self) -> None:
        if self.walk is not None and self.walk.save(self.slots.path()):
            self._say(f"Saving in slot {self.slots.current} ...")

    def _load(self) -> None:
        """To the place in the current slot; when it is refused nothing changes."""
        try:
            place = open_place(self.slots)
            if self.generator.ready is not None:
                place.check(self.generator.ready)
        except UserError as error:
            self._say(str(error))
            return
        if self.walk is None or not self.walk.go_to(place):
            self._pick(place, place)
        else:
            self.carry_out(commands.Resume())
            self._say(self.slots.look().words().capitalize())

    def _keep_picture(self) -> None:
        try:
            path = self.walk.keep_picture(data_folder() / "pictures") if self.walk is not None else None
        except UserError as error:
            self._say(str(error))
        else:
            self._say(f"Kept as {path}" if path else "")

    def _change(self, name: str, value: Any) -> None:
        size = self.generator.ready.size if self.generator.ready is not None else DEFAULT_SIZE
        unsaved = self.choices.change(name, value, size, self.play)
        if isinstance(self.screen, SettingsScreen):
            self.screen.settings = self.settings
        self.screen.dirty = True
        if unsaved or (name == "muted" and isinstance(self.screen, PlayScreen)):
            self._say(unsaved or ("Muted" if value else "Sound on"))

    def _open_settings(self) -> None:
        """Over the menu, the pause menu, or, pausing it, the play screen."""
        if isinstance(self.screen, PlayScreen):
            self.carry_out(commands.Pause())
        self._under = self.screen
        behind = self.play.draw_frame if self.play is not None and isinstance(self._under, PauseScreen) else None
        defaults = self.choices.keeper.default_bindings
        self._show(SettingsScreen(self.settings, self.bindings, WINDOW_KEYS, defaults, behind))

    def _to_menu(self, notice: str) -> None:
        if self.play is not None:
            self.play.capture(False)
            if self.play.stalled and self.generator.alive:
                self.generator.restart()
        self._leave_walk()
        self.sound.scene(None)
        self.menu.notice = notice
        self._show(self.menu)

    def _leave_walk(self) -> None:
        if self.walk is not None:
            self.walk.close()
        self.walk = None


def _pads() -> gamepad.Gamepads | None:
    try:
        return gamepad.Gamepads()
    except pygame.error:
        return None
