"""Reprojection: the picture moves as a turned head makes it move, and training sees what play will see."""

import copy
import dataclasses
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from controls.action import encode_rows
from controls.errors import UserError
from generator.config import PRESETS
from generator.data.clips import Dataset
from generator.data.encoding import encode_clip, encode_dataset, reprojected
from generator.data.latents import LatentClips
from generator.evaluation.motion import View, turned
from generator.rollout import Eye
from generator.tokenizer.reproject import Reprojector, really_shown, to_picture
from generator.training.adaptation import AdaptationTraining, train
from generator.training.dit_run import open_run

HFOV, TICKS = 90.0, 4
WIDE, HIGH = 96, 64


@pytest.fixture(scope="module")
def turn(tiny_vae) -> Reprojector:
    return Reprojector(tiny_vae, HFOV)


@pytest.fixture(scope="module")
def blob() -> torch.Tensor:
    """(1, 3, Y, X): one soft bright spot in the middle of darkness."""
    y, x = np.mgrid[:HIGH, :WIDE] + 0.5
    spot = 2 * np.exp(-((x - WIDE / 2) ** 2 + (y - HIGH / 2) ** 2) / 18) - 1
    return torch.from_numpy(spot).float().expand(1, 3, -1, -1)


def noise(batch: int = 1, size: int = 64) -> torch.Tensor:
    """Smooth random pictures (B, 3, Y, X)."""
    coarse = torch.randn(batch, 3, 8, 8, generator=torch.Generator().manual_seed(0)).clamp(-1, 1)
    return torch.nn.functional.interpolate(coarse, (size, size), mode="bicubic").clamp(-1, 1)


def look(*ticks: tuple[float, float]) -> torch.Tensor:
    return torch.tensor([ticks], dtype=torch.float32)


def place(view: torch.Tensor) -> tuple[float, float]:
    """Column and row of the spot in a view (3, Y, X)."""
    light = (view[0] + 1).clamp(min=0).double()
    rows, columns = (torch.arange(n).double() + 0.5 for n in light.shape)
    return float((light.sum(0) * columns).sum() / light.sum()), float((light.sum(1) * rows).sum() / light.sum())


def test_standing_still_changes_nothing(turn):
    picture = noise(2)
    views = turn.views(picture, torch.zeros(2, TICKS, 2))
    assert views.shape == (2, 1 + TICKS, 3, 64, 64)
    assert torch.equal(views[:, 0], picture)
    torch.testing.assert_close(views, picture[:, None].expand_as(views), atol=1e-5, rtol=0)


def test_a_turn_to_the_right_moves_the_picture_left_and_a_look_up_moves_it_down(turn, blob):
    column, row = place(blob[0])
    views = turn.views(blob, look((5, 0), (-10, 0), (5, 5), (0, -10)))[0, 1:]
    right, left, up, down = (place(view) for view in views)
    pixels = WIDE / 2 * np.tan(np.radians(5))  # the focal length is half the width at 90 degrees
    assert right == pytest.approx((column - pixels, row), abs=0.15)
    assert left == pytest.approx((column + pixels, row), abs=0.15)
    assert up[0] == pytest.approx(column, abs=0.15) and up[1] > row + 2
    assert down[0] == pytest.approx(column, abs=0.1) and down[1] - row == pytest.approx(row - up[1], abs=0.1)


