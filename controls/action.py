"""Action: what a player did during one latent frame, and its one encoding for data, training and play.

Shape key: P action fields (keys, then yaw and pitch), K keys, T ticks of a clip. A tick is one video frame; tick i of
an action belongs to video frame i of its latent frame.

Does not know about devices, bindings, cameras, engines or networks.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from controls.errors import UserError

Float = npt.NDArray[np.float32]
Keys = npt.NDArray[np.uint8]

KEYS = ("forward", "backward", "left", "right", "run", "jump", "use", "attack")


@dataclass(frozen=True)
class ActionSpec:
    """The layout of an encoded action; stored beside every data set and every set of weights.

    `look_scale` is in degrees per encoded unit (a power of two, so that encoding is exact in float32);
    `max_look` is the largest turn in degrees that one tick carries.
    """

    keys: tuple[str, ...] = KEYS
    ticks: int = 4
    look_scale: float = 8.0
    max_look: float = 45.0

    @property
    def fields(self) -> int:
        """P: one field per key, then yaw and pitch."""
        return len(self.keys) + 2

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON."""
        return {**asdict(self), "keys": list(self.keys)}

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> ActionSpec:
        """Rebuild from `to_dict`; UserError when a field is missing or of the wrong kind."""
        try:
            return cls(
                keys=tuple(str(k) for k in data["keys"]),
                ticks=int(data["ticks"]),
                look_scale=float(data["look_scale"]),
                max_look=float(data["max_look"]),
            )
        except (KeyError, TypeError, ValueError) as error:
            raise UserError(
                f"The action spec {data!r} is not readable ({error}); restore it from its source."
            ) from error


@dataclass(frozen=True)
class Action:
    """One latent frame of input: `keys` uint8 (ticks, K) of 0 or 1, `look` float32 (ticks, 2) in degrees per tick.

    look[:, 0] is yaw (positive turns right), look[:, 1] is pitch (positive looks up).
    """

    keys: Keys
    look: Float = field(repr=False)

    @classmethod
    def idle(cls, spec: ActionSpec) -> Action:
        """Nothing pressed, no motion."""
        return cls(
            np.zeros((spec.ticks, len(spec.keys)), np.uint8),
            np.zeros((spec.ticks, 2), np.float32),
        )

    @classmethod
    def hold(cls, spec: ActionSpec, *names: str, yaw: float = 0.0, pitch: float = 0.0) -> Action:
        """The named keys held and a constant look rate in degrees per tick; UserError on an unknown key."""
        action = cls.idle(spec)
        for name in names:
            if name not in spec.keys:
                raise UserError(f"Unknown key {name!r}; this world knows {', '.join(spec.keys)}.")
            action.keys[:, spec.keys.index(name)] = 1
        action.look[:] = (yaw, pitch)
        return action

    def __eq__(self, other: object) -> bool:
        return (
            isinstance(other, Action)
            and np.array_equal(self.keys, other.keys)
            and np.array_equal(self.look, other.look)
        )


def encode_rows(keys: Keys, look: Float, spec: ActionSpec) -> Float:
    """Ticks as network input: keys (T, K) and look (T, 2) in degrees to float32 (T, P)."""
    assert keys.shape[-1] == len(spec.keys), f"keys {keys.shape} do not fit {len(spec.keys)} named keys"
    scaled = np.asarray(look, np.float32) / np.float32(spec.look_scale)
    return np.concatenate([keys.astype(np.float32), scaled], axis=-1)


def encode(action: Action, spec: ActionSpec) -> Float:
    """One action as network input: float32 (ticks, P)."""
    return encode_rows(action.keys, action.look, spec)


def decode(encoded: Float, spec: ActionSpec) -> Action:
    """The action that `encode` was given: encoded (ticks, P)."""
    assert encoded.shape == (spec.ticks, spec.fields), f"{encoded.shape} is not {(spec.ticks, spec.fields)}"
    count = len(spec.keys)
    keys = np.rint(encoded[:, :count]).astype(np.uint8)
    return Action(keys, (encoded[:, count:] * np.float32(spec.look_scale)).astype(np.float32))


def received(action: Action, spec: ActionSpec) -> Action:
    """The action as a world receives it: look clipped to +-max_look a tick, through the encoding and back."""
    clipped = np.clip(action.look, -spec.max_look, spec.max_look)
    return decode(encode(Action(action.keys, clipped), spec), spec)
