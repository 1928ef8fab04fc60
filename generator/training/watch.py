"""The failure watch of stage 3: what ends a run before it spoils what it has.

Does not know how the figures come about.
"""

from __future__ import annotations

import math
from collections import deque
from pathlib import Path

from controls.errors import UserError

WATCHED = 60  # steps over which the motion of rollouts is averaged before it counts as collapsed


def watch(
    folder: Path, step: int, figures: dict[str, float], motion: deque[float], least_motion: float, watched: int
) -> None:
    """UserError when the run has failed: figures that are not finite, or rollouts that stand still.

    `motion` keeps the last rollouts' motion over that of real clips; it counts once there are `watched` of them.
    """
    broken = [name for name, value in figures.items() if not math.isfinite(value)]
    if broken:
        raise UserError(
            f"Step {step} gave no finite {', '.join(broken)}; the last snapshot is kept in {str(folder)!r}, "
            "lower the rates with --set lr=... or begin again with --resume-discriminator-from."
        )
    motion.append(figures["motion"])
    mean = sum(motion) / len(motion)
    if len(motion) >= watched and mean < least_motion:
        raise UserError(
            f"Rollouts move {mean:.2f} times as much as real clips over {watched} steps: the world has come to a stop. "
            f"The last snapshot is kept in {str(folder)!r}; begin again from an earlier one with "
            "--resume-discriminator-from, or allow it with --set least_motion=0."
        )
