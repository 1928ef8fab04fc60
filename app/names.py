"""What players call a key, a button or a stick's direction: `left stick up`, `A button`, `Left Shift`, `keypad 4`.

Buttons are called by what is printed on the kind of pad in question (`gamepad.KINDS`).

Does not know what a source does, or which device is in use.
"""

from __future__ import annotations

from app.glyphs import LABELS
from controls.bindings import is_pad
from controls.devices.gamepad import XBOX

KEYS = {
    "return": "Enter", "escape": "Esc", "enter": "keypad Enter", "left": "Left arrow", "right": "Right arrow",
    "up": "Up arrow", "down": "Down arrow", ",": "comma", ".": "full stop", ";": "semicolon", ":": "colon",
    "'": "apostrophe", '"': "quotation mark", "`": "backquote", "-": "minus", "_": "underscore",
}  # fmt: skip


def name_of(source: str, kind: str = XBOX) -> str:
    """A source of `controls.bindings` in words; different sources have different ones."""
    if is_pad(source):
        return _on_pad(source.removeprefix("pad "), kind)
    if source.startswith("mouse "):
        part = source.removeprefix("mouse ")
        return source if part.startswith("wheel") else f"{part} mouse button"
    if source in KEYS:
        return KEYS[source]
    if len(source) == 3 and source[0] == "[" and source[2] == "]":
        return f"keypad {source[1]}"
    large = source.title() if len(source) > 1 else source.upper()
    return large if large.lower() == source else source  # a letter without one of that size stays as it is


def _on_pad(name: str, kind: str) -> str:
    if name.endswith("stick press"):
        return f"{name.removesuffix(' press')} pressed"
    if name.startswith("dpad"):
        return name.replace("dpad", "D-pad")
    return f"{LABELS[kind][name]} button" if name in LABELS[kind] else name
