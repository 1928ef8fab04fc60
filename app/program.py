"""The window program: menu, loading, play and pause, one generator process, and the way between them.

Does not know how a screen looks or how a session is paced.
"""

from __future__ import annotations

from argparse import Namespace
from pathlib import Path
from typing import Any

import pygame

from app.choices import Choices
from app.cues import cue
from app.detail import Detail
from app.door import DEFAULT_SIZE, Door, Pixels, home_of
from app.drift import DriftWatch
from app.hotkeys import HOTKEYS, is_fullscreen_key
from app.keeping import Keeper
from app.library import Library
from app.pacing import WallClock, rest
from app.packs import is_pack
from app.places import Place, open_place, walk_of
from app.player import PlaySession
from app.protocol import Failed, Load, Ready
from app.recovery import Watchdog
from app.screens import commands
from app.screens.browse import BrowseScreen
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
from app.stage import Screen, Stage
from app.walk import LOST, Walk
from app.window import Window, from_clipboard
from controls.action import ActionSpec
from controls.bindings import Bindings
from controls.devices import gamepad
from controls.errors import UserError
from controls.sampler import InputSampler

IDLE_REST = 1 / 60  # seconds; menus look for events this often
WINDOW_KEYS = tuple(HOTKEYS)
ONE_CALL = "Quality, in the settings, at 1 call is what every world has."


