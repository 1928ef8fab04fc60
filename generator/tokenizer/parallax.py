"""Parallax: how near each part of a picture is, and how far the commanded keys carry the camera.

Shape key: B batch, Y, X picture size, h, w = Y/4, X/4, P action fields, Z hidden width.
Lengths are in `unit` map units. Nearness is 1 / distance along the level heading; the horizon is tan(pitch) of the
camera, which this kind of engine draws as a shift of the picture (controls/camera.py). Moves follow
`controls.camera.advance`: forward, right and up after each tick's turn.

Ours, after what is known of depth and ego-motion from video (Zhou et al. 2017); trained by training/parallax.py.

Does not know where pictures come from, how they are warped, transformers or caches.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as nnf
from torch import Tensor, nn

from generator.tokenizer import devices
from generator.tokenizer.body import Body
from generator.tokenizer.camera_rays import check_samples
from generator.tokenizer.place import POSE, Place, place_channels
from generator.tokenizer.place_map import BELOW
from generator.tokenizer.refine import Refiner

HINT_ROWS, HINT_COLUMNS = 4, 8  # what the ego-motion is told of the picture: how near things are, coarsely
HINTS = HINT_ROWS * HINT_COLUMNS + 1  # and the horizon
FAMILIAR, FOREIGN = 0.16, 0.28  # levels between a picture of the place and its map's view, and another picture
LOOKS = 2  # action fields that are no keys
FADING, FADED = 0.9, 0.01  # of what is strange, per latent frame; and when it is over
STILL = 0.006  # units per tick; a smaller predicted move is none, so that a standing camera stands


@dataclass(frozen=True)
class ParallaxConfig:
    """Sizes. `size` (width, height) in pixels, `unit` in map units, `action_fields` P.

    `agree` is how far (in levels of -1..1) the decoded picture and the moved one may lie apart, both softened, before
    the decoded one is shown (reproject.py); 0 always shows the decoded one. A `period` in map units says that the world
    is one place, which repeats after so much (place.py), also half as far along both axes where `checkered`, and has a
    map of so many `levels` of height (0: none), which begin so far `below` the recordings' eye. `recall` is how far the
    map's view and a moved picture may lie apart before the map's is what lies ahead; with 0 the map is only told, never
    shown. Each pixel of such a view is the mean of so many `samples`, seen by that slope `lower` than its middle
    (camera_rays.py). With `bodily` what keys do where there is a map is found as a body's laws of motion and the
    place's relief (body.py), or so many `lines` where they are known (line_body.py), not by a network. `refine` is the
    width of what shows pictures of decoded and moved ones (refine.py) in place of `agree`; 0: none.
    """

    size: tuple[int, int] = (256, 160)
    widths: tuple[int, ...] = (24, 32, 48, 64, 96)
    hidden: int = 64
    action_fields: int = 10
    unit: float = 64.0
    agree: float = 0.3
    period: float = 0.0
    checkered: bool = False
    levels: int = 0
    recall: float = 0.0
    bodily: bool = False
    refine: int = 0
    samples: int = 1
    lower: float = 0.0
    below: float = BELOW
    lines: int = 0


@dataclass(frozen=True)
class Seen:
    """What was read from a picture: nearness (B, 1, h, w) in 1 / units and horizon (B,) as tan(pitch)."""

    nearness: Tensor
    horizon: Tensor

    @property
    def hints(self) -> Tensor:
        """(B, HINTS) for the ego-motion."""
        coarse = nnf.adaptive_avg_pool2d(self.nearness.float(), (HINT_ROWS, HINT_COLUMNS)).flatten(1)
        return torch.cat([torch.log1p(coarse), self.horizon.float()[:, None]], dim=1)


def conv(inputs: int, outputs: int, stride: int = 1) -> nn.Sequential:
    """A 3 x 3 convolution and its activation."""
    return nn.Sequential(nn.Conv2d(inputs, outputs, 3, stride, 1), nn.SiLU())


class DepthNet(nn.Module):
    """A small U-Net: picture (B, 3, Y, X) in [-1, 1] to nearness (B, 1, h, w) and horizon (B,)."""

    def __init__(self, config: ParallaxConfig) -> None:
        super().__init__()
        a, b, c, d, e = config.widths
        wide, high = (math.ceil(side / 32) for side in config.size)
        self.enter = conv(12, a)  # pictures are folded 2 x 2 into channels
        self.down1 = conv(a, b, 2)
        self.down2 = nn.Sequential(conv(b, c, 2), conv(c, c))
        self.down3 = nn.Sequential(conv(c, d, 2), conv(d, d))
        self.down4 = nn.Sequential(conv(d, e, 2), conv(e, e))
        self.whole = nn.Sequential(nn.Linear(e * wide * high, 128), nn.SiLU(), nn.Linear(128, 1 + e))
        self.up3 = conv(e + d, d)
        self.up2 = conv(d + c, c)
        self.up1 = nn.Sequential(conv(c + b, b), conv(b, b))
        self.out = nn.Conv2d(b, 1, 3, 1, 1)

    def forward(self, picture: Tensor) -> tuple[Tensor, Tensor]:
        """See the class."""
        level1 = self.down1(self.enter(nnf.pixel_unshuffle(picture, 2)))
        level2 = self.down2(level1)
        level3 = self.down3(level2)
        level4 = self.down4(level3)
        whole = self.whole(level4.flatten(1))
        x = level4 + whole[:, 1:, None, None]
        for up, level in ((self.up3, level3), (self.up2, level2), (self.up1, level1)):
            x = nnf.interpolate(x, level.shape[-2:], mode="bilinear", align_corners=False)
            x = up(torch.cat([x, level], dim=1))
        return nnf.softplus(self.out(x) - 2.0), whole[:, 0]


class EgoMotion(nn.Module):
    """Keys, look and `told` numbers of what is near to moves per tick; what it remembers (speed, say) is a hidden state
    (B, Z).
    """

    def __init__(self, config: ParallaxConfig, told: int) -> None:
        super().__init__()
        self.memory = nn.GRU(config.action_fields + told, config.hidden, batch_first=True)
        self.out = nn.Linear(config.hidden, 3)

    def forward(self, actions: Tensor, told: Tensor, pace: Tensor) -> tuple[Tensor, Tensor]:
        """Encoded actions (B, T, P), what is told (B, T, told), T ticks, pace (B, Z): moves (B, T, 3) and the pace."""
        given = torch.cat([actions, told], dim=-1)
        if not (devices.at_hand(given) or torch.is_grad_enabled()):
            return self.tick_by_tick(given, pace)
        made, last = self.memory(given, pace[None].contiguous())
        return self.out(made), last[0]

    def tick_by_tick(self, given: Tensor, pace: Tensor) -> tuple[Tensor, Tensor]:
        """The same of actions and what is told (B, T, P + told) in plain kernels: libraries of recurrent layers choose
        how to run while they do, which a graph cannot record.
        """
        memory, made, pace = self.memory, [], pace.contiguous()
        weights = (memory.weight_ih_l0, memory.weight_hh_l0, memory.bias_ih_l0, memory.bias_hh_l0)
        for tick in given.unbind(1):
            pace = torch.gru_cell(tick, pace, *weights)
            made.append(pace)
        return self.out(torch.stack(made, dim=1)), pace


class Parallax(nn.Module):
    """Depth and ego-motion together, and the stretch: how much taller than wide the engine draws things.

    What a walk remembers between latent frames is its pace (B, Z): the hidden state of the ego-motion, or the state of
    the body that does its work, and behind it, where the world is one place, how strange to it the first picture was, 1
    to 0, which fades, and the pose (place.py).
    """

    def __init__(self, config: ParallaxConfig) -> None:
        super().__init__()
        check_samples(config.samples)
        self.config = config
        self.depth = DepthNet(config)
        keys = config.action_fields - LOOKS if config.bodily else 0
        given = config.checkered, config.levels, keys, config.lower, config.below, config.lines
        self.place = Place(config.period, *given) if config.period else None
        self.ego: EgoMotion | None = None
        if self.body is None:
            features = self.place.features if self.place else 0
            self.ego = EgoMotion(config, features if self.mapped else HINTS + features)
        self.refiner = Refiner(config.refine, self.recalls) if config.refine else None
        self.log_stretch = nn.Parameter(torch.zeros(()))

    @property
    def place_channels(self) -> int:
        """K: channels that tell a transformer of the place."""
        return place_channels(self.config.period, self.config.checkered, self.config.levels)

    @property
    def stretch(self) -> Tensor:
        """Vertical over horizontal focal length, learned."""
        return self.log_stretch.exp()

    @property
    def known_stretch(self) -> float | Tensor:
        """The stretch to look with, not to learn: a number where it is at hand, elsewhere a tensor ()."""
        stretch = self.stretch.detach()
        return float(stretch) if devices.at_hand(stretch) else stretch

    def perceive(self, picture: Tensor) -> Seen:
        """What a picture (B, 3, Y, X) in [-1, 1] shows."""
        return Seen(*self.depth(picture.contiguous()))  # in one layout: others may round differently

    def no_pace(self, batch: int) -> Tensor:
        """The pace of one who has stood for long: (B, Z), at the plan's origin where there is one."""
        if self.place is None:
            return self.log_stretch.new_zeros(batch, self.remembered)
        return torch.zeros(batch, self.remembered + 1 + POSE, device=self.log_stretch.device)  # float32 always

    def stand(self, picture: Tensor, edge: float) -> Tensor:
        """The pace (B, Z) of one who has stood for long where pictures (B, 3, Y, X) in [-1, 1], which end at slope
        `edge`, show.
        """
        if self.place is None:
            return self.no_pace(len(picture))
        if self.body is not None:
            self.body.ready(self.place)
        pitch = torch.rad2deg(self.perceive(picture.to(self.log_stretch)).horizon.float().atan())
        stretch = self.known_stretch
        pose = self.place.find(picture, pitch, edge, stretch)
        strange = (self.place.unlike(picture, pose, edge, stretch) - FAMILIAR) / (FOREIGN - FAMILIAR)
        return self.paced(self.hidden(self.no_pace(len(picture))), pose, strange.clamp(0, 1))

    def paced(self, hidden: Tensor, pose: Tensor, strange: Tensor | None = None) -> Tensor:
        """A pace (B, Z) from its parts, `strange` (B,) or nothing of it; float32, as places need."""
        strange = hidden.new_zeros(len(hidden)) if strange is None else strange
        return torch.cat([hidden.float(), strange[:, None].to(hidden).float(), pose.to(hidden.device).float()], dim=-1)

    def strange(self, pace: Tensor) -> Tensor:
        """How strange (B,) to a place the picture still is that a walk at this pace began from."""
        strange = pace[:, -POSE - 1].float()
        return strange.masked_fill(strange < FADED, 0.0)

    def hidden(self, pace: Tensor) -> Tensor:
        """What the ego-motion, or the body, remembers of a pace (B, Z)."""
        return pace[:, : self.remembered]

    @property
    def remembered(self) -> int:
        """How many numbers of a pace that is."""
        return self.body.remembered if self.body is not None else self.config.hidden

    def set_at(self, pace: Tensor, pose: Tensor) -> Tensor:
        """The pace (B, Z) at another pose (B, 5), which a body's speed is corrected by."""
        hidden = self.hidden(pace)
        if self.body is not None and self.place is not None:
            hidden = self.body.corrected(self.place, hidden, pace[:, -POSE:].to(hidden), pose.to(hidden))
        return self.paced(hidden, pose)

    def pose(self, pace: Tensor) -> Tensor | None:
        """The pose (B, 5) in a pace, where the world is one place."""
        return pace[:, -POSE:].float() if self.place else None

    @property
    def mapped(self) -> bool:
        """Whether the world is one place that has a map."""
        return self.place is not None and self.place.map is not None

    @property
    def recalls(self) -> bool:
        """Whether what lies ahead is also taken from the place's map."""
        return self.mapped and self.config.recall > 0

    @property
    def body(self) -> Body | None:
        """What moves as keys say, where the world is one place and that was found."""
        return self.place.body if self.place is not None else None

    def told(self, hints: Tensor | None, pose: Tensor | None) -> Tensor:
        """What the ego-motion is told (n, told) of a picture's hints (n, HINTS) at a pose (n, 3 or more) in a place.

        A map knows what is near all around, and better than the picture: it needs no hints.
        """
        known = [] if self.place is None or pose is None else [self.place.known(pose)]
        if self.mapped:
            return known[0]
        assert hints is not None, "only a map knows what is near without the picture"
        return torch.cat([hints, *(part.to(hints) for part in known)], dim=1)

    def steady(self, seen: Seen, pose: Tensor | None) -> Seen:
        """What was seen, with the horizon where the pose (B, 5) has it if a map is shown: read from pictures it
        trembles.
        """
        if pose is None or not self.recalls:
            return seen
        return Seen(seen.nearness, torch.deg2rad(pose[:, 3]).tan().to(seen.horizon))

    def _level(self, pose: Tensor, seen: Seen) -> Tensor:
        """The pose (B, 5) with the pitch that the picture shows, unless it is kept."""
        if self.recalls:
            return pose
        pitch = torch.rad2deg(seen.horizon.float().atan())[:, None]
        return torch.cat([pose[:, :3], pitch, pose[:, 4:]], dim=1)

    def moves(self, seen: Seen, actions: Tensor, pace: Tensor, look: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Moves (B, ticks, 3) in units under encoded actions (B, ticks, P), and the pace afterwards.

        A place wants the look (B, ticks, 2) in degrees as well.
        """
        pose, before = self.pose(pace), pace
        if self.body is not None:
            assert look is not None and pose is not None and self.place is not None, "a place turns as the look does"
            start = self._level(pose, seen)
            pose, made, state = self.body.walk(self.place, start, look, actions, self.hidden(pace))
            moved = (made / self.config.unit).to(self.log_stretch)
            return moved, self.paced(state, pose, FADING * self.strange(before))
        assert self.ego is not None, "keys move a camera by one or the other"
        told = self.told(None if self.mapped else seen.hints, pose)[:, None].expand(-1, actions.shape[1], -1)
        if pose is not None:
            pace = self.hidden(pace).to(self.log_stretch)
        moves, pace = self.ego(actions.to(pace), told.to(pace), pace)
        moves = moves.masked_fill(moves.abs() < STILL, 0.0)
        if self.place is not None and pose is not None:
            assert look is not None, "a place turns as the look does"
            unit = self.config.unit
            pose, made = self.place.advance(self._level(pose, seen), look, moves * unit)
            moves, pace = (made / unit).to(moves), self.paced(pace, pose, FADING * self.strange(before))
        return moves, pace
