"""FVD of what a world makes, beside what real video scores and what the tokenizer alone would let it score.

Shape key: T video frames, Y, X video size, N samples.
The windows of a split, of 16 or 32 frames each after one real picture, are dealt by turns to two hands, so that both
see the same places: one stays real and is the reference, the other is judged. With as many windows in each hand as
`.windows` says, and always against the reference,
`fvd.16`          free rollouts from the real picture before a window, under the window's own actions;
`fvd.16.floor`    the judged windows' real video: what a perfect world would score;
`fvd.16.ceiling`  their real video encoded and decoded: what a perfect transformer would score with this tokenizer.
The three are biased alike and may be compared. `.paired` and `.ceiling.paired` set the rollouts and the decoded video
against the real video of the same windows, as papers do; their floor is 0.

Does not know which clips are held out.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from hashlib import sha256

import numpy as np
from torch import nn

from controls.errors import UserError
from generator.data.clips import Clip, Dataset
from generator.data.latents import PLAN
from generator.evaluation.film_memory import FilmMemory, recorded
from generator.evaluation.frechet import Features, Pixels, apart, fit
from generator.evaluation.fvd import I3D, features, pieces
from generator.evaluation.quality import decoded, prepare
from generator.evaluation.walker import Walker, led

FEWEST = 2  # windows in each hand


@dataclass(frozen=True)
class Window:
    """Frames [start, end) of a clip, the first of them given; `judged` or else reference."""

    clip: int
    start: int
    end: int
    judged: bool


def deal(dataset: Dataset, clips: list[int], length: int, limit: int) -> list[Window]:
    """Windows for both hands, at most `limit` each, evenly over all clips; UserError when there are too few."""
    found = [(clip, *piece) for clip in clips for piece in pieces(dataset.entry(clip)["frames"], length)]
    pairs = len(found) // 2
    count = min(limit, pairs)
    if count < FEWEST:
        raise UserError(
            f"FVD needs {2 * FEWEST} windows of {length} frames or more, and there are {min(2 * limit, len(found))}; "
            "raise --windows or collect more or longer clips."
        )
    chosen = [i * pairs // count for i in range(count)]
    return [Window(*found[2 * pair + hand], bool(hand)) for pair in chosen for hand in (0, 1)]


def fvd_figures(
    walker: Walker,
    dataset: Dataset,
    windows: list[Window],
    network: I3D,
    say: Callable[[str], None],
    memory: FilmMemory | None = None,
) -> dict[str, float | int]:
    """`fvd.LENGTH` and what stands beside it, for windows of one length. What the network saw of real video, and of
    what the tokenizer makes of it, is kept in the memory.
    """
    length = windows[0].end - windows[0].start - 1
    ticks = walker.spec.ticks
    assert length % ticks == 0, f"{length} frames are not whole latent frames of {ticks}"
    rows: dict[str, list[Features]] = {"reference": [], "real": [], "rebuilt": [], "free": []}
    tokenizer = state_hash(walker.weights.tokenizer)  # whatever else of a world is new
    held, kept = (windows[0].clip, dataset.clip(windows[0].clip)), memory or FilmMemory(None)
    for number, window in enumerate(windows):
        if held[0] != window.clip:
            held = (window.clip, dataset.clip(window.clip))
        about = f"{recorded(dataset, [window.clip])} {window.start} {window.end}"
        for name, make, whose in _versions(walker, held[1], window, number, tokenizer):
            look = lambda make=make: features(make()[None, 1:], network)  # noqa: E731
            rows[name].append(look() if whose is None else kept.recall(name, about + whose, look))
        if number % 16 == 15:
            say(f"fvd.{length}: {number + 1} of {len(windows)} windows")
    fits = {name: fit(np.concatenate(values)) for name, values in rows.items()}
    name, reference = f"fvd.{length}", fits["reference"]
    return {
        name: apart(fits["free"], reference),
        f"{name}.floor": apart(fits["real"], reference),
        f"{name}.ceiling": apart(fits["rebuilt"], reference),
        f"{name}.paired": apart(fits["free"], fits["real"]),
        f"{name}.ceiling.paired": apart(fits["rebuilt"], fits["real"]),
        f"{name}.windows": len(rows["free"]),
    }


def state_hash(network: nn.Module) -> str:
    """SHA-256 of a network's numbers, by name."""
    digest = sha256()
    for name, tensor in sorted(network.state_dict().items()):
        digest.update(name.encode() + tensor.detach().float().cpu().numpy().tobytes())
    return digest.hexdigest()


def _versions(
    walker: Walker, clip: Clip, window: Window, seed: int, tokenizer: str
) -> Iterator[tuple[str, Callable[[], Pixels], str | None]]:
    """The videos of a window (1 + T, Y, X, 3), the reference alone or real, rebuilt and freely rolled out: what each is
    called, how it is made, and what it depends on beside the window; None: on more than can be told.
    """
    part = slice(window.start, window.end)
    keys, look, weights = clip.keys[part], clip.look[part], walker.weights

    @cache
    def real() -> Pixels:
        return clip.frames(window.start, window.end - window.start)

    if not window.judged:
        yield "reference", real, ""
        return

    def rebuilt() -> Pixels:
        inputs = prepare(weights, real(), keys, look, clip.pose[part])
        return np.concatenate([pictures for pictures, _ in decoded(weights, inputs.latents)])

    yield "real", real, ""
    yield "rebuilt", rebuilt, tokenizer
    yield "free", lambda: led(walker, real()[0], keys, look, seed, clip.pose[part, PLAN]), None