class Program:
    """Owns the window's screens and the generator, which loads the world of the scene that comes `first`, if that is
    known; `loop` runs until the player leaves.
    """

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
        first: Any = None,
    ) -> None:
        self.args, self.door, self.window, self.bindings = args, door, window, bindings
        self.sound = sound or Soundscape.silent()
        self.clock = WallClock()
        home = home_of(args.weights, first)
        load = Load(home, args.backend, args.threads, log_path(), settings.calls, parallel=args.parallel)
        self.library = Library(door, scenes, data_folder())
        self.menu = MenuScreen(self.library.scenes, self.library.picture, lambda: self.generator.status())
        self.generator = GeneratorProcess(load, door.open_world)  # loads while the player chooses
        self.pads, keeper = gamepad.open_pads(), keeper or Keeper(reserved=WINDOW_KEYS)
        self.choices = Choices(keeper, settings, window, self.sound, self.pads)
        self.slots = Slots(data_folder() / "places")
        self.stage = Stage(self.menu, self.sound, self.pads)
        self.walk: Walk | None = None
        self.watchdog, self.detail, self.running = Watchdog(self.clock), Detail(), True
        self._pad_keys = PadKeys()
        self._resting = InputSampler(ActionSpec(), bindings)  # hears pads come and go while nothing is played
        self.usual = self.library.usual(home)
        self.menu.notice = " ".join(keeper.notices)

    @property
    def settings(self) -> Settings:
        """The settings in use."""
        return self.choices.settings

    @property
    def screen(self) -> Screen:
        """The present screen."""
        return self.stage.screen

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
            self.stage.say(f"{self.menu.notice} {words}".strip() if self.screen is self.menu else words)
        if self.screen.dirty:
            screen, began = self.screen, self.clock.now()
            screen.draw(self.window.surface)
            self.window.flip()
            if isinstance(screen, PlayScreen):
                screen.drawn()
                screen.session.figures.draw_ms.add(1000 * (self.clock.now() - began))
        self._rest()

    def _rest(self) -> None:
        if isinstance(self.screen, PlayScreen) and self.session is not None:
            session = self.session
            rest(self.clock, self.generator.wait, session.next_wake(limit=IDLE_REST), session.config.spin)
        else:
            self.generator.wait(IDLE_REST)

    def _event(self, event: pygame.event.Event) -> None:
        self.stage.heard(event)
        if event.type == pygame.QUIT:
            self.running = False
        elif event.type in (pygame.WINDOWRESIZED, pygame.WINDOWSIZECHANGED, pygame.WINDOWEXPOSED):
            self.window.refresh()
            self.screen.dirty = True
        elif event.type == pygame.KEYDOWN and is_fullscreen_key(event):
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

    def _feed_generator(self) -> None:
        """While nothing is being played, listen to the generator, and start what was picked once it can."""
        replies = self.generator.poll()
        if self.session is not None:
            self.session.feed(replies)
            while self.session.notices and isinstance(self.screen, PauseScreen):
                self.stage.say(self.session.notices.popleft())
        screen, walk, ready = self.stage.lower(), self.walk, self.generator.ready
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

    def carry_out(self, command: commands.Command | None) -> None:
        """Do what a screen asked for; a UserError becomes a notice in the menu."""
        try:
            self._carry_out(command)
        except UserError as error:
            if isinstance(self.screen, BrowseScreen):
                self.stage.say(str(error))
            else:
                self._to_menu(str(error))

    def _carry_out(self, command: commands.Command | None) -> None:
        match command:
            case commands.Pick(scene):
                self._pick(scene)
            case commands.Open(path):
                self._open(path)
            case commands.Browse():
                folder, load = self.library.start_folder(), self.door.load_picture
                self.stage.show(BrowseScreen(folder, lambda path: load(path, DEFAULT_SIZE)))
            case commands.Paste():
                self._open(self.library.paste(from_clipboard))
            case commands.Forget(scene):
                if self.library.forget(scene):
                    self.menu.refill(self.library.scenes)
            case commands.Play() | commands.Resume() if self.play is not None:
                self.stage.show(self.play)
                self.play.capture(True)
            case commands.Pause() if self.play is not None:
                self.play.capture(False)
                marks = walk_of(self.play.session, STRIP)
                self.stage.show(PauseScreen(self.play.draw_frame, self.slots.look, marks))
            case commands.Restart():
                self._restart()
            case commands.SaveSlot():
                self.stage.say(self.walk.save(self.slots) if self.walk else "")
            case commands.LoadSlot():
                self._load()
            case commands.MoveSlot(step):
                slot = self.slots.move(step)
                self.stage.say(slot.words().capitalize(), slot.picture)
            case commands.BackTo(index) if self.session is not None:
                self.session.go_back(index)
                self.carry_out(commands.Resume())
            case commands.SingleStep() if self.play is not None:
                self.carry_out(commands.Resume())
                self.play.step()
            case commands.Screenshot():
                self.stage.say(self.walk.keep_picture(data_folder() / "pictures") if self.walk else "")
            case commands.Change(name, value):
                self._change(name, value)
            case commands.Rebind(bindings):
                self.bindings = bindings
                if unsaved := self.choices.rebind(bindings, self.play):
                    self.stage.say(unsaved)
            case commands.OpenSettings():
                self._open_settings()
            case commands.CloseSettings():
                self.stage.show(self.stage.under)
            case commands.Reanchor():
                self._reanchor()
            case commands.Recover(words):
                self._recover(words)
            case commands.ToMenu(notice):
                self._to_menu(notice)
            case commands.Quit():
                self.running = False

    def _pick(self, scene: Any, place: Place | None = None) -> None:
        known, home = self.library.known(scene), self._home(scene)
        self.door.check_weights(home)
        walk = Walk(self.generator, self.door, scene, self.args.seed, place, self.detail)
        if not self.generator.alive or (self.generator.nfe, self.generator.weights) != (self.settings.calls, home):
            self.generator.restart(nfe=self.settings.calls, weights=home)
            self.usual = self.library.usual(home)
        self.menu.notice = ""
        self._leave_walk()
        self.walk = walk
        walk.hint = self.sound.scene(known, walk.card)
        self._show_loading(walk.card)

    def _home(self, scene: Any) -> Path:
        """The weights that a scene, or the one that a saved place is of, is walked with."""
        return home_of(self.args.weights, self.library.known(scene), self.generator.weights)

    def _show_loading(self, picture: Pixels, said: str = "") -> None:
        assert self.walk is not None
        plain = self.settings.reduced_motion
        self.stage.show(LoadingScreen(self.walk.scene.title, picture, self._progress, self.clock, plain, said))

    def _progress(self) -> tuple[float, str]:
        if self.session is not None and self.walk is not None and not self.walk.resuming:
            return 1.0, "Drawing the first frame"
        progress = self.generator.progress
        return 0.95 * progress.fraction, progress.stage

    def _begin(self, walk: Walk, ready: Ready) -> None:
        s = self.settings
        sampler = InputSampler(ready.spec, self.bindings, s.sensitivity, s.invert)

        def screen(session: PlaySession, sampler: InputSampler) -> PlayScreen:
            watch = DriftWatch(self.usual)
            return PlayScreen(self.window, session, sampler, self.pads, ready.info, s, self.sound, watch)

        walk.begin(ready, self.clock, sampler, screen)
        self.choices.tell(self.play)

    def _restart(self) -> None:
        if self.walk is not None and self.play is not None and self.walk.restart():
            self.stage.show(self.play)
            self.play.capture(True)

    def _open(self, path: Path) -> None:
        """A picture is walked from at once, a world pack is shown in the menu."""
        if not isinstance(self.screen, MenuScreen | BrowseScreen):
            return
        scenes = self.library.open(path)
        self.menu.refill(self.library.scenes)
        if is_pack(path):
            self._to_menu("")
            self.menu.news = f"Opened {path.name}: {len(scenes)} to walk through."
        else:
            self._pick(scenes[0])

    def _reanchor(self) -> None:
        """Begin anew from the scene that looks most like the present picture, and fade over to it."""
        walk, play, ready = self.walk, self.play, self.generator.ready
        if walk is None or play is None or play.last is None or ready is None or walk.resuming:
            return
        scene = self.library.nearest(play.last.pixels, walk.scene, self.generator.weights)
        if scene is None:
            self.stage.say("There is no scene to go back to.")
            return
        play.fade()
        walk.start(scene, self.door.load_picture(scene.picture, ready.size), self.args.seed)
        self.stage.show(play)
        play.capture(True)
        self.stage.say(f"Back to what is nearest: {scene.title}")

    def _recover(self, words: str) -> None:
        """The generator has failed: go on with a new one, or, when nothing was shown or it fails too often, end."""
        walk = self.walk
        if walk is None or not walk.may_resume:
            self._to_menu(words if self.generator.nfe == 1 else f"{words} {ONE_CALL}")
        elif walk.failed(paused=not isinstance(self.screen, PlayScreen)):
            assert self.play is not None and self.play.last is not None
            self._show_loading(self.play.last.pixels, words)
        else:
            self._to_menu(f"{words} {LOST}")

    def _resume(self, walk: Walk) -> None:
        said = walk.resume()
        if walk.session is not None:
            walk.session.notices.append(said)

    def _load(self) -> None:
        """To the place in the current slot; when it is refused nothing changes."""
        try:
            place = open_place(self.slots)
            here = self._home(place) == self.generator.weights
            if here and self.generator.ready is not None:
                place.check(self.generator.ready)
        except UserError as error:
            self.stage.say(str(error))
            return
        if not here or self.walk is None or not self.walk.go_to(place):
            self._pick(place, place)
        else:
            self.carry_out(commands.Resume())
            self.stage.say(self.slots.look().words().capitalize())

    def _change(self, name: str, value: Any) -> None:
        size = self.generator.ready.size if self.generator.ready is not None else DEFAULT_SIZE
        unsaved = self.choices.change(name, value, size, self.play)
        if isinstance(self.screen, SettingsScreen):
            self.screen.settings = self.settings
        self.screen.dirty = True
        if unsaved or (name == "muted" and isinstance(self.screen, PlayScreen)):
            self.stage.say(unsaved or ("Muted" if value else "Sound on"))

    def _open_settings(self) -> None:
        """Over the menu, the pause menu, or, pausing it, the play screen."""
        if isinstance(self.screen, PlayScreen):
            self.carry_out(commands.Pause())
        behind = self.play.draw_frame if self.play is not None and isinstance(self.screen, PauseScreen) else None
        defaults = self.choices.keeper.default_bindings
        self.stage.show_settings(SettingsScreen(self.settings, self.bindings, WINDOW_KEYS, defaults, behind))

    def _to_menu(self, notice: str) -> None:
        if self.play is not None:
            self.play.capture(False)
            if self.play.stalled and self.generator.alive:
                self.generator.restart()
        self._leave_walk()
        self.sound.scene(None)
        self.menu.notice = notice
        self.stage.show(self.menu)

    def _leave_walk(self) -> None:
        if self.walk is not None:
            self.walk.close()
        self.walk = None
