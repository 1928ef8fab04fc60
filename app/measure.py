"""`run.py benchmark --game`: what saving, loading, rewinding and looking ahead cost and give on this machine.

All in one process, with the World that play would open. Times in ms, sizes in MB, one figure each unless a name says
p50 or max. The look's residuals need no World: see `app.reproject`.

Does not know about windows or how the World is made.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from app.door import WorldLike
from app.history import RememberingWorld
from app.reproject import far_view, residuals
from app.statefile import About, StateFile, write_state
from controls.replay import built_in

ANGLES = (1.0, 2.0, 4.0, 6.0, 8.0, 12.0)


def measure_game(world: WorldLike, steps: int = 200, back: int = 12) -> dict[str, Any]:
    """Walk `steps` latent frames, then save, load, and go back `back` times; checks that what follows is the same."""
    kept, script = RememberingWorld(world), built_in("stroll", world.spec, 1)
    scenery = np.rint(255 * far_view((0.0, 0.0), 90.0, world.size).clip(0, 1)).astype(np.uint8)
    kept.reset(np.repeat(scenery[..., None], 3, axis=2), 1)
    actions, frames = [script.next() for _ in range(steps)], {}
    for index, action in enumerate(actions, 1):
        frames[index] = kept.step(action)
    report: dict[str, Any] = {"latent_frames": steps, "history_mb": kept.nbytes / 1e6}
    report["reach_s"] = (kept.frame_index - kept.oldest) * world.spec.ticks / world.fps
    report |= _saving(kept)
    took, same = [], True
    for place in np.linspace(steps - 1, max(kept.oldest, 1), back).round().astype(int).tolist():
        took.append(_timed(lambda place=place: kept.rewind(place)))  # type: ignore[misc]
        same &= bool(np.array_equal(kept.step(actions[place]), frames[place + 1]))
    report["rewind_ms_p50"], report["rewind_ms_max"] = float(np.median(took)), max(took)
    report["exact_after_rewind"] = same
    camera = getattr(world, "camera", None)
    hfov = float(camera.hfov_degrees) if camera is not None else 90.0
    report["look"] = residuals(ANGLES, hfov, world.size)
    return report


def _timed(act: Callable[[], Any]) -> float:
    began = time.perf_counter()
    act()
    return 1e3 * (time.perf_counter() - began)


def _saving(world: RememberingWorld) -> dict[str, Any]:
    """One state through a file and back."""
    action = built_in("forward", world.spec, 0).next()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "state"
        copied = _timed(world.save_state)
        state, about = world.save_state(), About("", "", world.frame_index)
        written = _timed(lambda: write_state(path, about, state, world.picture, world.first))
        ahead = world.world.step(action)

        def load() -> None:
            with StateFile(path) as file:
                world.world.load_state(file.state())

        loaded = _timed(load)
        same = bool(np.array_equal(world.world.step(action), ahead))
        world.world.load_state(state)
        return {
            "state_mb": sum(array.nbytes for array in state.values()) / 1e6,
            "file_mb": path.stat().st_size / 1e6,
            "copy_ms": copied,
            "write_ms": written,
            "read_and_load_ms": loaded,
            "exact_after_load": same,
        }
