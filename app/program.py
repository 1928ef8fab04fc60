"""The window program: menu, loading, play and pause, one generator process, and the way between them.

Does not know how a screen looks or how a session is paced.
"""

from __future__ import annotations

from argparse import Namespace
from dataclasses import replace
from typing import Any

import pygame

from app.door import DEFAULT_SIZE, Door, Pixels
from app.pacing import PacingConfig, WallClock, rest
from app.player import PlaySession
from app.protocol import Load
from app.screens import commands
from app.screens.loading import LoadingScreen
from app.screens.menu import MenuScreen
from app.screens.pause import PauseScreen
from app.screens.play import PlayScreen
from app.session import GeneratorProcess
from app.settings import Settings, load_settings, log_path, save_settings, state_folder
from app.window import Window
from controls.bindings import Bindings, load_bindings
from controls.devices import gamepad
from controls.errors import UserError
from controls.sampler import InputSampler

IDLE_REST = 1 / 60  # seconds; menus look for events this often
WINDOW_KEYS = ("escape", "h", "p", "f3", "f11")
Screen = MenuScreen | LoadingScreen | PlayScreen | PauseScreen


def run(args: Namespace, door: Door) -> int:
    """Open the window and play until it is closed; returns the exit code. UserError when it cannot start."""
    door.check_weights(args.weights)
    settings = load_settings(state_folder() / "settings.yaml")
    settings = replace(settings, scaling=args.scale or settings.scaling, fullscreen=args.fullscreen)
    bindings = load_bindings(reserved=WINDOW_KEYS)
    first = door.find_scene(args.scene) if args.scene else None
    scenes = door.list_scenes()
    window = Window("Farstep", settings.fullscreen)
    try:
        program = Program(args, door, window, settings, bindings, scenes)
        try:
            if first is not None:
                program.carry_out(commands.Pick(first))
            program.loop()
        finally:
            program.generator.close(patience=0.3)
    finally:
        window.close()
    return 0


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
    ) -> None:
        self.args = args
        self.door = door
        self.window = window
        self.settings = settings
        self.bindings = bindings
        self.clock = WallClock()
        load = Load(args.weights, args.backend, args.threads, log_path())
        self.menu = MenuScreen(scenes, lambda s: door.load_picture(s.picture, DEFAULT_SIZE), self._status)
        self.generator = GeneratorProcess(load, door.open_world)  # loads while the player chooses
        self.pads = _pads()
        self.screen: Screen = self.menu
        self.session: PlaySession | None = None
        self.play: PlayScreen | None = None
        self.running = True
        self._scene: Any = None
        self._picture: Pixels | None = None
        self._menu_keys(True)

    def loop(self) -> None:
        """Events, update, draw, rest: until the player leaves."""
        while self.running:
            self.turn()

    def turn(self) -> None:
        """One round of the loop."""
        for event in pygame.event.get():
            self._event(event)
        if not isinstance(self.screen, PlayScreen):
            self._feed_generator()
        self.carry_out(self.screen.update())
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
        else:
            self.carry_out(self.screen.handle(event))

    @staticmethod
    def _is_fullscreen_key(event: pygame.event.Event) -> bool:
        return bool(event.key == pygame.K_F11 or (event.key == pygame.K_RETURN and event.mod & pygame.KMOD_ALT))

    def _feed_generator(self) -> None:
        """While nothing is being played, listen to the generator, and start what was picked once it can."""
        replies = self.generator.poll()
        if self.session is not None:
            self.session.feed(replies)
        if isinstance(self.screen, MenuScreen):
            return
        if self.generator.failure is not None:
            self.carry_out(commands.ToMenu(self.generator.failure))
        elif isinstance(self.screen, PauseScreen):
            return
        elif self.session is None and self.generator.ready is not None:
            self._begin()
        elif self.session is not None and self.session.has_frame:
            self.carry_out(commands.Play())

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
                self._show(PauseScreen(self.settings, self.play.draw_frame))
            case commands.Restart():
                self._restart()
            case commands.Change(name, value):
                self._change(name, value)
            case commands.ToMenu(notice):
                self._to_menu(notice)
            case commands.Quit():
                self.running = False

    def _show(self, screen: Screen) -> None:
        self.screen = screen
        screen.dirty = True
        self._menu_keys(not isinstance(screen, PlayScreen | PauseScreen))

    @staticmethod
    def _menu_keys(repeat: bool) -> None:
        pygame.key.set_repeat(*((350, 60) if repeat else ()))

    def _pick(self, scene: Any) -> None:
        picture = self.door.load_picture(scene.picture, DEFAULT_SIZE)
        if not self.generator.alive:
            self.generator.restart()
        self.menu.notice = ""
        self._scene, self.session, self.play = scene, None, None
        self._show(LoadingScreen(scene.title, picture, self._progress, self.clock))

    def _progress(self) -> tuple[float, str]:
        if self.session is not None:
            return 1.0, "Drawing the first frame"
        progress = self.generator.progress
        return 0.95 * progress.fraction, progress.stage

    def _begin(self) -> None:
        ready = self.generator.ready
        assert ready is not None
        self._picture = self.door.load_picture(self._scene.picture, ready.size)
        s = self.settings
        sampler = InputSampler(ready.spec, self.bindings, s.sensitivity, s.invert)
        config = PacingConfig(ready.fps, ready.spec.ticks)
        self.session = PlaySession(self.generator, sampler, self.clock, config)
        backend = str(ready.info.get("backend", "unknown"))
        self.play = PlayScreen(self.window, self.session, sampler, self.pads, backend, s.scaling)
        self.session.begin(self._picture, self.args.seed)

    def _restart(self) -> None:
        if self.session is None or self.play is None or self._picture is None:
            return
        self.session.begin(self._picture, self.args.seed)
        self._show(self.play)
        self.play.capture(True)

    def _change(self, name: str, value: Any) -> None:
        self.settings = replace(self.settings, **{name: value})
        if name == "fullscreen" and value != self.window.fullscreen:
            self.window.toggle_fullscreen()
        if self.play is not None:
            self.play.scaling = self.settings.scaling
            self.play.sampler.sensitivity = self.settings.sensitivity
            self.play.sampler.invert = self.settings.invert
        if isinstance(self.screen, PauseScreen):
            self.screen.settings = self.settings
        self.screen.dirty = True
        save_settings(replace(self.settings, fullscreen=False), state_folder() / "settings.yaml")

    def _to_menu(self, notice: str) -> None:
        if self.play is not None:
            self.play.capture(False)
            if self.play.stalled and self.generator.alive:
                self.generator.restart()
        self.session, self.play = None, None
        self.menu.notice = notice
        self._show(self.menu)


def _pads() -> gamepad.Gamepads | None:
    try:
        return gamepad.Gamepads()
    except pygame.error:
        return None
