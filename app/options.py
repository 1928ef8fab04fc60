"""The settings as a player reads them: label, section, value in words, what a step changes, and when it takes effect.

Does not know how settings are kept, drawn or carried out.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from app.settings import CHOICES, LIMITS, Settings

AT_ONCE = "Takes effect at once."
NEXT_PICTURE = "Takes effect with the next picture."


@dataclass(frozen=True)
class Option:
    """One setting: `step` changes a number by that much (`ratio`: by that factor), others go through their values.

    `hotkey` names what changes it while playing (`hotkeys`), "" when nothing does.
    """

    name: str
    section: str
    label: str
    about: str
    effect: str
    step: float = 0.0
    ratio: bool = False
    words: Callable[[Any], str] | None = None
    hotkey: str = ""

    def shown(self, settings: Settings) -> str:
        """The present value in words."""
        value = getattr(settings, self.name)
        if self.words is not None:
            return self.words(value)
        return ("on" if value else "off") if isinstance(value, bool) else str(value)

    def moved(self, settings: Settings, way: int) -> Any:
        """The value one step on (+1) or back (-1): numbers stop at their limits, choices go round."""
        value = getattr(settings, self.name)
        if isinstance(value, bool):
            return not value
        if self.name in CHOICES:
            known = CHOICES[self.name]
            return known[(known.index(value) + way) % len(known)]
        low, high = LIMITS[self.name]
        wanted = value * self.step**way if self.ratio else value + way * self.step
        bounded = min(max(wanted, low), high)
        return round(bounded) if isinstance(value, int) else round(bounded, 4)


def _percent(value: float) -> str:
    return f"{100 * value:.0f} %" if value else "off"


OPTIONS = (
    Option(
        "sensitivity", "Looking around", "Mouse sensitivity", "How far the view turns when the mouse moves.", AT_ONCE,
        step=1.15, ratio=True, words=lambda v: f"{v:.3f} degrees / pixel",
    ),
    Option("invert", "Looking around", "Invert look", "Moving the mouse or stick up looks down.", AT_ONCE),
    Option(
        "dead_zone", "Looking around", "Stick dead zone", "How far a stick may lean before it counts.",
        "Takes effect when the stick moves next.", step=0.02, words=lambda v: f"{100 * v:.0f} %",
    ),
    Option(
        "ahead", "Looking around", "Look ahead of the picture",
        "Shifts the last picture as you look, until the next one is there. Never in kept pictures.", NEXT_PICTURE,
        step=0.25, words=_percent,
    ),
    Option(
        "scaling", "Picture", "Scaling", "smooth: soft edges. integer: sharp pixels, whole factors only.", NEXT_PICTURE
    ),
    Option(
        "window_scale", "Picture", "Window size", "The window as a whole factor of the world's picture.",
        "Takes effect at once in a window, after full screen otherwise.", step=1,
        words=lambda v: f"{v} x" if v else "as it is",
    ),
    Option(
        "calls", "Picture", "Quality",
        "Network calls per latent frame. More are a slower teacher, which not every world has, and no better in some.",
        "Takes effect when you choose a scene next.", step=1,
        words=lambda v: f"{v} calls" if v > 1 else "1 call, the fast one",
    ),
    Option(
        "detail", "Picture", "Detail",
        "light: softer pictures in a fifth less time. auto: full, until this machine falls behind.", AT_ONCE
    ),
    Option(
        "reanchor", "Picture", "Bring a lost picture back",
        "A picture that looks like nothing the world has learned fades over to the nearest scene by itself.",
        NEXT_PICTURE,
    ),
    Option(
        "fullscreen", "Picture", "Full screen", "The whole screen, until the program ends.", AT_ONCE,
        hotkey="full screen",
    ),
    Option(
        "hud", "Picture", "Figures", "Frame rate or all figures over the picture.", NEXT_PICTURE, hotkey="figures"
    ),
    Option(
        "inputs", "Picture", "Keys as received", "What the world is given of keys and look, over the picture.",
        NEXT_PICTURE, hotkey="inputs",
    ),
    Option(
        "volume", "Sound", "Volume", "Of everything: places, footsteps, wind, menus.", AT_ONCE, step=0.1, words=_percent
    ),
    Option("muted", "Sound", "Mute", "Nothing is heard.", AT_ONCE, hotkey="mute"),
    Option(
        "flash_guard", "Comfort", "Flash guard",
        "At most three large flashes a second reach the screen. Kept pictures and recordings stay as they are.",
        NEXT_PICTURE,
    ),
    Option(
        "reduced_motion", "Comfort", "Reduced motion",
        "Keys and sticks turn the view at half speed; bars move in plain steps.", AT_ONCE,
    ),
)  # fmt: skip
