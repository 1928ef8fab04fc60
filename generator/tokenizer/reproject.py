"""Reprojection: the last picture as it will look once the camera has turned and moved, encoded as the next latent.

Shape key: B batch, C latent channels, H, W latent size, Y, X video size, h, w nearness grid.
A turned head moves the whole picture by a known amount, and a step moves each part of it by its nearness: only what a
step uncovers, and detail that comes near, has to be generated. The last picture is turned and moved tick by tick and
encoded as if these were the next pictures of the video. Yaw turns about the upright axis, pitch shifts the picture up
or down, as our engine draws it (controls/camera.py); edges repeat.
Ours; the paper recycles the last latent frame as it is. Measured gain: LOG.md.

Does not know where pictures come from, transformers or caches.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as nnf
from torch import Tensor, nn

from generator.tokenizer import devices
from generator.tokenizer.devices import arrays, centres
from generator.tokenizer.parallax import Parallax, Seen
from generator.tokenizer.vae import VideoVAE

Standing = tuple[float, float, float] | None  # x, y in map units and yaw in degrees, in worlds that are one place

SOFT = 5  # pixels of half the size over which pictures are softened before they are compared
ROUNDS = 3  # of finding how near what is looked at is, which depends on where it is looked at
DRAWN_OUT = 0.4  # pixels of the old picture per pixel of the view; fewer are one pixel pulled over several
FEW = 8  # rays that show whether all is compiled
NEAREST = 0.05  # what came nearer than this share of its distance is behind the camera


@dataclass(frozen=True)
class Views:
    """A picture and its moved views (B, 1 + ticks, 3, Y, X), which pixels (B, ticks, 1, Y, X) it really showed, the
    pose (B, 5) after them where the world is one place, the `known` views (B, ticks, 3, Y, X) of its map, and the
    views as they were `moved`, before something of those was put in their place.
    """

    pictures: Tensor
    inside: Tensor
    pose: Tensor | None = None
    known: Tensor | None = None
    moved: Tensor | None = None

    def to_refine(self) -> list[Tensor]:
        """What a refiner is given beside decoded pictures: (B * ticks, 3 or 1, Y, X) each."""
        moved = self.pictures[:, 1:] if self.moved is None else self.moved
        parts = [moved, self.inside] if self.known is None else [moved, self.inside, self.known]
        return [part.flatten(0, 1).float().contiguous() for part in parts]


class Reprojector(nn.Module):
    """`views` moves a picture, `forward` encodes the views; `hfov` in degrees. Shares the networks' weights.

    Without a `parallax` pictures only turn. While it is `light`, as slow machines want it, fine detail is left out: one
    ray a pixel of a map, and no refiner.
    """

    def __init__(self, vae: VideoVAE, hfov: float, parallax: Parallax | None = None) -> None:
        super().__init__()
        self.vae, self.parallax = vae, parallax
        self.light = False
        self.edge = math.tan(math.radians(hfov) / 2)

    def ahead(
        self,
        picture: Tensor,
        look: Tensor,
        actions: Tensor,
        pace: Tensor,
        perceive: Callable[[Tensor], Seen] | None = None,
    ) -> tuple[Views, Tensor]:
        """The views under look (B, ticks, 2) degrees and encoded actions (B, ticks, P), and the pace (B, Z) after.

        `perceive` stands in for the parallax's own, when it runs elsewhere.
        """
        if self.parallax is None:
            return self.moved(picture, look), pace
        pose = self.parallax.pose(pace)
        seen = self.parallax.steady((perceive or self.parallax.perceive)(picture), pose)
        look = look.to(pace.device)
        moves, after = self.parallax.moves(seen, actions.to(pace.device), pace, look)
        views = self.moved(picture, look, moves, seen)
        if self.parallax.recalls and self.parallax.place is not None and pose is not None:
            path = self.parallax.place.path(pose, look, moves * self.parallax.config.unit)
            views = self.recalled(views, path, self.parallax.strange(pace))
        return replace(views, pose=self.parallax.pose(after)), after

    def no_pace(self, batch: int) -> Tensor:
        """The pace of one who has stood for long: (B, Z); Z is 0 without a parallax."""
        return self.parallax.no_pace(batch) if self.parallax else torch.zeros(batch, 0)

    def stand(self, picture: Tensor) -> Tensor:
        """The pace (B, Z) of one who has stood for long where pictures (B, 3, Y, X) show."""
        return self.parallax.stand(picture, self.edge) if self.parallax else torch.zeros(len(picture), 0)

    @torch.no_grad()
    def ready(self) -> None:
        """Compile what walks take on a processor: at the very first start that is seconds, and a gap in a walk."""
        if self.parallax is None or not devices.at_hand(self.parallax.log_stretch):
            return
        wide, high = self.parallax.config.size
        picture, still = self.parallax.log_stretch.new_zeros(1, 3, high, wide), torch.zeros(1, 1, 3)
        views = self.moved(picture, still[..., :2], still, self.parallax.perceive(picture))
        mixed(picture, picture, views.inside.flatten(0, 1), 1.0)
        place = self.parallax.place
        if place is not None and place.map is not None:
            place.map.view(torch.zeros(1, 5), self.edge, self.parallax.known_stretch, FEW, FEW, fine=True)
        if place is not None and place.body is not None:
            place.body.ready(place)

    @property
    def device(self) -> torch.device:
        """Where its parallax is."""
        return self.parallax.log_stretch.device if self.parallax else torch.device("cpu")

    def standing(self, pace: Tensor) -> Standing:
        """x, y in map units and yaw in degrees of the first of paces (B, Z), where the world is one place."""
        found = self.parallax.pose(pace) if self.parallax else None
        if found is None:
            return None
        x, y, yaw = found[0, :3].tolist()
        return x, y, yaw

    def at(self, pace: Tensor, pose: Tensor | None) -> Tensor:
        """The pace (B, Z) at another pose (B, 5), wherever the place repeats, where the world is one place."""
        if pose is None or self.parallax is None or self.parallax.place is None:
            return pace
        period = self.parallax.place.period
        within = [pose[:, :2].float().remainder(period), pose[:, 2:3].float().remainder(360.0), pose[:, 3:].float()]
        return self.parallax.set_at(pace, torch.cat(within, dim=1))

    def views(self, picture: Tensor, look: Tensor, moves: Tensor | None = None, seen: Seen | None = None) -> Tensor:
        """The picture (B, 3, Y, X), then its view after each tick of look (B, ticks, 2): (B, 1 + ticks, 3, Y, X).

        With moves (B, ticks, 3), and what was seen in the picture, the camera walks as well.
        """
        return self.moved(picture, look, moves, seen).pictures

    def moved(self, picture: Tensor, look: Tensor, moves: Tensor | None = None, seen: Seen | None = None) -> Views:
        """As `views`, and which pixels were really seen (`really_shown`)."""
        look, ticks = look.to(picture.device), look.shape[1]
        turn = look.double().cumsum(1).flatten(0, 1)
        if moves is None or seen is None:
            grid = self.grid(turn, picture.shape[-2:])
        else:
            grid = self.walk(turn, self.places(turn, moves), seen, picture.shape[-2:])
        spread = picture[:, None].expand(-1, ticks, -1, -1, -1).flatten(0, 1)
        turned = nnf.grid_sample(spread, grid.to(picture.dtype), "bicubic", "border", False)  # bilinear softens more
        turned = turned.clamp(-1, 1)
        inside = really_shown(grid).to(picture.dtype)[:, None]
        pictures = torch.cat([picture[:, None], turned.unflatten(0, (-1, ticks))], dim=1)
        return Views(pictures, inside.unflatten(0, (-1, ticks)))

    def recalled(self, views: Views, path: Tensor, strange: Tensor | None = None) -> Views:
        """The views, from poses (B, ticks, 5), with what the place's map shows there wherever the old picture did not
        show it, or shows something else; and the map's views themselves.

        Softened alike the two agree where the map holds what the picture does; the picture is sharper there. Elsewhere
        something was uncovered, came into view or has gone wrong. Of a picture that is `strange` (B,) to the place, 1
        to 0, the more is left: it dissolves as that fades.
        """
        assert self.parallax is not None and self.parallax.place is not None and self.parallax.place.map is not None
        moved = views.pictures[:, 1:].flatten(0, 1)
        given = (path.flatten(0, 1), self.edge, self.parallax.known_stretch)
        samples = 1 if self.light else self.parallax.config.samples
        shown = self.parallax.place.map.view(*given, *moved.shape[-2:], fine=True, samples=samples)[:, :3]
        shown = shown.to(moved).clamp(-1, 1)
        ticks = path.shape[1]
        within = torch.full((len(path), 1), self.parallax.config.recall, device=moved.device)
        if strange is not None:
            within = within + 2.0 * strange[:, None].to(within)
        within = within.expand(path.shape[:2]).reshape(-1, 1, 1, 1)
        told = mixed(moved, shown, views.inside.flatten(0, 1), within).unflatten(0, path.shape[:2])
        if strange is not None and not (devices.at_hand(strange) and not strange.any()):
            # what the place's map shows is not what stands there yet
            shown = shown + strange.repeat_interleave(ticks)[:, None, None, None].to(shown) * (moved - shown)
        pictures = torch.cat([views.pictures[:, :1], told], dim=1)
        return replace(views, pictures=pictures, known=shown.unflatten(0, path.shape[:2]), moved=views.pictures[:, 1:])

    def compose(self, views: Views, frames: Tensor) -> Tensor:
        """What is shown of decoded frames (B, ticks, 3, Y, X) in [-1, 1], byte-valued, where these views lay ahead.

        The decoder's picture is right about colours and soft in detail, a moved picture is sharp and wrong where
        something was uncovered or is misjudged. A refiner decides, where there is one. Else the views are shown
        wherever both, softened alike, agree. (After Liu et al. 2021, Infinite Nature: move, then mend.)
        """
        if self.parallax is None or not self.composes:
            return frames
        made, ticks = frames.flatten(0, 1).float().contiguous(), frames.shape[1]
        if self.refines and self.parallax.refiner is not None:
            shown = self.parallax.refiner(made, *views.to_refine())
        else:
            moved = views.pictures[:, 1:].flatten(0, 1).float().contiguous()
            shown = mixed(moved, made, views.inside.flatten(0, 1), self.parallax.config.agree)
        return to_picture(shown).unflatten(0, (-1, ticks))

    @property
    def composes(self) -> bool:
        """Whether `compose` changes anything."""
        return self.parallax is not None and (self.parallax.config.agree > 0 or self.refines)

    @property
    def finer(self) -> bool:
        """Whether it would do less while it is light."""
        return self.parallax is not None and (
            self.parallax.refiner is not None or (self.parallax.recalls and self.parallax.config.samples > 1)
        )

    @property
    def refines(self) -> bool:
        """Whether a refiner has the last word."""
        return self.parallax is not None and self.parallax.refiner is not None and not self.light

    def grid(self, turn: Tensor, size: tuple[int, ...]) -> Tensor:
        """Where each pixel of the new view lies in the old one, in -1..1: turn (n, 2) degrees to (n, Y, X, 2)."""
        high, wide = size
        aspect = wide / high
        x, y = self._slopes(size, turn)
        yaw, pitch = torch.deg2rad(turn)[:, :, None, None].unbind(1)
        depth = (yaw.cos() - x * yaw.sin()).clamp(min=1e-3)  # a view behind one's back shows the border
        source_x = (x * yaw.cos() + yaw.sin()) / depth
        source_y = y / depth - pitch.tan()
        places = torch.broadcast_tensors(source_x / self.edge, source_y * aspect / self.edge)
        return torch.stack(places, dim=-1)

    def _slopes(self, size: tuple[int, ...], like: Tensor) -> tuple[Tensor, Tensor]:
        """Right and down per unit forward of a picture's columns (1, 1, X) and rows (1, Y, 1)."""
        high, wide = size
        across, down = (centres(count, like.device, like.dtype) * self.edge for count in (wide, high))
        return across[None, None], down[None, :, None] * (high / wide)

    def places(self, turn: Tensor, moves: Tensor) -> Tensor:
        """Where the camera is after each tick, forward, right and up in the first heading: (n, 3) from (B, ticks, 3).

        turn (n, 2) is the summed look in degrees, n = B * ticks.
        """
        forward, right, up = moves.double().unbind(-1)
        yaw = torch.deg2rad(turn[:, 0]).view_as(forward)
        steps = (yaw.cos() * forward - yaw.sin() * right, yaw.sin() * forward + yaw.cos() * right, up)
        return torch.stack(steps, dim=-1).cumsum(1).flatten(0, 1)

    def walk(self, turn: Tensor, place: Tensor, seen: Seen, size: tuple[int, ...]) -> Tensor:
        """As `grid` for a camera that turned (n, 2) and moved to place (n, 3), n = B * views; `seen` of B pictures.

        A point at nearness q in a direction of the new view lies, for the old camera, in that direction plus q times
        the move; q is read from the old picture where the point was, which is found by going round a few times on
        the coarse grid.
        """
        assert self.parallax is not None
        turn, place = turn.float(), place.float()
        often = len(turn) // len(seen.horizon)
        horizon = seen.horizon.float().repeat_interleave(often)
        nearness = seen.nearness.float().repeat_interleave(often, dim=0)
        if compiled(turn):
            from generator.tokenizer import reproject_steps  # brings a compiler along, which a menu need not wait for

            camera = self.edge, float(self.parallax.stretch), NEAREST
            looks = torch.cat([torch.deg2rad(turn), horizon[:, None], place], dim=1)
            given = (arrays(looks, nearness[:, 0]), ROUNDS, size, torch.get_num_threads())
            return torch.from_numpy(reproject_steps.grids(camera, *given))
        rays = _Rays(self, turn, place, horizon, nearness.shape[-2:])
        near = place.new_zeros(())
        old = rays.sources(near)
        for _ in range(ROUNDS):
            found = nnf.grid_sample(nearness, old, padding_mode="border", align_corners=False)[:, 0]
            near = found * rays.forward(near)
            old = rays.sources(near)
        fine = nnf.interpolate(near[:, None], size, mode="bilinear", align_corners=False)[:, 0]
        return _Rays(self, turn, place, horizon, size).sources(fine)

    def forward(self, views: Tensor) -> Tensor:
        """Views (B, 1 + ticks, 3, Y, X) in [-1, 1] to the normalised latent (B, C, H, W) of the moved ones."""
        return self.vae.normalise(self.vae.encode_last(views)[:, None])[:, 0]

    def told(self, latent: Tensor, pose: Tensor | None) -> Tensor:
        """What lies ahead (B, C + K, H, W): the views' latent (B, C, H, W) and the place that pose (B, 5) looks at."""
        if self.parallax is None or self.parallax.place is None:
            return latent
        assert pose is not None, "a world that is one place has a pose"
        given = (pose.to(latent.device), self.edge, self.parallax.known_stretch)
        told = self.parallax.place.channels(*given, latent.shape[-2], latent.shape[-1])
        return torch.cat([latent, told.to(latent)], dim=-3)


