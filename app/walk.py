"""A walk: what it began from, its session and screen once the World is open, and going on after a failure.

Does not know about menus, events or the loop that drives it.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from app.detail import SAID, Detail
from app.door import DEFAULT_SIZE, Door
from app.pacing import Clock, PacingConfig
from app.places import Place, keep_picture
from app.player import PlaySession
from app.protocol import Ready
from app.recovery import ATTEMPTS, Automatic, Failures
from app.screens.play import PlayScreen
from app.session import GeneratorProcess
from app.slots import Slots
from app.ticks import Pixels
from controls.errors import UserError
from controls.sampler import InputSampler

MakeScreen = Callable[[PlaySession, InputSampler], PlayScreen]
LOST = f"It was the failure number {ATTEMPTS} in a row, so the walk has ended."


class Walk:
    """From a scene, or from a saved `place`; `session` and `play` are None until `begin`.

    `hint` is what is wrong with the scene, though it can be walked. `resuming`: the generator has failed and is on its
    way back; `was_paused` tells how the player is to find the walk then.
    """

    def __init__(
        self,
        generator: GeneratorProcess,
        door: Door,
        scene: Any,
        seed: int,
        place: Place | None,
        detail: Detail | None = None,
    ) -> None:
        self.generator = generator
        self.scene, self.seed, self.place = scene, seed, place
        self.card = place.picture if place else door.load_picture(scene.picture, DEFAULT_SIZE)  # to look at meanwhile
        self.hint = ""
        self.session: PlaySession | None = None
        self.play: PlayScreen | None = None
        self.resuming = False
        self.was_paused = False
        self.failures = Failures()
        self.automatic = Automatic()
        self.detail = detail or Detail()
        self.fine = False  # whether there is fine detail that could be left out
        self._door = door
        self._picture: Pixels | None = None  # the scene's, in the World's size
        self._places: dict[Path, Place] = {place.path: place} if place else {}  # those that were gone to

    def begin(self, ready: Ready, clock: Clock, sampler: InputSampler, screen: MakeScreen) -> None:
        """The World is open: make the session and its screen, and ask for the first frame. UserError when refused."""
        if self.place is None:
            self._picture = self._door.load_picture(self.scene.picture, ready.size)
        else:
            self.place.check(ready)
        self.session = PlaySession(self.generator, sampler, clock, PacingConfig(ready.fps, ready.spec.ticks))
        self.fine = bool(ready.info.get("fine", False))
        self.session.notices.extend([self.hint] if self.hint else [])
        wanted, running = getattr(self.scene, "weights", ""), str(ready.info.get("weights_hash", ""))
        if not running.startswith(wanted):
            self.session.notices.append(f"Made for the weights {wanted[:8]}, not {running[:8]}: it may look different.")
        self.play = screen(self.session, sampler)
        self._from_the_beginning(self.session)

    def _from_the_beginning(self, session: PlaySession) -> None:
        if self.place is not None:
            session.load(self.place.path, self.place.picture)
        elif self._picture is not None:
            session.begin(self._picture, self.seed)

    def origin(self) -> tuple[Any, int]:
        """What this walk began from, a scene or a saved place, and its random seed."""
        path = self.session.place if self.session is not None else None
        place = self._places.get(path) if path is not None else None
        return (place, place.seed) if place is not None else (self.scene, self.seed)

    def restart(self) -> bool:
        """From its first frame again; False when there is nothing to begin from yet."""
        origin, seed = self.origin()
        picture = origin.first if isinstance(origin, Place) else self._picture
        if self.session is None or picture is None:
            return False
        self.start(origin, picture, seed)
        return True

    def start(self, scene: Any, picture: Pixels, seed: int) -> None:
        """Begin again within this walk, from a picture uint8 (Y, X, 3) of `scene` in the World's size."""
        assert self.session is not None, "a walk that has not begun"
        self.scene, self._picture, self.seed, self.place = scene, picture, seed, None
        self.session.begin(picture, seed)

    def save(self, slots: Slots) -> str:
        """Ask for this place to be saved in the current slot; returns what the player is told, "" for nothing."""
        if self.session is None or not self.session.started or self.session.failure is not None:
            return ""
        self.session.end_rewind()
        origin, seed = self.origin()
        self.generator.save_state(slots.path(), origin.name, origin.title, seed)
        return f"Saving in slot {slots.current} ..."

    def go_to(self, place: Place) -> bool:
        """Go on from a saved place; False when this walk has not begun."""
        self._places[place.path] = place
        if self.session is None:
            return False
        self.session.load(place.path, place.picture)
        return True

    def keep_picture(self, folder: Path) -> str:
        """Write the present picture; returns what the player is told, "" when there is none."""
        if self.play is None or self.play.last is None or self.generator.ready is None:
            return ""
        origin, seed = self.origin()
        ticks, info = self.play.session.config.ticks, self.generator.ready.info
        try:
            return f"Kept as {keep_picture(folder, self.play.last, ticks, (origin.name, seed), info)}"
        except UserError as error:
            return str(error)

    def follow(self) -> None:
        """Once a turn while it is played: automatic states, and how much detail there is."""
        if self.session is not None and self.session.failure is None and self.generator.alive:
            origin, seed = self.origin()
            self.automatic.follow(self.generator, self.session, origin, seed)
        if self.session is not None and self.play is not None and self.fine:
            self._follow_detail(self.session, self.play.settings.detail)

    def _follow_detail(self, session: PlaySession, wanted: str) -> None:
        light = self.detail.follow(wanted, session.figures, session.lead.overloaded)
        if light and not self.generator.light and wanted == "auto":
            session.notices.append(SAID)
        self.generator.lighten(light)

    # --- failures
    @property
    def may_resume(self) -> bool:
        """Whether there is anything to go back to after a failure: something has been shown."""
        return self.session is not None and self.play is not None and self.play.last is not None

    def failed(self, paused: bool) -> bool:
        """The generator has failed: start it once more and go on when it is ready; False when it failed too often."""
        assert self.session is not None and self.play is not None
        self.was_paused = self.was_paused if self.resuming else paused
        self.play.capture(False)
        if not self.failures.another(self.session):
            return False
        if self.failures.row > 1:
            self.automatic.forget_newest()
        self.generator.restart()
        self.resuming = True
        return True

    def resume(self) -> str:
        """The generator is ready again: go on from the newest automatic state; returns what the player is told."""
        assert self.session is not None
        self.resuming = False
        session, found = self.session, self.automatic.newest()
        if found is None:
            origin, _ = self.origin()
            self.place = origin if isinstance(origin, Place) else None
            self._from_the_beginning(session)
            said = "The generator is back; the walk begins anew."
        else:
            session.recover(*found)
            said = "The generator is back; the walk goes on from a few seconds before."
        self.automatic.resumed(self.generator)
        return said

    def close(self) -> None:
        """Remove what was kept for a failure; harmless when repeated."""
        self.automatic.close()
