"""Drift: whether the shown picture still looks like anything the world has learned, by three plain statistics.

`saturation` is the mean difference of a pixel's largest and smallest colour (0 to 1), `sharpness` the mean absolute
Laplacian of the luminance (0 to 4), `entropy` that of the luminance's histogram in bits (0 to 6), all of a picture
thinned out to about 128 pixels across. What is usual for each is a range: from the file `picture-range.yaml` in the
weights folder where there is one (`run.py worlds range` writes it from recorded pictures), else from the first frames
of the scenes, which are pictures of the training data. A handful of pictures knows little, so that range is widened by
`SLACK`; what the tokenizer alone softens is allowed.

The nearest scene, for going back to something known, is the one whose small picture differs least.

Does not know about windows, sessions or how a world is started anew.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from app.ticks import Pixels
from controls.errors import UserError
from controls.files import write_atomic
from controls.strict_yaml import load_file

FILE = "picture-range.yaml"
NAMES = ("saturation", "sharpness", "entropy")
TOO = {  # what a player reads: below the range, above it
    "saturation": ("too grey", "too colourful"),
    "sharpness": ("too blurred", "too noisy"),
    "entropy": ("too flat", "too busy"),
}
ACROSS = 128  # pixels of the thinned picture
BINS = 64
SLACK = 0.25  # of the width of a range that was read from a few pictures, on both sides
RARE, MARGIN = 0.005, 0.1  # of many pictures: the share left out on either side, and what their range is widened by
SOFTENED = 0.5  # of the lowest sharpness: what is left of it in a picture that a tokenizer has decoded
AWAY, BACK = 12, 6  # latent frames outside until it counts, and inside until it is over
LAYOUT = (8, 5)  # the small picture, X x Y
Stats = dict[str, float]
Range = Mapping[str, tuple[float, float]]


def statistics(picture: Pixels) -> Stats:
    """The three statistics of a picture uint8 (Y, X, 3); well under a millisecond."""
    stride = max(1, picture.shape[1] // ACROSS)
    small = picture[::stride, ::stride]
    chroma = small.max(axis=2) - small.min(axis=2)
    grey = (small[..., 0].astype(np.int16) * 5 + small[..., 1] * np.int16(9) + small[..., 2] * np.int16(2)) >> 4
    inner = grey[1:-1, 1:-1]
    laplacian = 4 * inner - grey[:-2, 1:-1] - grey[2:, 1:-1] - grey[1:-1, :-2] - grey[1:-1, 2:]
    counts = np.bincount((grey.ravel() * BINS) >> 8, minlength=BINS)
    shares = counts[counts > 0] / grey.size
    return {
        "saturation": float(chroma.mean()) / 255,
        "sharpness": float(np.abs(laplacian).mean()) / 255,
        "entropy": float(-(shares * np.log2(shares)).sum()),
    }


def range_of(pictures: Iterable[Pixels]) -> Range:
    """What is usual for pictures uint8 (Y, X, 3) such as these, widened; no range at all without any."""
    return _range([statistics(picture) for picture in pictures], 0.0, SLACK)


def range_of_many(pictures: Iterable[Pixels]) -> Range:
    """What is usual for many recorded pictures uint8 (Y, X, 3), the rarest left out; no range at all without any."""
    return _range([statistics(picture) for picture in pictures], RARE, MARGIN)


def _range(found: Sequence[Stats], rare: float, slack: float) -> Range:
    ranges: dict[str, tuple[float, float]] = {}
    for name in NAMES if found else ():
        low, high = (float(edge) for edge in np.quantile([stats[name] for stats in found], [rare, 1 - rare]))
        room = slack * max(high - low, 0.5 * high)
        ranges[name] = (max(0.0, (low * SOFTENED if name == "sharpness" else low) - room), high + room)
    return ranges


def save_range(usual: Range, folder: Path) -> Path:
    """Write what is usual into a weights folder, where `load_range` finds it; returns the file. UserError without a
    range or a place for it.
    """
    if not usual:
        raise UserError("There are no recorded pictures to take a range from; give --data DIR with training clips.")
    lines = [f"{name}: [{low:.4f}, {high:.4f}]" for name, (low, high) in usual.items()]
    write_atomic(folder / FILE, "\n".join(["# What pictures of this world are like: see app/drift.py.", *lines, ""]))
    return folder / FILE


def load_range(folder: Path) -> Range | None:
    """The range in a weights folder, None when it has none; UserError with the line when the file is wrong."""
    path = folder / FILE
    if not path.is_file():
        return None
    document = load_file(path)
    data = document.mapping((), document.data, NAMES)
    ranges = {}
    for name in NAMES:
        pair = data.get(name)
        if not isinstance(pair, list) or len(pair) != 2:
            raise document.error((name,), f"{name} is {pair!r}; give [lowest, highest].")
        low, high = (document.number((name, place), value, 0.0, 100.0) for place, value in enumerate(pair))
        if low >= high:
            raise document.error((name,), f"{name} is {pair!r}; the first must be the smaller one.")
        ranges[name] = (low, high)
    return ranges


@dataclass
class DriftWatch:
    """Looks at one picture a latent frame; `away` is what is wrong, in words, once it has been so for a while."""

    usual: Range
    away: str = ""
    stats: Stats | None = None
    since: int = 0  # latent frames for which it has been away
    _wrong: int = 0
    _right: int = 0

    def look(self, picture: Pixels) -> None:
        """Look at a picture uint8 (Y, X, 3)."""
        self.stats = statistics(picture)
        problem = self._problem(self.stats)
        self._wrong, self._right = (self._wrong + 1, 0) if problem else (0, self._right + 1)
        if problem and (self.away or self._wrong >= AWAY):
            self.since = self.since + 1 if self.away else 0
            self.away = problem
        elif self.away and self._right >= BACK:
            self.away, self.since = "", 0

    def _problem(self, stats: Stats) -> str:
        for name, (low, high) in self.usual.items():
            if not low <= stats[name] <= high:
                return TOO[name][stats[name] > high]
        return ""

    def forget(self) -> None:
        """Another walk, or this one from another picture."""
        self.away, self.since, self.stats, self._wrong, self._right = "", 0, None, 0, 0

    def words(self) -> str:
        """The statistics with their ranges, in few words, for the figures."""
        if self.stats is None or not self.usual:
            return "not measured"
        shown = [f"{name[:3]} {self.stats[name]:.2f}" for name in self.usual]
        return f"{' '.join(shown)}{' (' + self.away + ')' if self.away else ''}"


def layout(picture: Pixels) -> Pixels:
    """The colour layout of a picture uint8 (Y, X, 3): mean colours of LAYOUT's fields, float (Y, X, 3)."""
    wide, high = LAYOUT
    rows, columns = (np.linspace(0, size, parts + 1).astype(int)[:-1] for size, parts in zip(
        picture.shape[:2], (high, wide), strict=True
    ))  # fmt: skip
    sums = np.add.reduceat(np.add.reduceat(picture.astype(np.float64), rows, axis=0), columns, axis=1)
    areas = np.outer(np.diff([*rows, picture.shape[0]]), np.diff([*columns, picture.shape[1]]))
    fields: Pixels = sums / areas[..., None]
    return fields


def nearest(picture: Pixels, others: Sequence[Pixels]) -> int:
    """Which of `others` looks most like `picture`, by colour layout; there must be one. All uint8 (Y, X, 3)."""
    wanted = layout(picture)
    return int(np.argmin([float(np.square(layout(other) - wanted).mean()) for other in others]))


def cross_fade(before: Pixels, after: Pixels, share: float) -> Pixels:
    """`share` of the way (0 to 1) from one picture uint8 (Y, X, 3) to another of the same size."""
    weight = round(256 * min(1.0, max(0.0, share)))
    mixed: Pixels = ((before.astype(np.uint16) * (256 - weight) + after.astype(np.uint16) * weight) >> 8).astype(
        np.uint8
    )
    return mixed