def really_shown(grid: Tensor) -> Tensor:
    """bool (n, Y, X): which pixels of views read at grid (n, Y, X, 2), in -1..1, lie within the old picture and are not
    drawn out over what a nearer thing had hidden, where neighbours come from nearly the same place.
    """
    if compiled(grid):
        from generator.tokenizer import reproject_steps

        return torch.from_numpy(reproject_steps.shown(arrays(grid.float())[0], DRAWN_OUT, torch.get_num_threads()))
    high, wide = grid.shape[1:3]
    x, y = grid.unbind(-1)
    shown = (x.abs() <= 1) & (y.abs() <= 1)
    across = (x[:, :, 1:] - x[:, :, :-1]) * (wide / 2) > DRAWN_OUT
    down = (y[:, 1:] - y[:, :-1]) * (high / 2) > DRAWN_OUT
    shown &= torch.cat([across, across[:, :, -1:]], dim=2) & torch.cat([down, down[:, -1:]], dim=1)
    for axis in (1, 2):  # and their neighbours, whose edges are soft
        length = shown.shape[axis] - 1
        before, after = shown.narrow(axis, 0, length), shown.narrow(axis, 1, length)
        both = before & after
        first, last = shown.narrow(axis, 0, 1), shown.narrow(axis, length, 1)
        shown = torch.cat([first, both], dim=axis) & torch.cat([both, last], dim=axis)
    return shown