def test_stripes_move_left_with_a_turn_to_the_right(turn):
    ramp = torch.linspace(-1, 1, WIDE).expand(1, 3, HIGH, WIDE)
    views = turn.views(ramp, look(*[(1.0, 0.0)] * TICKS))[0]
    middle = views[:, 0, :, WIDE // 4 : -WIDE // 4]
    assert (middle[1:] > middle[:-1]).all(), "what is brighter lay further right"
    assert torch.allclose(views[:, :, :1], views[:, :, -1:], atol=1e-5), "upright lines stay upright"


def test_half_the_field_of_view_brings_the_edge_to_the_middle(turn, blob):
    aside = torch.roll(blob, WIDE // 4, dims=3)  # halfway to the right edge: atan(1/2), not half the angle
    spot = place(turn.views(aside, look((np.degrees(np.arctan(0.5)), 0)))[0, 1])
    assert spot == pytest.approx((WIDE / 2, HIGH / 2), abs=0.5)
    picture = noise()
    view = turn.views(picture, look((HFOV / 2, 0)))[0, 1]
    middle = picture.shape[-1] // 2
    wanted = picture[0, :, middle, -1]
    torch.testing.assert_close(view[:, middle, middle], wanted, atol=0.15, rtol=0)


def test_each_view_is_turned_by_all_ticks_so_far(turn):
    picture, ticks = noise(), look((3, 1), (-2, 0.5), (6, -2), (1, 0))
    views = turn.views(picture, ticks)[0]
    for k in range(TICKS):
        alone = turn.views(picture, ticks[:, : k + 1].sum(1, keepdim=True))[0, 1]
        torch.testing.assert_close(views[k + 1], alone, atol=1e-5, rtol=0)


def test_pictures_of_a_batch_do_not_touch(turn):
    pictures, ticks = noise(2), torch.cat([look(*[(2.0, 0.0)] * TICKS), look(*[(-5.0, 1.0)] * TICKS)])
    both = turn.views(pictures, ticks)
    for k in range(2):
        assert torch.equal(both[k], turn.views(pictures[k : k + 1], ticks[k : k + 1])[0])


@pytest.mark.parametrize("yaw", [-30.0, -4.0, 1.5, 12.0])
@pytest.mark.parametrize("size", [(64, 64), (160, 256)])
def test_it_is_the_warp_that_the_evaluation_uses(tiny_vae, yaw, size):
    high, wide = size
    picture = to_picture(noise(size=256)[:, :, :high, :wide])
    view = View(wide, high, 100.0)
    pixels = ((picture[0] + 1) * 127.5).round().byte().permute(1, 2, 0).numpy()
    theirs = turned(pixels, view, yaw, 0.0, 0.0).astype(float)
    ours = Reprojector(tiny_vae, 100.0).views(picture, look((yaw, 0.0)))[0, 1]
    seen = np.abs(np.degrees(np.arctan((np.arange(wide) + 0.5 - wide / 2) / view.focal)) + yaw) < 49.0
    error = np.abs((ours.permute(1, 2, 0).numpy() + 1) * 127.5 - theirs)[:, seen]
    assert seen.sum() > wide // 2 and error.mean() < 0.5 and error.max() < 3


@pytest.mark.parametrize("ticks", [[(170.0, 0.0)], [(-170.0, 0.0)], [(90.0, 0.0)], [(45.0, 45.0)] * 4])
def test_views_behind_ones_back_are_finite(turn, ticks):
    views = turn.views(noise(), look(*ticks))
    assert views.isfinite().all() and views.abs().max() <= 1.0


@torch.no_grad()
def test_forward_is_the_tokenizers_encoding_of_the_views(turn, tiny_vae):
    views = turn.views(noise(2), torch.randn(2, TICKS, 2, generator=torch.Generator().manual_seed(1)))
    by_hand = (tiny_vae.encode(views)[0] - tiny_vae.shift[:, None, None]) * tiny_vae.scale[:, None, None]
    made = turn(views)
    assert made.shape == (2, 8, 4, 4) and torch.equal(made, by_hand[:, 1])


@pytest.fixture(scope="module")
def clip(data_set, tiny_vae):
    """Latents (1 + F, C, H, W) of the tiny data set's first clip, its look (F, ticks, 2) and actions (F, ticks, P)."""
    data = Dataset.open(data_set)
    one = data.clip(0)
    rows = torch.from_numpy(encode_rows(one.keys[1:], one.look[1:], data.spec))
    true = encode_clip(tiny_vae, one.frames(), torch.float32)[0].half().float()  # as latents are kept
    return true, torch.from_numpy(one.look[1:]).unflatten(0, (-1, TICKS)), rows.unflatten(0, (-1, TICKS))


def test_what_training_is_given_is_what_an_eye_sees(clip, tiny_vae, tiny_parallax, latents):
    true, turns, actions = clip
    plain = copy.deepcopy(tiny_parallax)  # shows what is decoded, as the truth is
    plain.config = dataclasses.replace(plain.config, agree=0.0)
    eye, seen = Eye(tiny_vae, HFOV, plain), []
    eye.open(true[:1])
    for k in range(len(turns)):
        seen.append(eye.ahead(turns[k : k + 1], actions[k : k + 1])[0])
        eye.see(true[k + 1 : k + 2])
    made = reprojected(
        Reprojector(tiny_vae, HFOV, tiny_parallax), true[None], turns[None], actions[None], torch.float32
    )[0][0]
    error = (made - torch.stack(seen)).abs()  # a byte that lies between two values may round either way
    assert error.max() < 2e-3 and (error > 1e-4).float().mean() < 0.02
    kept = LatentClips(latents, "train").clips[0]["ahead"]
    torch.testing.assert_close(torch.from_numpy(kept).float(), made, atol=1e-2, rtol=1e-3)


def test_a_batch_holds_what_lies_ahead_of_its_own_frames(clip, latents):
    clips = LatentClips(latents, "train")
    batch = clips.gather([(0, 3), (1, 0)], 5)
    assert batch.ahead.shape == batch.target.shape and batch.look.shape == (2, 5, TICKS, 2)
    assert torch.equal(batch.ahead[0], torch.from_numpy(clips.clips[0]["ahead"][3:8]).float())
    assert torch.equal(batch.look[0], clip[1][3:8])
    assert torch.equal(batch.recycled[:, :, 8:], batch.ahead)
    assert torch.equal(batch.recycled[:, 1:, :8], batch.target[:, :-1])


@pytest.fixture
def plain(latents, tmp_path) -> Path:
    """The latents, two of whose clips hold nothing that lies ahead."""
    folder = tmp_path / "plain"
    shutil.copytree(latents, folder)
    for path in (folder / "000001.npz", folder / "000003.npz"):
        with np.load(path) as stored:
            kept = {name: stored[name] for name in stored.files if name != "ahead"}
        np.savez(path, **kept)
    return folder


def settings(folder: Path, tokenizer_run: Path, parallax_run: Path) -> AdaptationTraining:
    shared = {"preset": "debug", "steps": 1, "batch": 2, "frames": 4, "bf16": False, "device": "cpu"}
    runs = {"tokenizer": str(tokenizer_run), "parallax": str(parallax_run)}
    return AdaptationTraining(latents=str(folder), **runs, **shared)


def test_latents_without_what_lies_ahead_are_refused(plain, tokenizer_run, parallax_run, tmp_path):
    with pytest.raises(UserError, match="hold no reprojected frames"):
        train(settings(plain, tokenizer_run, parallax_run), tmp_path / "run", quiet=True)


def test_the_same_command_mends_latents_that_lack_it(plain, latents, tiny_vae, tiny_parallax, data_set):
    untouched = (plain / "000000.npz").stat().st_mtime_ns
    (plain / "000003.npz").write_bytes(b"half")
    encode_dataset(tiny_vae, data_set, plain, torch.float32, reproject=True, parallax=tiny_parallax)
    assert (plain / "000000.npz").stat().st_mtime_ns == untouched
    for name in ("000001.npz", "000003.npz"):
        with np.load(plain / name) as mended, np.load(latents / name) as whole:
            assert np.array_equal(mended["ahead"], whole["ahead"])


def test_a_model_that_recycles_the_last_latent_alone_trains_on_the_same_latents(
    latents, tokenizer_run, parallax_run, tmp_path, monkeypatch
):
    monkeypatch.setitem(PRESETS["debug"]["dit"], "reproject", False)
    config = settings(latents, tokenizer_run, parallax_run)
    assert open_run(config, tmp_path / "run", "adaptation").draw().recycled.shape == (2, 4, 8, 4, 4)
    assert train(config, tmp_path / "run", quiet=True).step == 1


def plain_grid(high: int = 12, wide: int = 16) -> torch.Tensor:
    """Where the pixels of a picture that did not move lie: (1, Y, X, 2)."""
    y, x = ((torch.arange(n) + 0.5) / n * 2 - 1 for n in (high, wide))
    return torch.stack(torch.broadcast_tensors(x[None, :], y[:, None]), dim=-1)[None]


def test_a_picture_that_stands_or_comes_a_little_nearer_is_really_shown() -> None:
    assert really_shown(plain_grid()).all()
    assert really_shown(plain_grid() * 0.6).all()


def test_repeated_edges_are_not_really_shown() -> None:
    shown = really_shown(plain_grid() + torch.tensor([0.5, 0.0]))
    assert shown[..., :11].all() and not shown[..., 12:].any()


def test_what_a_nearer_thing_had_hidden_is_not_really_shown() -> None:
    """A column moves left: the wall beside it is drawn out over the four pixels that it uncovers."""
    grid = plain_grid()
    grid[:, :, :6, 0] += 4 * 2 / 16  # the column's part of the view comes from four pixels further right
    grid[:, :, 6:10, 0] = grid[:, :, 10:11, 0] - 0.02 * torch.arange(4, 0, -1)
    shown = really_shown(grid)
    assert not shown[..., 6:10].any()
    assert shown[..., :4].all() and shown[..., 12:].all()
