"""Engine: one ViZDoom process with one map at a time, driven tick by tick.

Shape key: Y, X video size (160, 256), K keys. A tick is one video frame. Angles are in degrees, yaw positive to the
right, pitch positive up, lengths in map units. Pitch shears the picture (software renderer), it does not rotate it.

Does not know about walk grids, explorers, clips or files other than the world it is given.
"""

from __future__ import annotations

import math
import tempfile
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from controls.action import KEYS
from controls.errors import UserError

WIDTH, HEIGHT, OVERSAMPLE = 256, 160, 2
LOOK_STEP = 360.0 / 65536.0  # the engine turns in 16-bit angles
START_TIC = 10  # the first 8 tics of an episode ignore turning
HIDDEN = (
    "hud",
    "minimal_hud",
    "weapon",
    "crosshair",
    "decals",
    "particles",
    "effects_sprites",
    "messages",
    "screen_flashes",
    "corpses",
)

ARGUMENTS = "-nomonsters +cl_showsecretmessage 0 +con_midtime 0 +con_notifytime 0 +movebob 0 +r_visibility {light}"
BUTTONS = (
    "MOVE_FORWARD",
    "MOVE_BACKWARD",
    "MOVE_LEFT",
    "MOVE_RIGHT",
    "SPEED",
    "JUMP",
    "USE",
    "ATTACK",
    "TURN_LEFT_RIGHT_DELTA",
    "LOOK_UP_DOWN_DELTA",
)

VARIABLES = (
    "CAMERA_POSITION_X",
    "CAMERA_POSITION_Y",
    "CAMERA_POSITION_Z",
    "CAMERA_ANGLE",
    "CAMERA_PITCH",
)


def horizontal_fov() -> float:
    """Degrees across the picture: a 90 degree 4:3 view widened to 16:10 (tests measure it on rendered frames)."""
    return math.degrees(2 * math.atan((WIDTH / HEIGHT) / (4 / 3)))


def quantise(look: npt.ArrayLike) -> npt.NDArray[np.float32]:
    """Degrees as the engine applies them: whole steps of a 16-bit turn, any shape."""
    steps = np.rint(np.asarray(look, np.float64) / LOOK_STEP)
    return np.asarray(steps * LOOK_STEP, np.float32)


@dataclass(frozen=True)
class Pose:
    """Camera of one video frame: x, y, z in map units, yaw in 0..360 and pitch in degrees."""

    x: float
    y: float
    z: float
    yaw: float
    pitch: float

    def row(self) -> tuple[float, float, float, float, float]:
        """x, y, z, yaw, pitch: the row that a clip stores."""
        return (self.x, self.y, self.z, self.yaw, self.pitch)


@dataclass(frozen=True)
class EngineConfig:
    """What to run: the IWAD, an own world over it (PK3) or None, and `light` (r_visibility; 8 is the game's own)."""

    wad: Path
    pk3: Path | None = None
    light: int = 8


class Engine:
    """One engine process; `start` begins an episode, `step` plays one tick. UserError when the world cannot load."""

    def __init__(self, config: EngineConfig) -> None:
        for path in (config.wad, config.pk3):
            if path is not None and not path.is_file():
                raise UserError(f"The game data {str(path)!r} is missing; install vizdoom or rebuild the world.")
        self._folder = tempfile.TemporaryDirectory(prefix="farstep-engine-")
        self._game = self._create(config)
        self._map = ""

    def _create(self, config: EngineConfig) -> Any:
        try:
            import vizdoom
        except ImportError as error:
            raise UserError("Collecting frames needs ViZDoom; run `pip install vizdoom`.") from error
        game = vizdoom.DoomGame()
        game.set_doom_game_path(str(config.wad))
        if config.pk3 is not None:
            game.set_doom_scenario_path(str(config.pk3))
        game.set_doom_config_path(str(Path(self._folder.name) / "engine.ini"))
        game.set_screen_resolution(vizdoom.ScreenResolution.RES_512X320)
        game.set_screen_format(vizdoom.ScreenFormat.RGB24)
        for name in HIDDEN:
            getattr(game, f"set_render_{name}")(False)
        game.set_available_buttons([getattr(vizdoom.Button, name) for name in BUTTONS])
        game.set_available_game_variables([getattr(vizdoom.GameVariable, name) for name in VARIABLES])
        game.set_window_visible(False)
        game.set_sound_enabled(False)
        game.set_mode(vizdoom.Mode.PLAYER)
        game.set_episode_start_time(START_TIC)
        game.set_episode_timeout(0)
        game.add_game_args(ARGUMENTS.format(light=config.light))
        game.set_doom_map("MAP01" if "2" in config.wad.stem else "E1M1")
        try:
            Path("_vizdoom").mkdir(exist_ok=True)  # the engine makes it; of two that begin together one would die of it
            game.init()
        except Exception as error:
            raise UserError(f"The engine did not start with {str(config.wad)!r}: {error}") from error
        return game

    def start(self, name: str, seed: int) -> Pose:
        """Load the map `name` fresh, at tic START_TIC; the same seed and actions give the same frames."""
        if name != self._map:  # setting it loads the map once more, for nothing
            self._game.set_doom_map(name)
            self._map = name
        self._game.set_seed(seed & 0x7FFFFFFF)
        self._game.new_episode()
        for command in ("god", "give keys"):
            self._game.send_game_command(command)
        return self.pose()

    def warp(self, x: float, y: float) -> Pose:
        """Move to (x, y) on the floor, taking one tick. The target's validity is the caller's affair."""
        self._game.send_game_command(f"warp {x:.1f} {y:.1f}")
        self.step(np.zeros(len(KEYS), np.uint8), (0.0, 0.0))
        return self.pose()

    def step(self, keys: npt.NDArray[np.uint8], look: tuple[float, float]) -> None:
        """Play one tick with keys (K,) held and look = (yaw, pitch) degrees turned."""
        self._game.make_action([*map(float, keys), float(look[0]), float(look[1])], 1)

    @property
    def finished(self) -> bool:
        """Whether the episode is over (a map's exit, a death); `start` begins another."""
        return bool(self._game.is_episode_finished())

    def pose(self) -> Pose:
        """The camera of the frame that `image` shows."""
        x, y, z, angle, pitch = self._game.get_state().game_variables
        return Pose(x, y, z, (-angle) % 360.0, -pitch)

    def observe(self) -> tuple[Image.Image, Pose]:
        """The current picture, averaged to X x Y, and its camera."""
        state = self._game.get_state()
        x, y, z, angle, pitch = state.game_variables
        picture = Image.fromarray(state.screen_buffer).reduce(OVERSAMPLE)
        return picture, Pose(x, y, z, (-angle) % 360.0, -pitch)

    def close(self) -> None:
        """End the process and remove its scratch folder."""
        self._game.close()
        self._folder.cleanup()

    def __enter__(self) -> Engine:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()