class _Rays:
    """The rays of n new views on a grid of any size, as the old camera sees them."""

    def __init__(self, owner: Reprojector, turn: Tensor, place: Tensor, horizon: Tensor, size: tuple[int, ...]) -> None:
        assert owner.parallax is not None
        self.edge, self.aspect, self.stretch = owner.edge, size[1] / size[0], owner.parallax.stretch
        x, y = owner._slopes(size, turn)
        yaw, pitch = torch.deg2rad(turn)[:, :, None, None].unbind(1)
        self.before = horizon[:, None, None]
        after = (self.before.atan() + pitch).tan()
        self.y = y / self.stretch - after
        self.z = (yaw.cos() - x * yaw.sin()).clamp(min=1e-3)  # a view behind one's back shows the border
        self.x = x * yaw.cos() + yaw.sin()
        self.step = place[:, :, None, None].unbind(1)

    def forward(self, near: Tensor) -> Tensor:
        """How far ahead of the old camera the points are, in their distance from the new one."""
        return (self.z + near * self.step[0]).clamp(min=NEAREST)

    def sources(self, near: Tensor) -> Tensor:
        """Where points of this nearness lie in the old picture, in -1..1: (n, rows, columns, 2)."""
        z = self.forward(near)
        x = (self.x + near * self.step[1]) / z
        y = (self.y - near * self.step[2]) / z + self.before
        parts = torch.broadcast_tensors(x / self.edge, y * self.stretch * self.aspect / self.edge)
        return torch.stack(parts, dim=-1)


def compiled(given: Tensor) -> bool:
    """Whether what is made of this is made by compiled steps: on a processor, where no gradient is wanted."""
    return devices.at_hand(given) and not torch.is_grad_enabled()


def mixed(one: Tensor, other: Tensor, inside: Tensor, within: float | Tensor) -> Tensor:
    """Of two pictures (n, 3, Y, X) in [-1, 1] the one as far as it is `inside` (n, 1, Y, X) and shows the same as the
    other (`agreement`), elsewhere the other.
    """
    if not compiled(one):
        return torch.lerp(other, one, agreement(one, other, within) * inside)
    from generator.tokenizer import reproject_steps

    apart = torch.as_tensor(within).float().flatten().expand(len(one))
    given = arrays(one.float(), other.float(), inside[:, 0].float(), apart)
    return torch.from_numpy(reproject_steps.mixed(given, SOFT, torch.get_num_threads())).to(one)


def agreement(one: Tensor, other: Tensor, within: float | Tensor) -> Tensor:
    """How far two pictures (n, 3, Y, X) in [-1, 1] show the same, softened alike: (n, 1, Y, X) in 0..1, where levels
    `within` of each other, one number or (n, 1, 1, 1), count as much.
    """
    apart = soften(one - other).abs().amax(1, keepdim=True) / within
    return nnf.interpolate(torch.exp(-apart.square()), one.shape[-2:], mode="bilinear", align_corners=False)


def soften(picture: Tensor) -> Tensor:
    """Pictures (n, 3, Y, X) at half the size, averaged over SOFT x SOFT pixels.

    Sums of shifted pictures: torch's own pooling takes eight times as long on a processor.
    """
    half = picture[..., 0::2, :] + picture[..., 1::2, :]
    half = half[..., 0::2] + half[..., 1::2]
    wide = nnf.pad(half, (SOFT // 2,) * 4, mode="replicate")
    for axis in (-1, -2):
        length = wide.shape[axis] - SOFT + 1
        total = wide.narrow(axis, 0, length)
        for k in range(1, SOFT):
            total = total + wide.narrow(axis, k, length)
        wide = total
    return wide * (0.25 / SOFT**2)


def to_picture(video: Tensor) -> Tensor:
    """Decoded video in [-1, 1], rounded to the byte values that a player is shown; same shape, float32."""
    return ((video.float().clamp(-1, 1) + 1) * 127.5).round() / 127.5 - 1
